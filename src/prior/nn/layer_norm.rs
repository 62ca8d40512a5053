//! Layer normalisation of the last dimension.

use candle_core::{D, Result, Tensor, bail};
use rayon::prelude::*;

use super::real::Real;
use super::simd::multiversion;
use super::tape::{self, Arg, Layer};

/// `(x - mean) / sqrt(var + eps) * w + b` over the last dimension of `x` `[..., C]` with `w`, `b` `[C]`
/// (Ba et al. 2016).
///
/// # Errors
/// When shapes, dtypes or devices do not fit together.
pub fn layer_norm(x: &Tensor, w: &Tensor, b: &Tensor, eps: f64) -> Result<Tensor> {
    let c = x.dim(D::Minus1)?;
    if w.dims() != [c] || b.dims() != [c] {
        bail!("layer_norm: weights {:?}, bias {:?}, input {:?}", w.dims(), b.dims(), x.dims());
    }
    if x.elem_count() == 0 || !tape::on_cpu(&[x, w, b]) {
        return super::elsewhere::layer_norm(x, w, b, eps);
    }
    tape::apply(LayerNorm { eps }, &[x, w, b])
}

struct LayerNorm {
    eps: f64,
}

/// Rows of a task; weight gradients are summed per task, then over tasks in order.
const ROWS: usize = 64;

impl Layer for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let [x, w, b] = args else { bail!("layer_norm: three arguments") };
        let c = w.data.len();
        let eps = T::from_f64(self.eps);
        let mut y = vec![T::ZERO; x.data.len()];
        y.par_chunks_mut(ROWS * c).zip(x.data.par_chunks(ROWS * c)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                normalise(x, (w.data, b.data), eps, y);
            }
        });
        Ok((y, x.dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        _: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let (x, w) = (&args[0], &args[1]);
        let c = w.data.len();
        let eps = T::from_f64(self.eps);
        let mut gx = vec![T::ZERO; x.data.len()];
        let partials: Vec<Vec<T>> = gx
            .par_chunks_mut(ROWS * c)
            .zip(x.data.par_chunks(ROWS * c).zip(grad.par_chunks(ROWS * c)))
            .map(|(gx, (x, g))| {
                let mut sums = vec![T::ZERO; 2 * c];
                let (gw, gb) = sums.split_at_mut(c);
                for ((gx, x), g) in gx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(g.chunks_exact(c)) {
                    row_gradient((x, g), w.data, eps, gx, gw, gb);
                }
                sums
            })
            .collect();
        let mut totals = vec![T::ZERO; 2 * c];
        for partial in &partials {
            totals.iter_mut().zip(partial).for_each(|(t, &p)| *t += p);
        }
        let gb = totals.split_off(c);
        Ok(vec![Some(gx), Some(totals), Some(gb)])
    }
}

/// Interleaved running sums, as in [`super::reduce`].
const LANES: usize = 32;

/// Sum of `f(i)` for i in 0..n in interleaved order.
#[inline(always)]
fn lanes<T: Real>(n: usize, f: impl Fn(usize) -> T) -> T {
    let mut acc = [T::ZERO; LANES];
    let whole = n / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (i, a) in acc.iter_mut().enumerate() {
            *a += f(start + i);
        }
    }
    for i in whole..n {
        acc[i - whole] += f(i);
    }
    let mut total = T::ZERO;
    for a in acc {
        total += a;
    }
    total
}

/// Mean and 1 / standard deviation of a row.
#[inline(always)]
fn moments<T: Real>(x: &[T], eps: T) -> (T, T) {
    let n = T::from_f64(x.len() as f64);
    let mean = lanes(x.len(), |i| x[i]) / n;
    let var = lanes(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / n;
    (mean, T::ONE / (var + eps).sqrt())
}

multiversion! {
    fn normalise<T: Real>(x: &[T], weights: (&[T], &[T]), eps: T, y: &mut [T]) {
        let (mean, rstd) = moments(x, eps);
        for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weights.0).zip(weights.1) {
            *y = (x - mean) * rstd * w + b;
        }
    }
}

multiversion! {
    /// Gradients of one row; those of the weights are added to `gw` and `gb`.
    fn row_gradient<T: Real>(xg: (&[T], &[T]), w: &[T], eps: T, gx: &mut [T], gw: &mut [T], gb: &mut [T]) {
        let (x, g) = xg;
        let n = x.len();
        let (g, w) = (&g[..n], &w[..n]);
        let (mean, rstd) = moments(x, eps);
        let plain = lanes(n, |i| g[i] * w[i]) / T::from_f64(n as f64);
        let scaled = lanes(n, |i| g[i] * w[i] * ((x[i] - mean) * rstd)) / T::from_f64(n as f64);
        let (gx, gw, gb) = (&mut gx[..n], &mut gw[..n], &mut gb[..n]);
        for i in 0..n {
            let normal = (x[i] - mean) * rstd;
            gx[i] = rstd * (g[i] * w[i] - plain - normal * scaled);
            gw[i] += g[i] * normal;
            gb[i] += g[i];
        }
    }
}
