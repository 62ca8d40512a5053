//! Counter-based random numbers where they are used.

use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::op::BackpropOp;
use candle_core::{Result, Shape, Storage, Tensor};

use super::{Gpu, each};
use crate::rng::Rng;

/// See [`super::super::normals`].
pub(in crate::prior::nn) fn normals(rng: &Rng, shape: &Shape, device: &CudaDevice) -> Result<Tensor> {
    let gpu = Gpu(device);
    let n = shape.elem_count();
    let (mut y, count, [low, high, step, stream]) = (gpu.empty(n)?, n as u32, rng.key_and_counter());
    launch!(gpu, "normals", each(n), [&mut y, &count, &low, &high, &step, &stream]);
    let storage = CudaStorage::wrap_cuda_slice(y, device.clone());
    Ok(Tensor::from_storage(Storage::Cuda(storage), shape.clone(), BackpropOp::none(), false))
}
