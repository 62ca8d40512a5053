//! Affine map of the last dimension: products by cuBLAS, the bias by kernels.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::{Gpu, device_of, sums, tape};

/// See [`super::super::linear`].
pub(in crate::prior::nn) fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let (co, ci) = w.dims2()?;
    let mut dims = x.dims().to_vec();
    let rows: usize = dims.iter().rev().skip(1).product();
    if let Some(last) = dims.last_mut() {
        *last = co;
    }
    let x = x.contiguous()?.reshape((rows, ci))?;
    let y = match b {
        Some(b) => x.apply_op3(&w.contiguous()?, b, Affine)?,
        None => x.matmul(&w.t()?)?,
    };
    y.reshape(dims)
}

/// `x w^T + b` for `x` [rows, Ci], `w` [Co, Ci] and `b` [Co].
struct Affine;

impl CustomOp3 for Affine {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("linear: a GPU's layer on the CPU")
    }
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        w: &CudaStorage,
        w_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (rows, ci) = x_layout.shape().dims2()?;
        let (co, _) = w_layout.shape().dims2()?;
        let mut y = x.matmul(w, (1, rows, co, ci), x_layout, &w_layout.transpose(0, 1)?)?;
        let gpu = Gpu(device_of(x));
        sums::add_bias(gpu, y.as_cuda_slice_mut::<f32>()?, &tape::arg(b, b_layout)?, 1)?;
        Ok((y, Shape::from((rows, co))))
    }
    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad, detached) = (grad.contiguous()?, x.detach());
        let gx = x.track_op().then(|| grad.matmul(&w.detach())).transpose()?;
        let gw = w.track_op().then(|| grad.t()?.matmul(&detached)).transpose()?;
        let gb = b.track_op().then(|| grad.apply_op1_no_bwd(&ColumnSums)).transpose()?;
        Ok((gx, gw, gb))
    }
}

struct ColumnSums;

impl CustomOp1 for ColumnSums {
    fn name(&self) -> &'static str {
        "column_sums"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("column_sums: a GPU's layer on the CPU")
    }
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let gpu = Gpu(device_of(x));
        let x = tape::arg(x, layout)?;
        let (rows, columns) = (x.dims[0], x.dims[1]);
        let out = sums::column_sums(gpu, &x, rows, columns)?;
        Ok((CudaStorage::wrap_cuda_slice(out, gpu.0.clone()), Shape::from(columns)))
    }
}
