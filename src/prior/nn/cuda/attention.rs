//! Attention of few tokens: one block a head, all of it in shared memory.

use candle_core::cuda_backend::cudarc::driver::sys::CUdevice_attribute;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::{Device, Error, Result, Tensor, bail};

use super::tape::{GpuLayer, apply};
use super::{Arg, Data, Gpu};

/// See [`super::super::attention`]; nothing if the head's numbers do not fit one block's shared memory.
pub(in crate::prior::nn) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f64,
    causal: bool,
) -> Result<Option<Tensor>> {
    let (_, n, width) = q.dims3()?;
    let layer = Attention {
        n,
        m: k.dim(1)?,
        heads,
        depth: width / heads,
        scale: scale as f32,
        causal: i32::from(causal),
    };
    let Device::Cuda(device) = q.device() else { return Ok(None) };
    let stream = device.cuda_stream();
    let most = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    let most = stream.context().attribute(most).map_err(Error::wrap)?;
    // Beyond this size one product after the other through memory is faster than one multiprocessor a head.
    if layer.backward_bytes() > most as usize || n * layer.m > 128 * 128 {
        return Ok(None);
    }
    apply(layer, &[q, k, v]).map(Some)
}

struct Attention {
    n: usize,
    m: usize,
    heads: usize,
    depth: usize,
    scale: f32,
    causal: i32,
}

impl Attention {
    fn forward_bytes(&self) -> usize {
        4 * ((self.n + 2 * self.m) * (self.depth + 1) + self.n * (self.m + 1))
    }

    fn backward_bytes(&self) -> usize {
        4 * ((2 * self.n + 2 * self.m) * (self.depth + 1) + self.n * (self.m + 1) + self.n)
    }

    fn config(&self, batch: usize, bytes: usize) -> LaunchConfig {
        LaunchConfig {
            grid_dim: ((batch * self.heads) as u32, 1, 1),
            block_dim: (256, 1, 1),
            shared_mem_bytes: bytes as u32,
        }
    }

    fn sizes(&self) -> [i32; 4] {
        [self.n as i32, self.m as i32, self.heads as i32, self.depth as i32]
    }
}

impl GpuLayer for Attention {
    const NAME: &'static str = "attention";

    fn forward(&self, gpu: Gpu<'_>, args: &[Arg<'_>]) -> Result<(Data, Vec<usize>)> {
        let [q, k, v] = args else { bail!("attention: three arguments") };
        let mut o = gpu.empty(q.len())?;
        let ([n, m, heads, depth], bytes) = (self.sizes(), self.forward_bytes());
        launch!(
            gpu,
            "attention",
            self.config(q.dims[0], bytes),
            [&q.data, &k.data, &v.data, &mut o, &n, &m, &heads, &depth, &self.scale, &self.causal]
        );
        Ok((o, q.dims.to_vec()))
    }

    fn backward(
        &self,
        gpu: Gpu<'_>,
        args: &[Arg<'_>],
        out: &Arg<'_>,
        grad: &Arg<'_>,
        _: &[bool],
    ) -> Result<Vec<Option<Data>>> {
        let [q, k, v] = args else { bail!("attention: three arguments") };
        let (mut gq, mut gk, mut gv) = (gpu.empty(q.len())?, gpu.empty(k.len())?, gpu.empty(v.len())?);
        let ([n, m, heads, depth], bytes) = (self.sizes(), self.backward_bytes());
        launch!(
            gpu,
            "attention_slope",
            self.config(q.dims[0], bytes),
            [
                &q.data,
                &k.data,
                &v.data,
                &out.data,
                &grad.data,
                &mut gq,
                &mut gk,
                &mut gv,
                &n,
                &m,
                &heads,
                &depth,
                &self.scale,
                &self.causal
            ]
        );
        Ok(vec![Some(gq), Some(gk), Some(gv)])
    }
}
