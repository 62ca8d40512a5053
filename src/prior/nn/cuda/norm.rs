//! Group and layer normalisation.

use std::sync::OnceLock;

use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{Result, Tensor, bail};

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
        launch!(
            gpu,
            "group_norm",
            blocks(count, size),
            [
                &x.data,
                &w.data,
                &b.data,
                &mut y,
                &mut moments,
                &channels,
                &groups,
                &pixels,
                &self.eps,
                &self.silu
            ]
        );
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
        launch!(
            gpu,
            "group_norm_slope",
            blocks(count, size),
            [
                &x.data,
                &w.data,
                &b.data,
                moments,
                &grad.data,
                &mut gx,
                &mut partial,
                &channels,
                &groups,
                &pixels,
                &self.silu
            ]
        );
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
        launch!(
            gpu,
            "layer_norm",
            warps(rows),
            [&x.data, &w.data, &b.data, &mut y, &mut moments, &n, &width, &self.eps]
        );
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
        launch!(
            gpu,
            "layer_norm_slope",
            warps(rows),
            [&x.data, &w.data, moments, &grad.data, &mut gx, &n, &width]
        );
        if !needs[1] && !needs[2] {
            return Ok(vec![Some(gx), None, None]);
        }
        let chunks = rows.div_ceil(sums::CHUNK);
        let mut partial = gpu.empty(chunks * 2 * w.len())?;
        let chunk = sums::CHUNK as i32;
        launch!(
            gpu,
            "layer_norm_weight_sums",
            sums::grid(w.len(), chunks),
            [&x.data, moments, &grad.data, &mut partial, &n, &width, &chunk]
        );
        let [gw, gb] = weight_gradients(gpu, needs, &partial, chunks, w.len())?;
        Ok(vec![Some(gx), gw, gb])
    }
}
