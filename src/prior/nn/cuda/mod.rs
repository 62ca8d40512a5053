//! The layers on an NVIDIA GPU, f32: kernels of our own (`kernels.cu`, compiled for the card when the first layer
//! runs), cuBLAS for products, cuDNN for convolutions in builds with it.
//!
//! Compositions of candle's operations ([`super::fallback`]) are right there too, but a normalisation is a dozen
//! passes over memory, and the gradient of a bias a sum along strides.

/// Starts a kernel: `launch!(gpu, name, config, [arguments])`.
macro_rules! launch {
    ($gpu:expr, $name:literal, $config:expr, [$($argument:expr),+]) => {{
        let config = $config;
        let kernel = $gpu.kernel($name, &config)?;
        let mut launch = kernel.builder();
        $(launch.arg($argument);)+
        // SAFETY: the arguments are those of the kernel, in its order, and the memory has the sizes it is told.
        unsafe { launch.launch(config) }.map_err(candle_core::Error::wrap)?;
    }};
}

mod activation;
mod attention;
#[cfg(feature = "cudnn")]
mod conv;
mod linear;
mod norm;
mod random;
mod spatial;
mod sums;
mod tape;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, LaunchArgs, LaunchConfig,
};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::{DType, Device, Error, Result, Tensor};

pub(super) use activation::{geglu, pointwise};
pub(super) use attention::attention;
#[cfg(feature = "cudnn")]
pub(super) use conv::conv2d;
pub(super) use linear::linear;
pub(super) use norm::{group_norm, layer_norm};
pub(super) use random::normals;
pub(super) use spatial::{add_per_channel, embedding, turned, upsample_nearest2x};

/// Whether products may round their factors to TF32 (ten bits of mantissa): several times faster, and too coarse
/// for what is compared with a reference.
static TF32: AtomicBool = AtomicBool::new(false);

/// Lets products of this process round their factors to TF32, or not (the default).
pub fn allow_tf32(allowed: bool) {
    TF32.store(allowed, Ordering::Relaxed);
    candle_core::cuda_backend::set_gemm_reduced_precision_f32(allowed);
}

/// Prepares a device for many layers in a row on one thread: freed memory stays with the process, and the events
/// that order several streams are left out, since there is one.
///
/// # Errors
/// If the driver refuses.
pub fn prepare(device: &Device) -> Result<()> {
    use candle_core::cuda_backend::cudarc::driver::{result, sys};
    let Device::Cuda(device) = device else { return Ok(()) };
    let stream = device.cuda_stream();
    let context = stream.context();
    // SAFETY: one thread and one stream use the device, so nothing needs the events; the pool is the device's own
    // and the attribute a 64-bit number.
    unsafe {
        device.disable_event_tracking();
        let pool = result::device::get_default_mem_pool(context.cu_device()).map_err(Error::wrap)?;
        let mut keep = u64::MAX;
        let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, std::ptr::from_mut(&mut keep).cast())
            .result()
            .map_err(Error::wrap)
    }
}

/// True when the kernels can take these tensors: f32, on one GPU, not empty.
pub(super) fn takes(tensors: &[&Tensor]) -> bool {
    let first = tensors[0].device();
    let fits = |t: &Tensor| t.dtype() == DType::F32 && t.elem_count() > 0 && t.elem_count() < 1 << 31;
    first.is_cuda() && tensors.iter().all(|t| fits(t) && t.device().same_device(first))
}

/// Elements on the device.
type Data = CudaSlice<f32>;

/// A contiguous argument.
struct Arg<'a> {
    data: CudaView<'a, f32>,
    dims: &'a [usize],
}

impl Arg<'_> {
    fn len(&self) -> usize {
        self.dims.iter().product()
    }
}

/// The device that kernels run on.
#[derive(Clone, Copy)]
struct Gpu<'a>(&'a CudaDevice);

impl Gpu<'_> {
    /// Memory for `n` elements; what is in it is unknown.
    fn empty(self, n: usize) -> Result<Data> {
        // SAFETY: every kernel here writes all of its result.
        unsafe { self.0.alloc::<f32>(n) }
    }

    /// A kernel by name, for a launch by `config`.
    fn kernel(self, name: &str, config: &LaunchConfig) -> Result<Kernel> {
        let function = self.0.get_or_load_custom_func(name, "gen3d_layers", ptx(self.0)?)?;
        let kernel = Kernel { function: function.into_cuda_function(), stream: self.0.cuda_stream() };
        if config.shared_mem_bytes > 0 {
            // More than 48 KiB are there only for those who ask.
            let most = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            kernel.function.set_attribute(most, config.shared_mem_bytes as i32).map_err(Error::wrap)?;
        }
        Ok(kernel)
    }
}

/// A function of `kernels.cu` and where it is run.
struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

impl Kernel {
    fn builder(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.function)
    }
}

/// The kernels compiled for the card's generation.
fn ptx(device: &CudaDevice) -> Result<&'static str> {
    static PTX: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compile = || -> std::result::Result<String, String> {
        let stream = device.cuda_stream();
        let (major, minor) = stream.context().compute_capability().map_err(|e| e.to_string())?;
        // The option's text must live as long as the program.
        let arch: &'static str = Box::leak(format!("compute_{major}{minor}").into_boxed_str());
        let options = CompileOptions { arch: Some(arch), ..CompileOptions::default() };
        let compiled = compile_ptx_with_opts(include_str!("kernels.cu"), options);
        compiled.map(|p| p.to_src()).map_err(|e| format!("{e:?}"))
    };
    PTX.get_or_init(compile).as_deref().map_err(|e| Error::Msg(format!("the GPU's kernels: {e}")))
}

/// Blocks of 256 threads for `n` elements, each thread a few.
fn each(n: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (n.div_ceil(256).clamp(1, 1 << 14) as u32, 1, 1),
        block_dim: (256, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// One warp for each of `n` rows, eight a block.
fn warps(n: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (n.div_ceil(8) as u32, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 }
}

/// A block for each of `n` pieces of `size` elements.
fn blocks(n: usize, size: usize) -> LaunchConfig {
    let threads = (size / 8).next_power_of_two().clamp(32, 512) as u32;
    LaunchConfig { grid_dim: (n as u32, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

/// The device of a tensor's storage.
fn device_of(storage: &CudaStorage) -> &CudaDevice {
    storage.device()
}
