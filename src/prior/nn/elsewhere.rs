//! Where the layers go when the CPU's kernels do not take them: to the GPU's where there are some, else to
//! compositions of candle's operations.

use candle_core::{Result, Tensor};

use super::activation::{Curve, QUICK};
use super::conv::Padding;
#[cfg(feature = "cuda")]
use super::cuda;
use super::fallback;

/// See [`super::conv2d`].
pub(super) fn conv2d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: usize,
    padding: Padding,
) -> Result<Tensor> {
    #[cfg(feature = "cudnn")]
    if cuda::takes(&[&[x, w][..], b.as_slice()].concat()) {
        let (before, after) = padding.sides();
        let common = before.min(after);
        let x = super::device_conv::padded(x, before - common, after - common)?;
        return cuda::conv2d(&x, w, b, stride, common);
    }
    fallback::conv2d(x, w, b, stride, padding)
}

/// See [`super::linear`].
pub(super) fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::takes(&[&[x, w][..], b.as_slice()].concat()) {
        return cuda::linear(x, w, b);
    }
    fallback::linear(x, w, b)
}

/// See [`super::group_norm`].
pub(super) fn group_norm(
    x: &Tensor,
    w: &Tensor,
    b: &Tensor,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::takes(&[x, w, b]) {
        return cuda::group_norm(x, w, b, groups, eps, silu);
    }
    fallback::group_norm(x, w, b, groups, eps, silu)
}

/// See [`super::layer_norm`].
pub(super) fn layer_norm(x: &Tensor, w: &Tensor, b: &Tensor, eps: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::takes(&[x, w, b]) {
        return cuda::layer_norm(x, w, b, eps);
    }
    fallback::layer_norm(x, w, b, eps)
}

/// See [`super::silu`] and its like.
pub(super) fn pointwise(curve: Curve, x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::takes(&[x]) {
        return cuda::pointwise(curve, x);
    }
    match curve {
        Curve::Silu => fallback::sigmoid_gate(x, 1.0),
        Curve::Gelu => fallback::gelu(x),
        Curve::QuickGelu => fallback::sigmoid_gate(x, QUICK),
    }
}

/// See [`super::geglu`].
pub(super) fn geglu(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::takes(&[x]) {
        return cuda::geglu(x);
    }
    fallback::geglu(x)
}

/// See [`super::attention`].
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f64,
    causal: bool,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::takes(&[q, k, v])
        && let Some(y) = cuda::attention(q, k, v, heads, scale, causal)?
    {
        return Ok(y);
    }
    fallback::attention(q, k, v, heads, scale, causal)
}

/// See [`super::add_per_channel`].
pub(super) fn add_per_channel(x: &Tensor, t: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::takes(&[x, t]) {
        return cuda::add_per_channel(x, t);
    }
    let (b, c) = t.dims2()?;
    x.broadcast_add(&t.reshape((b, c, 1, 1))?)
}

/// See [`super::upsample_nearest2x`].
pub(super) fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::takes(&[x]) {
        return cuda::upsample_nearest2x(x);
    }
    let (b, c, h, w) = x.dims4()?;
    let x = x.reshape((b * c, h, 1, w, 1))?.broadcast_as((b * c, h, 2, w, 2))?;
    x.reshape((b, c, 2 * h, 2 * w))
}

/// Rows `ids` [n] of `table`.
pub(super) fn embedding(ids: &Tensor, table: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::takes(&[table]) {
        return cuda::embedding(ids, table);
    }
    table.index_select(ids, 0)
}

/// `x` [B, R, C] with its last two dimensions exchanged, contiguous.
pub(super) fn turned(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::takes(&[x]) {
        return cuda::turned(x);
    }
    x.transpose(1, 2)?.contiguous()
}
