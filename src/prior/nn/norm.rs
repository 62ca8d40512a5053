//! Group and layer normalisation.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::fallback;
use super::real::Real;
use super::reduce::sum;
use super::simd::multiversion;
use super::tape::{Arg, Layer, apply, on_cpu};

/// y = (x − μ)/√(σ² + ε)·w + b with μ and σ² over each of `groups` groups of channels of
/// `x` `[B, C, …]`; followed by SiLU if `silu`. `w` and `b` are `[C]`.
///
/// # Errors
/// If shapes or dtypes do not fit.
pub fn group_norm(x: &Tensor, w: &Tensor, b: &Tensor, groups: usize, eps: f64, silu: bool) -> Result<Tensor> {
    let channels = if x.rank() > 1 { x.dim(1)? } else { 0 };
    if groups == 0
        || channels == 0
        || !channels.is_multiple_of(groups)
        || w.dims() != [channels]
        || b.dims() != [channels]
    {
        bail!(
            "group_norm: {:?} in {groups} groups with weight {:?}, bias {:?}",
            x.dims(),
            w.dims(),
            b.dims()
        );
    }
    if on_cpu(&[x, w, b]) {
        apply(GroupNorm { groups, eps, silu }, &[x, w, b])
    } else {
        fallback::group_norm(x, w, b, groups, eps, silu)
    }
}

/// y = (x − μ)/√(σ² + ε)·w + b with μ and σ² over the last dimension; `w` and `b` are of its size.
///
/// # Errors
/// If shapes or dtypes do not fit.
pub fn layer_norm(x: &Tensor, w: &Tensor, b: &Tensor, eps: f64) -> Result<Tensor> {
    let last = x.dims().last().copied().unwrap_or(0);
    if last == 0 || w.dims() != [last] || b.dims() != [last] {
        bail!("layer_norm: {:?} with weight {:?}, bias {:?}", x.dims(), w.dims(), b.dims());
    }
    if on_cpu(&[x, w, b]) { apply(LayerNorm { eps }, &[x, w, b]) } else { fallback::layer_norm(x, w, b, eps) }
}

struct GroupNorm {
    groups: usize,
    eps: f64,
    silu: bool,
}

struct LayerNorm {
    eps: f64,
}

multiversion! {
    /// Sum of (x − mean)².
    fn squares<T: Real>(x: &[T], mean: T) -> T {
        let mut acc = [T::ZERO; 32];
        let chunks = x.chunks_exact(32);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (a, &v) in acc.iter_mut().zip(chunk) {
                *a += (v - mean) * (v - mean);
            }
        }
        for (a, &v) in acc.iter_mut().zip(rest) {
            *a += (v - mean) * (v - mean);
        }
        let mut total = T::ZERO;
        for a in acc {
            total += a;
        }
        total
    }
}

multiversion! {
    /// Sum of x·y.
    pub(crate) fn dot<T: Real>(x: &[T], y: &[T]) -> T {
        let mut acc = [T::ZERO; 32];
        let (xs, ys) = (x.chunks_exact(32), y.chunks_exact(32));
        let (xr, yr) = (xs.remainder(), ys.remainder());
        for (x, y) in xs.zip(ys) {
            for ((a, &v), &u) in acc.iter_mut().zip(x).zip(y) {
                *a += v * u;
            }
        }
        for ((a, &v), &u) in acc.iter_mut().zip(xr).zip(yr) {
            *a += v * u;
        }
        let mut total = T::ZERO;
        for a in acc {
            total += a;
        }
        total
    }
}

multiversion! {
    /// y = x·scale + shift, then SiLU.
    fn affine_silu<T: Real>(x: &[T], scale: T, shift: T, y: &mut [T]) -> () {
        for (y, &x) in y.iter_mut().zip(x) {
            let v = x * scale + shift;
            *y = v / (T::ONE + (T::ZERO - v).exp());
        }
    }
}

multiversion! {
    /// g·silu′(v) with v = x·scale + shift.
    fn silu_gradient<T: Real>(x: &[T], g: &[T], scale: T, shift: T, out: &mut [T]) -> () {
        for ((o, &x), &g) in out.iter_mut().zip(x).zip(g) {
            let v = x * scale + shift;
            let s = T::ONE / (T::ONE + (T::ZERO - v).exp());
            *o = g * s * (T::ONE + v * (T::ONE - s));
        }
    }
}

/// Mean and 1/√(variance + ε).
fn statistics<T: Real>(x: &[T], eps: f64) -> (T, T) {
    let n = T::from_f64(x.len() as f64);
    let mean = sum(x) / n;
    (mean, T::ONE / (squares(x, mean) / n + T::from_f64(eps)).sqrt())
}

impl GroupNorm {
    /// Batch, channels a group, elements a channel.
    fn shape(&self, dims: &[usize]) -> (usize, usize, usize) {
        (dims[0], dims[1] / self.groups, dims[2..].iter().product())
    }
}

