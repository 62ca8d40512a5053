//! The same layers as plain candle operations, for devices and dtypes without kernels here.
//!
//! Only operations whose backward is right are used: no fused softmax, layer norm or nearest upsampling
//! (in candle 0.11 the first two cut the graph silently, the last overwrites gradients).

use candle_core::{D, Result, Tensor};

use super::conv::Padding;

/// See [`super::conv2d`].
pub(crate) fn conv2d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: usize,
    padding: Padding,
) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let (before, after) = padding.sides();
    let k = w.dim(2)?;
    let out = |n: usize| (n + before + after - k) / stride + 1;
    // candle takes the input gradient's size of a strided convolution from the height alone, so the
    // input is made square first.
    let side = height.max(width);
    let rest = |n: usize| if stride > 1 { side - n } else { 0 };
    let extra = after - before;
    let x = x.pad_with_zeros(2, 0, rest(height) + extra)?.pad_with_zeros(3, 0, rest(width) + extra)?;
    let y = x.conv2d(w, before, stride, 1, 1)?;
    let y = y.narrow(2, 0, out(height))?.narrow(3, 0, out(width))?;
    match b {
        Some(b) => y.broadcast_add(&b.reshape((1, b.dim(0)?, 1, 1))?),
        None => Ok(y),
    }
}

/// See [`super::linear`].
pub(crate) fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let y = x.broadcast_matmul(&w.t()?)?;
    match b {
        Some(b) => y.broadcast_add(b),
        None => Ok(y),
    }
}

/// See [`super::group_norm`].
pub(crate) fn group_norm(
    x: &Tensor,
    w: &Tensor,
    b: &Tensor,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    let mut per_channel = vec![1; x.rank()];
    per_channel[1] = x.dim(1)?;
    let t = standardize(&x.reshape((x.dim(0)?, groups, ()))?, eps)?.reshape(x.dims())?;
    let t = t.broadcast_mul(&w.reshape(per_channel.as_slice())?)?;
    let t = t.broadcast_add(&b.reshape(per_channel.as_slice())?)?;
    if silu { t.silu() } else { Ok(t) }
}

/// See [`super::layer_norm`].
pub(crate) fn layer_norm(x: &Tensor, w: &Tensor, b: &Tensor, eps: f64) -> Result<Tensor> {
    standardize(x, eps)?.broadcast_mul(w)?.broadcast_add(b)
}

/// Zero mean and unit variance over the last dimension.
fn standardize(x: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(variance + eps)?.sqrt()?)
}

/// See [`super::quick_gelu`].
pub(crate) fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    x / ((x * -1.702)?.exp()? + 1.0)?
}

/// See [`super::add_per_channel`].
pub(crate) fn add_per_channel(x: &Tensor, t: &Tensor) -> Result<Tensor> {
    let mut dims = t.dims().to_vec();
    dims.resize(x.rank(), 1);
    x.broadcast_add(&t.reshape(dims)?)
}

/// See [`super::upsample_nearest2x`].
pub(crate) fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let x = x.reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, 2, w, 2))?;
    x.reshape((b, c, 2 * h, 2 * w))
}

/// See [`super::attention`].
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f64,
    causal: bool,
) -> Result<Tensor> {
    let ((b, n, c), m) = (q.dims3()?, k.dim(1)?);
    let split =
        |t: &Tensor, length: usize| t.reshape((b, length, heads, c / heads))?.transpose(1, 2)?.contiguous();
    let scores = (split(q, n)?.matmul(&split(k, m)?.t()?)? * scale)?;
    let scores = if causal {
        let hidden = |i: usize, j: usize| if j > i { -1e4f32 } else { 0.0 };
        let mask: Vec<f32> = (0..n).flat_map(|i| (0..m).map(move |j| hidden(i, j))).collect();
        scores.broadcast_add(&Tensor::from_vec(mask, (n, m), q.device())?.to_dtype(q.dtype())?)?
    } else {
        scores
    };
    let e = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let p = e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?;
    p.matmul(&split(v, m)?)?.transpose(1, 2)?.contiguous()?.reshape((b, n, c))
}
