//! Differentiable layers on candle tensors, each with an exact backward.
//!
//! Every layer is one operation on candle's tape with kernels of its own for the CPU, in f32 and (for
//! tests by finite differences) in f64. On an NVIDIA GPU (feature `cuda`) there are kernels for f32; elsewhere
//! the layers are compositions of candle operations whose backward is right. Frozen arguments (tensors that are
//! no variables and do not depend on one) cost nothing in the backward. Results are the same bytes for any number
//! of threads.

use candle_core::{Device, Result, Shape, Tensor};

use crate::rng::Rng;

mod activation;
pub mod adam;
mod attention;
mod conv;
mod conv_weight;
#[cfg(feature = "cuda")]
pub mod cuda;
mod device_conv;
mod elsewhere;
mod fallback;
mod gemm;
mod group_norm;
mod kept;
mod layer_norm;
mod linear;
mod memory;
mod pack;
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
pub use conv::{Padding, conv2d, conv2d_kept};
pub use group_norm::group_norm;
pub use kept::Kept;
pub use layer_norm::layer_norm;
pub use linear::{linear, linear_kept};
pub use parts::in_parts;
pub use prelu::prelu;
pub use resample::{scale, warp};
pub use spatial::{add_per_channel, embedding, turned, upsample_nearest2x};

/// Standard normals at the indices from 0 on of `rng`, on `device`. On another device than the CPU the last bits
/// may be others.
///
/// # Errors
/// If the tensor cannot be made.
pub fn normals(rng: &Rng, shape: &Shape, device: &Device) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device {
        return cuda::normals(rng, shape, gpu);
    }
    Tensor::from_vec(rng.normals(0, shape.elem_count()), shape, device)
}

/// Makes a GPU ready for training: products may round to TF32, and freed memory is kept.
///
/// # Errors
/// If the driver refuses.
pub fn prepare_training(device: &Device) -> Result<()> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        cuda::allow_tf32(true);
        return cuda::prepare(device);
    }
    let _ = device;
    Ok(())
}