impl Layer for GroupNorm {
    const NAME: &'static str = "group_norm";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let [x, w, b] = [&args[0], &args[1], &args[2]];
        let (_, per, n) = self.shape(x.dims);
        let mut out = vec![T::ZERO; x.data.len()];
        let group = |(i, (y, x)): (usize, (&mut [T], &[T]))| {
            let (mean, rstd) = statistics(x, self.eps);
            for (j, (y, x)) in y.chunks_mut(n).zip(x.chunks(n)).enumerate() {
                let c = i % self.groups * per + j;
                let scale = rstd * w.data[c];
                let shift = b.data[c] - mean * scale;
                if self.silu {
                    affine_silu(x, scale, shift, y);
                } else {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = x * scale + shift;
                    }
                }
            }
        };
        out.par_chunks_mut(per * n).zip(x.data.par_chunks(per * n)).enumerate().for_each(group);
        Ok((out, x.dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        needs: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let [x, w, b] = [&args[0], &args[1], &args[2]];
        let (batch, per, n) = self.shape(x.dims);
        let channels = per * self.groups;
        let mut gx = vec![T::ZERO; x.data.len()];
        // Σ g·x̂ and Σ g of every (sample, channel): the gradients of w and b, once summed over samples.
        let mut sums = vec![(T::ZERO, T::ZERO); batch * channels];
        let group = |(i, ((gx, (x, g)), sums)): (usize, ((&mut [T], (&[T], &[T])), &mut [(T, T)]))| {
            let (mean, rstd) = statistics(x, self.eps);
            let (mut s1, mut s2) = (T::ZERO, T::ZERO);
            for j in 0..per {
                let c = i % self.groups * per + j;
                let (gx, x, g) = (&mut gx[j * n..][..n], &x[j * n..][..n], &g[j * n..][..n]);
                let scale = rstd * w.data[c];
                if self.silu {
                    silu_gradient(x, g, scale, b.data[c] - mean * scale, gx);
                } else {
                    gx.copy_from_slice(g);
                }
                let total = sum(gx);
                let with_x = (dot(gx, x) - mean * total) * rstd;
                sums[j] = (with_x, total);
                s1 += w.data[c] * total;
                s2 += w.data[c] * with_x;
            }
            if needs[0] {
                let m = T::from_f64((per * n) as f64);
                let (s1, s2) = (s1 / m, s2 / m);
                for j in 0..per {
                    let wc = w.data[i % self.groups * per + j];
                    for (gx, &x) in gx[j * n..][..n].iter_mut().zip(&x[j * n..][..n]) {
                        *gx = rstd * (wc * *gx - s1 - (x - mean) * rstd * s2);
                    }
                }
            }
        };
        gx.par_chunks_mut(per * n)
            .zip(x.data.par_chunks(per * n).zip(grad.par_chunks(per * n)))
            .zip(sums.par_chunks_mut(per))
            .enumerate()
            .for_each(group);
        let over_batch = |pick: fn(&(T, T)) -> T| {
            let total = |c: usize| (0..batch).fold(T::ZERO, |a, s| a + pick(&sums[s * channels + c]));
            (0..channels).map(total).collect()
        };
        Ok(vec![
            needs[0].then_some(gx),
            needs[1].then(|| over_batch(|s| s.0)),
            needs[2].then(|| over_batch(|s| s.1)),
        ])
    }
}

/// Rows handled by one task: fixed, so that sums do not depend on the number of threads.
const ROWS: usize = 64;

impl Layer for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let [x, w, b] = [&args[0], &args[1], &args[2]];
        let n = w.data.len();
        let mut out = vec![T::ZERO; x.data.len()];
        out.par_chunks_mut(n * ROWS).zip(x.data.par_chunks(n * ROWS)).for_each(|(y, x)| {
            for (y, x) in y.chunks_mut(n).zip(x.chunks(n)) {
                let (mean, rstd) = statistics(x, self.eps);
                for (i, (y, &x)) in y.iter_mut().zip(x).enumerate() {
                    *y = (x - mean) * rstd * w.data[i] + b.data[i];
                }
            }
        });
        Ok((out, x.dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        needs: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let [x, w] = [&args[0], &args[1]];
        let n = w.data.len();
        let mut gx = vec![T::ZERO; x.data.len()];
        let parts: Vec<(Vec<T>, Vec<T>)> = gx
            .par_chunks_mut(n * ROWS)
            .zip(x.data.par_chunks(n * ROWS).zip(grad.par_chunks(n * ROWS)))
            .map(|(gx, (x, g))| {
                let (mut gw, mut gb) = (vec![T::ZERO; n], vec![T::ZERO; n]);
                for ((gx, x), g) in gx.chunks_mut(n).zip(x.chunks(n)).zip(g.chunks(n)) {
                    row_gradient(x, g, w.data, statistics(x, self.eps), gx, &mut gw, &mut gb);
                }
                (gw, gb)
            })
            .collect();
        let total = |pick: fn(&(Vec<T>, Vec<T>)) -> &Vec<T>| {
            let mut out = vec![T::ZERO; n];
            for part in &parts {
                for (o, &v) in out.iter_mut().zip(pick(part)) {
                    *o += v;
                }
            }
            out
        };
        Ok(vec![needs[0].then_some(gx), needs[1].then(|| total(|p| &p.0)), needs[2].then(|| total(|p| &p.1))])
    }
}

/// Gradient of one row by its input; adds the row's share to `gw` and `gb`.
fn row_gradient<T: Real>(
    x: &[T],
    g: &[T],
    w: &[T],
    (mean, rstd): (T, T),
    gx: &mut [T],
    gw: &mut [T],
    gb: &mut [T],
) {
    for i in 0..x.len() {
        let normed = (x[i] - mean) * rstd;
        gw[i] += g[i] * normed;
        gb[i] += g[i];
        gx[i] = g[i] * w[i];
    }
    let n = T::from_f64(x.len() as f64);
    let s1 = sum(gx);
    let s2 = (dot(gx, x) - mean * s1) * rstd;
    let (s1, s2) = (s1 / n, s2 / n);
    for (gx, &x) in gx.iter_mut().zip(x) {
        *gx = rstd * (*gx - s1 - (x - mean) * rstd * s2);
    }
}
