//! Convolution by cuDNN, forward and both gradients.
//!
//! The algorithms are fixed: the implicit products of a precomputed index, which have one order of sums (others
//! add with atomics) and use the matrix units.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t as DataAlgo, cudnnConvolutionBwdFilterAlgo_t as FilterAlgo,
    cudnnConvolutionFwdAlgo_t as ForwardAlgo, cudnnConvolutionMode_t, cudnnMathType_t, cudnnTensorFormat_t,
};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, FilterDescriptor,
    TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Error, Result, Tensor, bail};

use super::tape::{GpuLayer, apply};
use super::{Arg, Data, Gpu, TF32, sums};

/// Correlation of `x` [B, Ci, H, W] with `w` [Co, Ci, k, k], `padding` zeros on every side, plus `b` [Co].
pub(in crate::prior::nn) fn conv2d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let args: Vec<&Tensor> = [x, w].into_iter().chain(b).collect();
    apply(Conv { stride, padding }, &args)
}

struct Conv {
    stride: usize,
    padding: usize,
}

/// Forward, input gradient or filter gradient of a convolution: shapes, stride, padding, and whether TF32 may be used.
type Key = (u8, [i32; 4], [i32; 4], usize, usize, bool);

thread_local! {
    // A handle belongs to a thread and its stream.
    static CUDNN: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
    // cuDNN takes longer to tell the size of its workspace (150 µs) than to start the convolution.
    static WORKSPACES: RefCell<HashMap<Key, usize>> = RefCell::default();
}

/// Memory for a convolution; `bytes` is asked once for each `key`.
fn workspace(gpu: Gpu<'_>, key: Key, bytes: impl FnOnce() -> Result<usize>) -> Result<CudaSlice<u8>> {
    let known = WORKSPACES.with_borrow(|all| all.get(&key).copied());
    let bytes = match known {
        Some(bytes) => bytes,
        None => {
            let bytes = bytes()?;
            WORKSPACES.with_borrow_mut(|all| all.insert(key, bytes));
            bytes
        }
    };
    // SAFETY: cuDNN writes what it reads there.
    unsafe { gpu.0.alloc::<u8>(bytes.max(1)) }
}

fn cudnn(gpu: Gpu<'_>) -> Result<Arc<Cudnn>> {
    CUDNN.with(|all| {
        let mut all = all.borrow_mut();
        if let Some(handle) = all.get(&gpu.0.id()) {
            return Ok(handle.clone());
        }
        let handle = Cudnn::new(gpu.0.cuda_stream()).map_err(Error::wrap)?;
        all.insert(gpu.0.id(), handle.clone());
        Ok(handle)
    })
}

/// What cuDNN is told of a convolution.
struct Told {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<f32>,
    w: FilterDescriptor<f32>,
    y: TensorDescriptor<f32>,
    out: [usize; 4],
    /// Of the forward pass.
    key: Key,
}

impl Conv {
    fn told(&self, gpu: Gpu<'_>, x: &[usize], w: &[usize]) -> Result<Told> {
        let (&[batch, _, height, width], &[co, _, k, _]) = (x, w) else { bail!("conv2d: four dimensions") };
        let size = |n: usize| (n + 2 * self.padding - k) / self.stride + 1;
        let out = [batch, co, size(height), size(width)];
        let four = |d: &[usize]| [d[0] as i32, d[1] as i32, d[2] as i32, d[3] as i32];
        let (pad, stride) = (self.padding as i32, self.stride as i32);
        let (mode, nchw) =
            (cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION, cudnnTensorFormat_t::CUDNN_TENSOR_NCHW);
        let handle = cudnn(gpu)?;
        let mut conv =
            handle.create_conv2d::<f32>([pad; 2], [stride; 2], [1; 2], mode).map_err(Error::wrap)?;
        // By default cuDNN rounds f32 to TF32 where the card has it.
        let exact = !TF32.load(Ordering::Relaxed);
        let math = if exact { cudnnMathType_t::CUDNN_FMA_MATH } else { cudnnMathType_t::CUDNN_DEFAULT_MATH };
        conv.set_math_type(math).map_err(Error::wrap)?;
        Ok(Told {
            conv,
            x: handle.create_4d_tensor::<f32>(nchw, four(x)).map_err(Error::wrap)?,
            w: handle.create_4d_filter::<f32>(nchw, four(w)).map_err(Error::wrap)?,
            y: handle.create_4d_tensor::<f32>(nchw, four(&out)).map_err(Error::wrap)?,
            out,
            key: (0, four(x), four(w), self.stride, self.padding, exact),
        })
    }
}

