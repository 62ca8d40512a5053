//! Differentiable layers on candle tensors, each with an exact backward.

mod conv;
mod conv_weight;
mod fallback;
mod gemm;
mod plan;
mod real;
mod reduce;
mod simd;
mod tape;
mod tile;

#[cfg(test)]
mod tests;

pub use conv::{Padding, conv2d};
