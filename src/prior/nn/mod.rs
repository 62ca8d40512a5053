//! Differentiable layers on candle tensors, each with an exact backward.

pub mod adam;
mod attention;
mod conv;
mod conv_weight;
mod fallback;
mod gemm;
mod linear;
mod norm;
mod plan;
mod pointwise;
mod real;
mod reduce;
mod simd;
mod tape;
mod tile;

#[cfg(test)]
mod tests;

pub use attention::attention;
pub use conv::{Padding, conv2d};
pub use linear::{embedding, linear};
pub use norm::{group_norm, layer_norm};
pub use pointwise::{add_per_channel, geglu, gelu, quick_gelu, silu, upsample_nearest2x};
