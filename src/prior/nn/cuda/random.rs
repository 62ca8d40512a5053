//! Counter-based random numbers where they are used.

use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::op::BackpropOp;
use candle_core::{Error, Result, Shape, Storage, Tensor};

use super::{Gpu, each};
use crate::rng::Rng;

/// See [`super::super::normals`].
pub(in crate::prior::nn) fn normals(rng: &Rng, shape: &Shape, device: &CudaDevice) -> Result<Tensor> {
    let gpu = Gpu(device);
    let n = shape.elem_count();
    let (mut y, count, [low, high, step, stream]) = (gpu.empty(n)?, n as u32, rng.words_of_key());
    let kernel = gpu.kernel("normals")?;
    let mut launch = kernel.builder();
    launch.arg(&mut y).arg(&count).arg(&low).arg(&high).arg(&step).arg(&stream);
    // SAFETY: the kernel's arguments, and memory of the size it is told.
    unsafe { launch.launch(each(n)) }.map_err(Error::wrap)?;
    let storage = CudaStorage::wrap_cuda_slice(y, device.clone());
    Ok(Tensor::from_storage(Storage::Cuda(storage), shape.clone(), BackpropOp::none(), false))
}
