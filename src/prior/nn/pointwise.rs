//! Activations, and the two element-wise layers that candle differentiates slowly.

use candle_core::{D, Result, Tensor, bail};
use rayon::prelude::*;

use super::fallback;
use super::real::Real;
use super::simd::multiversion;
use super::tape::{Arg, Layer, apply, on_cpu};

/// x·σ(x).
///
/// # Errors
/// None on the CPU.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    if on_cpu(&[x]) { apply(Unary(Activation::Silu), &[x]) } else { x.silu() }
}

/// x·Φ(x), with the exact normal distribution function (not the tanh approximation).
///
/// # Errors
/// None on the CPU.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if on_cpu(&[x]) { apply(Unary(Activation::Gelu), &[x]) } else { x.gelu_erf() }
}

/// x·σ(1.702 x), the approximation that OpenAI's CLIP was trained with.
///
/// # Errors
/// None on the CPU.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    if on_cpu(&[x]) { apply(Unary(Activation::QuickGelu), &[x]) } else { fallback::quick_gelu(x) }
}

/// `[…, 2C]` to `[…, C]`: the first half times GELU of the second (Shazeer 2020, diffusers' order).
///
/// # Errors
/// If the last dimension is odd.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let last = x.dims().last().copied().unwrap_or(0);
    if last == 0 || !last.is_multiple_of(2) {
        bail!("geglu: the last dimension of {:?} must be even", x.dims());
    }
    if on_cpu(&[x]) {
        return apply(Geglu, &[x]);
    }
    let halves = x.chunk(2, D::Minus1)?;
    &halves[0] * halves[1].gelu_erf()?
}

/// `x` `[B, C, …]` plus `t` `[B, C]` at every pixel.
///
/// # Errors
/// If shapes do not fit.
pub fn add_per_channel(x: &Tensor, t: &Tensor) -> Result<Tensor> {
    if x.rank() < 2 || t.dims() != &x.dims()[..2] {
        bail!("add_per_channel: {:?} and {:?}", x.dims(), t.dims());
    }
    if on_cpu(&[x, t]) { apply(AddPerChannel, &[x, t]) } else { fallback::add_per_channel(x, t) }
}

/// Every pixel of `[B, C, H, W]` twice each way: `[B, C, 2H, 2W]`.
///
/// # Errors
/// If `x` is not of rank 4.
pub fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    x.dims4()?;
    if on_cpu(&[x]) { apply(Upsample, &[x]) } else { fallback::upsample_nearest2x(x) }
}

#[derive(Clone, Copy)]
enum Activation {
    Silu,
    Gelu,
    QuickGelu,
}

struct Unary(Activation);
struct Geglu;
struct AddPerChannel;
struct Upsample;

/// Elements a task.
const CHUNK: usize = 8192;

multiversion! {
    fn swish<T: Real>(x: &[T], beta: T, y: &mut [T]) -> () {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x / (T::ONE + (T::ZERO - beta * x).exp());
        }
    }
}

multiversion! {
    fn swish_gradient<T: Real>(x: &[T], g: &[T], beta: T, out: &mut [T]) -> () {
        for ((o, &x), &g) in out.iter_mut().zip(x).zip(g) {
            let s = T::ONE / (T::ONE + (T::ZERO - beta * x).exp());
            *o = g * s * (T::ONE + beta * x * (T::ONE - s));
        }
    }
}

multiversion! {
    fn gelu_forward<T: Real>(x: &[T], y: &mut [T]) -> () {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * x.normal().0;
        }
    }
}

multiversion! {
    fn gelu_gradient<T: Real>(x: &[T], g: &[T], out: &mut [T]) -> () {
        for ((o, &x), &g) in out.iter_mut().zip(x).zip(g) {
            let (phi, density) = x.normal();
            *o = g * (phi + x * density);
        }
    }
}

multiversion! {
    fn geglu_row<T: Real>(a: &[T], b: &[T], y: &mut [T]) -> () {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y = a * b * b.normal().0;
        }
    }
}

multiversion! {
    fn geglu_row_gradient<T: Real>(a: &[T], b: &[T], g: &[T], ga: &mut [T], gb: &mut [T]) -> () {
        for ((((ga, gb), &a), &b), &g) in ga.iter_mut().zip(gb).zip(a).zip(b).zip(g) {
            let (phi, density) = b.normal();
            *ga = g * b * phi;
            *gb = g * a * (phi + b * density);
        }
    }
}

