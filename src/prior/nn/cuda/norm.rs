//! Group and layer normalisation.

use std::sync::OnceLock;

use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{Error, Result, Tensor, bail};

use super::tape::{GpuLayer, apply};
use super::{Arg, Data, Gpu, blocks, sums, warps};

/// See [`super::super::group_norm`].
pub(in crate::prior::nn) fn group_norm(
    x: &Tensor,
    w: &Tensor,
    b: &Tensor,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    apply(GroupNorm { groups, eps: eps as f32, silu: silu.into(), moments: OnceLock::new() }, &[x, w, b])
}

/// See [`super::super::layer_norm`].
pub(in crate::prior::nn) fn layer_norm(x: &Tensor, w: &Tensor, b: &Tensor, eps: f64) -> Result<Tensor> {
    apply(LayerNorm { eps: eps as f32, moments: OnceLock::new() }, &[x, w, b])
}

struct GroupNorm {
    groups: usize,
    eps: f32,
    silu: i32,
    /// (mean, 1 / standard deviation) of each group of each image.
    moments: OnceLock<Data>,
}

impl GroupNorm {
    /// Groups of all images, the elements of one, and the kernels' channels, groups and pixels.
    fn sizes(&self, x: &Arg<'_>) -> (usize, usize, [i32; 3]) {
        let (count, channels) = (x.dims[0] * self.groups, x.dims[1]);
        let pixels = x.len() / (x.dims[0] * channels);
        (count, x.len() / count, [channels as i32, self.groups as i32, pixels as i32])
    }
}

impl GpuLayer for GroupNorm {
    const NAME: &'static str = "group_norm";

    fn forward(&self, gpu: Gpu<'_>, args: &[Arg<'_>]) -> Result<(Data, Vec<usize>)> {
        let [x, w, b] = args else { bail!("group_norm: three arguments") };
        let (count, size, [channels, groups, pixels]) = self.sizes(x);
        let (mut y, mut moments) = (gpu.empty(x.len())?, gpu.empty(2 * count)?);
        let kernel = gpu.kernel("group_norm")?;
        let mut launch = kernel.builder();
        launch.arg(&x.data).arg(&w.data).arg(&b.data).arg(&mut y).arg(&mut moments);
        launch.arg(&channels).arg(&groups).arg(&pixels).arg(&self.eps).arg(&self.silu);
        // SAFETY: the kernel's arguments, and memory of the sizes it is told.
        unsafe { launch.launch(blocks(count, size)) }.map_err(Error::wrap)?;
        let _ = self.moments.set(moments);
        Ok((y, x.dims.to_vec()))
    }

    fn backward(
        &self,
        gpu: Gpu<'_>,
        args: &[Arg<'_>],
        _: &Arg<'_>,
        grad: &Arg<'_>,
        needs: &[bool],
    ) -> Result<Vec<Option<Data>>> {
        let ([x, w, b], Some(moments)) = (args, self.moments.get()) else { bail!("group_norm: no forward") };
        let (count, size, [channels, groups, pixels]) = self.sizes(x);
        let (batch, width) = (x.dims[0], x.dims[1]);
        let (mut gx, mut partial) = (gpu.empty(x.len())?, gpu.empty(batch * 2 * width)?);
        let kernel = gpu.kernel("group_norm_slope")?;
        let mut launch = kernel.builder();
        launch.arg(&x.data).arg(&w.data).arg(&b.data).arg(moments).arg(&grad.data);
        launch.arg(&mut gx).arg(&mut partial);
        launch.arg(&channels).arg(&groups).arg(&pixels).arg(&self.silu);
        // SAFETY: as above.
        unsafe { launch.launch(blocks(count, size)) }.map_err(Error::wrap)?;
        let [gw, gb] = weight_gradients(gpu, needs, &partial, batch, width)?;
        Ok(vec![Some(gx), gw, gb])
    }
}

/// The gradients of weights and bias from partial sums [rows, 2 width] of both.
fn weight_gradients(
    gpu: Gpu<'_>,
    needs: &[bool],
    partial: &Data,
    rows: usize,
    width: usize,
) -> Result<[Option<Data>; 2]> {
    if !needs[1] && !needs[2] {
        return Ok([None, None]);
    }
    let all = Arg { data: partial.slice(..), dims: &[rows, 2 * width] };
    let both = sums::column_sums(gpu, &all, rows, 2 * width)?;
    let part = |first: usize| -> Result<Data> {
        let mut one = gpu.empty(width)?;
        gpu.0.memcpy_dtod(&both.slice(first..first + width), &mut one)?;
        Ok(one)
    };
    Ok([Some(part(0)?), Some(part(width)?)])
}

struct LayerNorm {
    eps: f32,
    /// (mean, 1 / standard deviation) of each row.
    moments: OnceLock<Data>,
}

impl GpuLayer for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn forward(&self, gpu: Gpu<'_>, args: &[Arg<'_>]) -> Result<(Data, Vec<usize>)> {
        let [x, w, b] = args else { bail!("layer_norm: three arguments") };
        let rows = x.len() / w.len();
        let (mut y, mut moments) = (gpu.empty(x.len())?, gpu.empty(2 * rows)?);
        let (n, width) = (rows as i32, w.len() as i32);
        let kernel = gpu.kernel("layer_norm")?;
        let mut launch = kernel.builder();
        launch.arg(&x.data).arg(&w.data).arg(&b.data).arg(&mut y).arg(&mut moments);
        launch.arg(&n).arg(&width).arg(&self.eps);
        // SAFETY: the kernel's arguments, and memory of the sizes it is told.
        unsafe { launch.launch(warps(rows)) }.map_err(Error::wrap)?;
        let _ = self.moments.set(moments);
        Ok((y, x.dims.to_vec()))
    }

    fn backward(
        &self,
        gpu: Gpu<'_>,
        args: &[Arg<'_>],
        _: &Arg<'_>,
        grad: &Arg<'_>,
        needs: &[bool],
    ) -> Result<Vec<Option<Data>>> {
        let ([x, w, _], Some(moments)) = (args, self.moments.get()) else { bail!("layer_norm: no forward") };
        let rows = x.len() / w.len();
        let (n, width) = (rows as i32, w.len() as i32);
        let mut gx = gpu.empty(x.len())?;
        let kernel = gpu.kernel("layer_norm_slope")?;
        let mut launch = kernel.builder();
        launch.arg(&x.data).arg(&w.data).arg(moments).arg(&grad.data).arg(&mut gx).arg(&n).arg(&width);
        // SAFETY: as above.
        unsafe { launch.launch(warps(rows)) }.map_err(Error::wrap)?;
        if !needs[1] && !needs[2] {
            return Ok(vec![Some(gx), None, None]);
        }
        let chunks = rows.div_ceil(sums::CHUNK);
        let mut partial = gpu.empty(chunks * 2 * w.len())?;
        let chunk = sums::CHUNK as i32;
        let kernel = gpu.kernel("layer_norm_weight_sums")?;
        let mut launch = kernel.builder();
        launch.arg(&x.data).arg(moments).arg(&grad.data).arg(&mut partial).arg(&n).arg(&width).arg(&chunk);
        // SAFETY: as above.
        unsafe { launch.launch(sums::grid(w.len(), chunks)) }.map_err(Error::wrap)?;
        let [gw, gb] = weight_gradients(gpu, needs, &partial, chunks, w.len())?;
        Ok(vec![Some(gx), gw, gb])
    }
}
