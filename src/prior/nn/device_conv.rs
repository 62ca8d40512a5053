//! Convolution on devices without kernels here: the forward is the device's own, the backward stands here.
//!
//! candle takes the gradient with respect to the input by a transposed convolution, which on a GPU is one
//! plain loop a pixel, and cuDNN is not asked. Here it is a forward convolution again, with the filters
//! turned about, so that cuDNN (or a matrix product) does it; the gradient with respect to the filters is
//! one matrix product a tap. Frozen filters and constant inputs cost nothing.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp3, Layout, MetalStorage, Result, Shape, Tensor};

/// Correlation of `x` `[B, Ci, H, W]` with `w` `[Co, Ci, k, k]`, zeros around it as `sides` says.
pub(super) fn conv2d(x: &Tensor, w: &Tensor, stride: usize, sides: (usize, usize)) -> Result<Tensor> {
    let record = Record { stride, sides, needs: [x.track_op(), w.track_op()] };
    let y = forward(&x.detach(), &w.detach(), stride, sides)?;
    if record.needs == [false; 2] { Ok(y) } else { x.apply_op3(w, &y, record) }
}

/// The device's own convolution; `after` may differ from `before`.
fn forward(x: &Tensor, w: &Tensor, stride: usize, (before, after): (usize, usize)) -> Result<Tensor> {
    let common = before.min(after);
    let x = padded(x, before - common, after - common)?.contiguous()?;
    x.conv2d(&w.contiguous()?, common, stride, 1, 1)
}

/// Zeros before and after both axes of a picture.
pub(super) fn padded(x: &Tensor, before: usize, after: usize) -> Result<Tensor> {
    if before + after == 0 {
        return Ok(x.clone());
    }
    x.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)
}

/// Puts a result that was computed outside the tape on it, with the gradients of both its sources.
struct Record {
    stride: usize,
    sides: (usize, usize),
    needs: [bool; 2],
}

impl Record {
    /// `gx[p] = sum_t w[t] g[(p + before - t) / stride]`: a correlation of the spread gradient with the
    /// filters turned about and their channels exchanged.
    fn input_gradient(&self, x: &Tensor, w: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let (k, (before, after)) = (w.dim(2)?, self.sides);
        let turned = w.transpose(0, 1)?.contiguous()?.flip(&[2, 3])?;
        if self.stride == 1 && before == after && before < k {
            return grad.contiguous()?.conv2d(&turned, k - 1 - before, 1, 1, 1);
        }
        let spread = spread(grad, self.stride)?.contiguous()?;
        let full = spread.conv2d(&turned, k - 1, 1, 1, 1)?;
        // Rows at the end that no filter reached have no gradient.
        let cut = |t: &Tensor, axis: usize, size: usize| -> Result<Tensor> {
            let rest = (before + size).saturating_sub(t.dim(axis)?);
            t.pad_with_zeros(axis, 0, rest)?.narrow(axis, before, size)
        };
        cut(&cut(&full, 2, height)?, 3, width)
    }

    /// `gw[co, ci, t] = sum_b sum_p g[b, co, p] x[b, ci, stride p + t - before]`.
    fn filter_gradient(&self, x: &Tensor, w: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let (co, ci, k, _) = w.dims4()?;
        let (_, _, h, wide) = grad.dims4()?;
        // So wide that each tap's rows can be cut in whole strides.
        let x = padded(x, self.sides.0, self.sides.1 + self.stride - 1)?;
        let grad = grad.flatten_from(2)?.contiguous()?;
        let mut taps = Vec::with_capacity(k * k);
        for (i, j) in (0..k * k).map(|t| (t / k, t % k)) {
            let seen = every(&every(&x, 2, (i, h, self.stride))?, 3, (j, wide, self.stride))?;
            let seen = seen.contiguous()?.flatten_from(2)?;
            taps.push(grad.matmul(&seen.t()?)?.sum(0)?);
        }
        Tensor::stack(&taps, 2)?.reshape((co, ci, k, k))
    }
}

/// `count` elements of `axis` from `first` on, `stride` apart.
fn every(x: &Tensor, axis: usize, (first, count, stride): (usize, usize, usize)) -> Result<Tensor> {
    if stride == 1 {
        return x.narrow(axis, first, count);
    }
    let mut dims = x.dims().to_vec();
    dims[axis] = count;
    dims.insert(axis + 1, stride);
    x.narrow(axis, first, count * stride)?.reshape(dims)?.narrow(axis + 1, 0, 1)?.squeeze(axis + 1)
}

/// `stride − 1` zeros between neighbours.
fn spread(x: &Tensor, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let along = |x: &Tensor, axis: usize| -> Result<Tensor> {
        let mut dims = x.dims().to_vec();
        dims[axis] *= stride;
        let wide = x.unsqueeze(axis + 1)?.pad_with_zeros(axis + 1, 0, stride - 1)?.reshape(dims)?;
        wide.narrow(axis, 0, wide.dim(axis)? - (stride - 1))
    };
    along(&along(x, 2)?, 3)
}

impl CustomOp3 for Record {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        y: &CpuStorage,
        layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((y.try_clone(layout)?, layout.shape().clone()))
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        y: &CudaStorage,
        layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Ok((y.try_clone(layout)?, layout.shape().clone()))
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
        y: &MetalStorage,
        layout: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        Ok((y.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x, w) = (x.detach(), w.detach());
        let [input, filters] = self.needs;
        let gx = input.then(|| self.input_gradient(&x, &w, grad)).transpose()?;
        let gw = filters.then(|| self.filter_gradient(&x, &w, grad)).transpose()?;
        Ok((gx, gw, None))
    }
}