impl Layer for Unary {
    const NAME: &'static str = "activation";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let x = &args[0];
        let mut out = vec![T::ZERO; x.data.len()];
        out.par_chunks_mut(CHUNK).zip(x.data.par_chunks(CHUNK)).for_each(|(y, x)| match self.0 {
            Activation::Silu => swish(x, T::ONE, y),
            Activation::QuickGelu => swish(x, T::from_f64(1.702), y),
            Activation::Gelu => gelu_forward(x, y),
        });
        Ok((out, x.dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        _: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let mut out = vec![T::ZERO; grad.len()];
        let inputs = args[0].data.par_chunks(CHUNK).zip(grad.par_chunks(CHUNK));
        out.par_chunks_mut(CHUNK).zip(inputs).for_each(|(o, (x, g))| match self.0 {
            Activation::Silu => swish_gradient(x, g, T::ONE, o),
            Activation::QuickGelu => swish_gradient(x, g, T::from_f64(1.702), o),
            Activation::Gelu => gelu_gradient(x, g, o),
        });
        Ok(vec![Some(out)])
    }
}

impl Layer for Geglu {
    const NAME: &'static str = "geglu";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let x = &args[0];
        let mut dims = x.dims.to_vec();
        let c = dims[dims.len() - 1] / 2;
        let rank = dims.len();
        dims[rank - 1] = c;
        let mut out = vec![T::ZERO; x.data.len() / 2];
        out.par_chunks_mut(c).zip(x.data.par_chunks(2 * c)).for_each(|(y, x)| geglu_row(&x[..c], &x[c..], y));
        Ok((out, dims))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        _: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let x = &args[0];
        let c = x.dims[x.dims.len() - 1] / 2;
        let mut out = vec![T::ZERO; x.data.len()];
        out.par_chunks_mut(2 * c).zip(x.data.par_chunks(2 * c).zip(grad.par_chunks(c))).for_each(
            |(o, (x, g))| {
                let (ga, gb) = o.split_at_mut(c);
                geglu_row_gradient(&x[..c], &x[c..], g, ga, gb);
            },
        );
        Ok(vec![Some(out)])
    }
}

impl Layer for AddPerChannel {
    const NAME: &'static str = "add_per_channel";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let [x, t] = [&args[0], &args[1]];
        let n = x.data.len() / t.data.len().max(1);
        let mut out = x.data.to_vec();
        out.par_chunks_mut(n).zip(t.data).for_each(|(y, &t)| y.iter_mut().for_each(|y| *y += t));
        Ok((out, x.dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        needs: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let n = grad.len() / args[1].data.len().max(1);
        let gt = needs[1].then(|| grad.par_chunks(n).map(super::reduce::sum).collect());
        Ok(vec![needs[0].then(|| grad.to_vec()), gt])
    }
}

impl Layer for Upsample {
    const NAME: &'static str = "upsample_nearest2x";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let x = &args[0];
        let (h, w) = (x.dims[2], x.dims[3]);
        let mut out = vec![T::ZERO; 4 * x.data.len()];
        out.par_chunks_mut(4 * h * w).zip(x.data.par_chunks(h * w)).for_each(|(y, x)| {
            for (y, x) in y.chunks_mut(4 * w).zip(x.chunks(w)) {
                let (top, bottom) = y.split_at_mut(2 * w);
                for (pair, &v) in top.chunks_mut(2).zip(x) {
                    pair.fill(v);
                }
                bottom.copy_from_slice(top);
            }
        });
        Ok((out, vec![x.dims[0], x.dims[1], 2 * h, 2 * w]))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        _: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let (h, w) = (args[0].dims[2], args[0].dims[3]);
        let mut out = vec![T::ZERO; args[0].data.len()];
        out.par_chunks_mut(h * w).zip(grad.par_chunks(4 * h * w)).for_each(|(o, g)| {
            for (o, g) in o.chunks_mut(w).zip(g.chunks(4 * w)) {
                let (top, bottom) = g.split_at(2 * w);
                for (i, o) in o.iter_mut().enumerate() {
                    *o = top[2 * i] + top[2 * i + 1] + (bottom[2 * i] + bottom[2 * i + 1]);
                }
            }
        });
        Ok(vec![Some(out)])
    }
}
