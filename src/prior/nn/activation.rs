//! Pointwise nonlinearities.

use candle_core::{D, Result, Tensor, bail};
use rayon::prelude::*;

use super::elsewhere;
use super::real::Real;
use super::simd::multiversion;
use super::tape::{self, Arg, Layer};

/// `x sigmoid(x)`, any shape.
///
/// # Errors
/// When the tensor is not of a float type.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    pointwise(Curve::Silu, x)
}

/// `x Phi(x)` with the normal distribution function (the erf form, not the tanh approximation).
///
/// # Errors
/// When the tensor is not of a float type.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    pointwise(Curve::Gelu, x)
}

/// `x sigmoid(1.702 x)`, the activation of CLIP's first text encoder.
///
/// # Errors
/// When the tensor is not of a float type.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    pointwise(Curve::QuickGelu, x)
}

/// `hidden gelu(gate)` for `x` [..., 2C] = [hidden, gate] (diffusers' order): [..., C].
///
/// # Errors
/// When the last dimension is odd.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    if x.dim(D::Minus1)? % 2 != 0 {
        bail!("geglu: the last dimension of {:?} is odd", x.dims());
    }
    if x.elem_count() == 0 || !tape::on_cpu(&[x]) {
        return elsewhere::geglu(x);
    }
    tape::apply(Geglu, &[x])
}

fn pointwise(curve: Curve, x: &Tensor) -> Result<Tensor> {
    if !tape::on_cpu(&[x]) {
        return elsewhere::pointwise(curve, x);
    }
    tape::apply(curve, &[x])
}

/// The slope of the sigmoid in [`quick_gelu`].
pub(super) const QUICK: f64 = 1.702;
/// Elements of a task.
const CHUNK: usize = 1 << 14;

/// The functions of [`pointwise`].
#[derive(Clone, Copy)]
pub(super) enum Curve {
    Silu,
    Gelu,
    QuickGelu,
}

impl Layer for Curve {
    const NAME: &'static str = "activation";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let x = &args[0];
        let mut y = vec![T::ZERO; x.data.len()];
        y.par_chunks_mut(CHUNK).zip(x.data.par_chunks(CHUNK)).for_each(|(y, x)| value(*self, x, y));
        Ok((y, x.dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        _: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let mut gx = vec![T::ZERO; grad.len()];
        gx.par_chunks_mut(CHUNK)
            .zip(args[0].data.par_chunks(CHUNK).zip(grad.par_chunks(CHUNK)))
            .for_each(|(gx, (x, g))| slope(*self, x, g, gx));
        Ok(vec![Some(gx)])
    }
}

/// `d/dx (x sigmoid(x)) = s (1 + x (1 - s))`.
#[inline(always)]
pub(crate) fn silu_slope<T: Real>(x: T) -> T {
    let s = T::ONE / (T::ONE + (T::ZERO - x).exp());
    s * (T::ONE + x * (T::ONE - s))
}

multiversion! {
    fn value<T: Real>(curve: Curve, x: &[T], y: &mut [T]) {
        match curve {
            Curve::Silu => {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = x / (T::ONE + (T::ZERO - x).exp());
                }
            }
            Curve::QuickGelu => {
                let k = T::from_f64(QUICK);
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = x / (T::ONE + (T::ZERO - k * x).exp());
                }
            }
            Curve::Gelu => {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = x * x.normal().0;
                }
            }
        }
    }
}

multiversion! {
    fn slope<T: Real>(curve: Curve, x: &[T], g: &[T], gx: &mut [T]) {
        match curve {
            Curve::Silu => {
                for ((d, &x), &g) in gx.iter_mut().zip(x).zip(g) {
                    *d = g * silu_slope(x);
                }
            }
            Curve::QuickGelu => {
                // k silu(k x) / k has the slope of silu at k x.
                let k = T::from_f64(QUICK);
                for ((d, &x), &g) in gx.iter_mut().zip(x).zip(g) {
                    *d = g * silu_slope(k * x);
                }
            }
            Curve::Gelu => {
                for ((d, &x), &g) in gx.iter_mut().zip(x).zip(g) {
                    let (phi, density) = x.normal();
                    *d = g * (phi + x * density);
                }
            }
        }
    }
}

struct Geglu;

impl Layer for Geglu {
    const NAME: &'static str = "geglu";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let x = &args[0];
        let mut dims = x.dims.to_vec();
        let c = dims.last().map_or(1, |n| n / 2);
        if let Some(last) = dims.last_mut() {
            *last = c;
        }
        let mut y = vec![T::ZERO; x.data.len() / 2];
        let rows = CHUNK.div_ceil(c);
        y.par_chunks_mut(rows * c).zip(x.data.par_chunks(rows * 2 * c)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(2 * c)) {
                gate(x, y);
            }
        });
        Ok((y, dims))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        _: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let x = &args[0];
        let c = x.dims.last().map_or(1, |n| n / 2);
        let mut gx = vec![T::ZERO; x.data.len()];
        let rows = CHUNK.div_ceil(c);
        gx.par_chunks_mut(rows * 2 * c)
            .zip(x.data.par_chunks(rows * 2 * c).zip(grad.par_chunks(rows * c)))
            .for_each(|(gx, (x, g))| {
                let rows = gx.chunks_exact_mut(2 * c).zip(x.chunks_exact(2 * c)).zip(g.chunks_exact(c));
                for ((gx, x), g) in rows {
                    gate_slope(x, g, gx);
                }
            });
        Ok(vec![Some(gx)])
    }
}

multiversion! {
    /// One row of [`geglu`].
    fn gate<T: Real>(x: &[T], y: &mut [T]) {
        let (hidden, gate) = x.split_at(y.len());
        for ((y, &h), &z) in y.iter_mut().zip(hidden).zip(gate) {
            *y = h * (z * z.normal().0);
        }
    }
}

multiversion! {
    fn gate_slope<T: Real>(x: &[T], g: &[T], gx: &mut [T]) {
        let (hidden, gate) = x.split_at(g.len());
        let (gh, gz) = gx.split_at_mut(g.len());
        for ((((gh, gz), &g), &h), &z) in gh.iter_mut().zip(gz).zip(g).zip(hidden).zip(gate) {
            let (phi, density) = z.normal();
            *gh = g * (z * phi);
            *gz = g * h * (phi + z * density);
        }
    }
}
