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
    let y = super::device_conv::conv2d(x, w, stride, padding.sides())?;
    match b {
        Some(b) => y.broadcast_add(&b.reshape((1, b.dim(0)?, 1, 1))?),
        None => Ok(y),
    }
}

/// See [`super::linear`].
pub(crate) fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let (co, ci) = w.dims2()?;
    let mut dims = x.dims().to_vec();
    let rows: usize = dims.iter().rev().skip(1).product();
    if let Some(last) = dims.last_mut() {
        *last = co;
    }
    let y = x.reshape((rows, ci))?.matmul(&w.t()?)?;
    let y = match b {
        Some(b) => y.broadcast_add(b)?,
        None => y,
    };
    y.reshape(dims)
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
    let (batch, channels) = (x.dim(0)?, x.dim(1)?);
    let y = normalise(&x.reshape((batch, groups, ()))?, eps)?.reshape(x.dims())?;
    let per_channel = |t: &Tensor| {
        let mut dims = vec![1; x.rank()];
        dims[1] = channels;
        t.reshape(dims)
    };
    let y = y.broadcast_mul(&per_channel(w)?)?.broadcast_add(&per_channel(b)?)?;
    if silu { sigmoid_gate(&y, 1.0) } else { Ok(y) }
}

/// See [`super::layer_norm`].
pub(crate) fn layer_norm(x: &Tensor, w: &Tensor, b: &Tensor, eps: f64) -> Result<Tensor> {
    normalise(x, eps)?.broadcast_mul(w)?.broadcast_add(b)
}

/// Mean 0 and variance 1 over the last dimension.
fn normalise(x: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let var = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(var + eps)?.sqrt()?)
}

/// `x sigmoid(k x)`.
pub(crate) fn sigmoid_gate(x: &Tensor, k: f64) -> Result<Tensor> {
    x / ((x * -k)?.exp()? + 1.0)?
}

/// See [`super::gelu`]. candle's own erf form has a slope with a constant rounded to six digits.
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    let phi = (((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?;
    x * phi
}

/// See [`super::geglu`].
pub(crate) fn geglu(x: &Tensor) -> Result<Tensor> {
    let c = x.dim(D::Minus1)? / 2;
    x.narrow(D::Minus1, 0, c)? * gelu(&x.narrow(D::Minus1, c, c)?)?
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
    let (batch, n, width) = q.dims3()?;
    let m = k.dim(1)?;
    let split = |t: &Tensor, rows: usize| {
        t.reshape((batch, rows, heads, width / heads))?.transpose(1, 2)?.contiguous()
    };
    let (q, k, v) = (split(q, n)?, split(k, m)?, split(v, m)?);
    let mut scores = (q.matmul(&k.t()?)? * scale)?;
    if causal {
        let hidden = |i: usize| if i % m > i / m { -1e4f32 } else { 0.0 };
        let mask: Vec<f32> = (0..n * m).map(hidden).collect();
        let mask = Tensor::from_vec(mask, (n, m), q.device())?.to_dtype(q.dtype())?;
        scores = scores.broadcast_add(&mask)?;
    }
    // The shift by the maximum cancels, so no gradient needs to pass through it.
    let p = scores.broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?.exp()?;
    let p = p.broadcast_div(&p.sum_keepdim(D::Minus1)?)?;
    p.matmul(&v)?.transpose(1, 2)?.reshape((batch, n, width))
}
