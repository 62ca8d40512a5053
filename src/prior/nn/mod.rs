//! Differentiable layers as compositions of plain candle operations.
#![allow(missing_docs)]
use candle_core::{D, Result, Tensor};
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    Same(usize),
    BottomRight,
}
pub fn conv2d(x: &Tensor, w: &Tensor, b: Option<&Tensor>, stride: usize, p: Padding) -> Result<Tensor> {
    let y = match p {
        Padding::Same(n) => x.conv2d(w, n, stride, 1, 1)?,
        Padding::BottomRight => {
            x.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?.conv2d(w, 0, stride, 1, 1)?
        }
    };
    match b {
        Some(b) => y.broadcast_add(&b.reshape((1, (), 1, 1))?),
        None => Ok(y),
    }
}
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let y = x.broadcast_matmul(&w.t()?)?;
    match b {
        Some(b) => y.broadcast_add(b),
        None => Ok(y),
    }
}
pub fn group_norm(x: &Tensor, w: &Tensor, b: &Tensor, g: usize, eps: f64, s: bool) -> Result<Tensor> {
    let (bs, c, h, ww) = x.dims4()?;
    let t = x.reshape((bs, g, ()))?;
    let t = t.broadcast_sub(&t.mean_keepdim(D::Minus1)?)?;
    let v = t.sqr()?.mean_keepdim(D::Minus1)?;
    let t = t.broadcast_div(&(v + eps)?.sqrt()?)?.reshape((bs, c, h, ww))?;
    let t = t.broadcast_mul(&w.reshape((1, c, 1, 1))?)?.broadcast_add(&b.reshape((1, c, 1, 1))?)?;
    if s { silu(&t) } else { Ok(t) }
}
pub fn layer_norm(x: &Tensor, w: &Tensor, b: &Tensor, eps: f64) -> Result<Tensor> {
    let t = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let v = t.sqr()?.mean_keepdim(D::Minus1)?;
    t.broadcast_div(&(v + eps)?.sqrt()?)?.broadcast_mul(w)?.broadcast_add(b)
}
pub fn silu(x: &Tensor) -> Result<Tensor> {
    x.silu()
}
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    x.gelu_erf()
}
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    x * ((x * -1.702)?.exp()? + 1.0)?.recip()?
}
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let c = x.chunk(2, D::Minus1)?;
    &c[0] * c[1].gelu_erf()?
}
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, h: usize, scale: f64, causal: bool) -> Result<Tensor> {
    let (b, n, c) = q.dims3()?;
    let m = k.dim(1)?;
    let s = |t: &Tensor, n: usize| t.reshape((b, n, h, c / h))?.transpose(1, 2)?.contiguous();
    let mut a = (s(q, n)?.matmul(&s(k, m)?.transpose(2, 3)?)? * scale)?;
    if causal {
        let mask: Vec<f32> =
            (0..n).flat_map(|i| (0..m).map(move |j| if j > i { -1e9 } else { 0.0 })).collect();
        a = a.broadcast_add(&Tensor::from_vec(mask, (n, m), q.device())?)?;
    }
    let a = a.broadcast_sub(&a.max_keepdim(D::Minus1)?)?.exp()?;
    let a = a.broadcast_div(&a.sum_keepdim(D::Minus1)?)?;
    a.matmul(&s(v, m)?)?.transpose(1, 2)?.contiguous()?.reshape((b, n, c))
}
pub fn add_per_channel(x: &Tensor, t: &Tensor) -> Result<Tensor> {
    x.broadcast_add(&t.unsqueeze(2)?.unsqueeze(3)?)
}
pub fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    x.upsample_nearest2d(2 * h, 2 * w)
}
pub fn embedding(ids: &Tensor, t: &Tensor) -> Result<Tensor> {
    let (b, l) = ids.dims2()?;
    t.index_select(&ids.flatten_all()?, 0)?.reshape((b, l, ()))
}