impl GpuLayer for Conv {
    const NAME: &'static str = "conv2d";

    fn forward(&self, gpu: Gpu<'_>, args: &[Arg<'_>]) -> Result<(Data, Vec<usize>)> {
        let (x, w) = (&args[0], &args[1]);
        let told = self.told(gpu, x.dims, w.dims)?;
        let mut y = gpu.empty(told.out.iter().product())?;
        let op = ConvForward { conv: &told.conv, x: &told.x, w: &told.w, y: &told.y };
        let algo = ForwardAlgo::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
        let mut space = workspace(gpu, told.key, || op.get_workspace_size(algo).map_err(Error::wrap))?;
        // SAFETY: the descriptors have the sizes of the memory.
        unsafe { op.launch(algo, Some(&mut space), (1.0, 0.0), &x.data, &w.data, &mut y) }
            .map_err(Error::wrap)?;
        if let Some(b) = args.get(2) {
            sums::add_bias(gpu, &mut y, b, told.out[2] * told.out[3])?;
        }
        Ok((y, told.out.to_vec()))
    }

    fn backward(
        &self,
        gpu: Gpu<'_>,
        args: &[Arg<'_>],
        _: &Arg<'_>,
        grad: &Arg<'_>,
        needs: &[bool],
    ) -> Result<Vec<Option<Data>>> {
        let (x, w) = (&args[0], &args[1]);
        let told = self.told(gpu, x.dims, w.dims)?;
        let gx = needs[0].then(|| input_gradient(gpu, &told, x.len(), w, grad)).transpose()?;
        let gw = needs[1].then(|| filter_gradient(gpu, &told, x, w.len(), grad)).transpose()?;
        let mut grads = vec![gx, gw];
        if let Some(&needed) = needs.get(2) {
            grads.push(needed.then(|| sums::channel_sums(gpu, grad)).transpose()?);
        }
        Ok(grads)
    }
}

fn input_gradient(gpu: Gpu<'_>, told: &Told, len: usize, w: &Arg<'_>, grad: &Arg<'_>) -> Result<Data> {
    let mut gx = gpu.empty(len)?;
    let op = ConvBackwardData { conv: &told.conv, dx: &told.x, w: &told.w, dy: &told.y };
    let algo = DataAlgo::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
    let key = (1, told.key.1, told.key.2, told.key.3, told.key.4, told.key.5);
    let mut space = workspace(gpu, key, || op.get_workspace_size(algo).map_err(Error::wrap))?;
    // SAFETY: the descriptors have the sizes of the memory.
    unsafe { op.launch(algo, Some(&mut space), (1.0, 0.0), &mut gx, &w.data, &grad.data) }
        .map_err(Error::wrap)?;
    Ok(gx)
}

fn filter_gradient(gpu: Gpu<'_>, told: &Told, x: &Arg<'_>, len: usize, grad: &Arg<'_>) -> Result<Data> {
    let mut gw = gpu.empty(len)?;
    let op = ConvBackwardFilter { conv: &told.conv, x: &told.x, dw: &told.w, dy: &told.y };
    let algo = FilterAlgo::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
    let key = (2, told.key.1, told.key.2, told.key.3, told.key.4, told.key.5);
    let mut space = workspace(gpu, key, || op.get_workspace_size(algo).map_err(Error::wrap))?;
    // SAFETY: the descriptors have the sizes of the memory.
    unsafe { op.launch(algo, Some(&mut space), (1.0, 0.0), &x.data, &mut gw, &grad.data) }
        .map_err(Error::wrap)?;
    Ok(gw)
}
