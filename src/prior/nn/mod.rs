//! Differentiable layers on candle tensors, each with an exact backward.
//!
//! Every layer is one operation on candle's tape with kernels of its own for the CPU, in f32 and (for
//! tests by finite differences) in f64. Elsewhere the layers are compositions of candle operations whose
//! backward is right. Frozen arguments (tensors that are no variables and do not depend on one) cost
//! nothing in the backward. Results are the same bytes for any number of threads.

mod activation;
pub mod adam;
mod attention;
mod conv;
mod conv_weight;
mod device_conv;
mod fallback;
mod gemm;
mod group_norm;
mod layer_norm;
mod linear;
mod memory;
mod parts;
mod plan;
mod prelu;
mod real;
mod reduce;
mod resample;
mod simd;
mod spatial;
mod tape;
mod tile;
mod winograd;

#[cfg(test)]
mod tests;

pub use activation::{geglu, gelu, quick_gelu, silu};
pub use attention::attention;
pub use conv::{Padding, conv2d};
pub use group_norm::group_norm;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use parts::in_parts;
pub use prelu::prelu;
pub use resample::{scale, warp};
pub use spatial::{add_per_channel, embedding, upsample_nearest2x};
