//! Group normalisation, with SiLU in the same pass where a network has it.

use std::sync::OnceLock;

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::activation::silu_slope;
use super::real::Real;
use super::reduce::sum;
use super::simd::multiversion;
use super::tape::{self, Arg, Layer};

/// Normalises `x` [B, C, ...] over each of `groups` groups of channels (Wu and He 2018), then
/// `y = (x - mean) / sqrt(var + eps) * w + b` with `w`, `b` `[C]`, then `y * sigmoid(y)` if `silu`.
///
/// # Errors
/// When shapes, dtypes or devices do not fit together.
pub fn group_norm(x: &Tensor, w: &Tensor, b: &Tensor, groups: usize, eps: f64, silu: bool) -> Result<Tensor> {
    let dims = x.dims();
    if dims.len() < 2
        || groups == 0
        || !dims[1].is_multiple_of(groups)
        || w.dims() != [dims[1]]
        || b.dims() != [dims[1]]
    {
        bail!("group_norm: {groups} groups, weights {:?}, bias {:?}, input {dims:?}", w.dims(), b.dims());
    }
    if x.elem_count() == 0 || !tape::on_cpu(&[x, w, b]) {
        return super::elsewhere::group_norm(x, w, b, groups, eps, silu);
    }
    tape::apply(GroupNorm { groups, eps, silu, moments: OnceLock::new() }, &[x, w, b])
}

struct GroupNorm {
    groups: usize,
    eps: f64,
    silu: bool,
    /// (mean, 1 / standard deviation) of each group of each image.
    moments: OnceLock<Vec<(f64, f64)>>,
}

impl Layer for GroupNorm {
    const NAME: &'static str = "group_norm";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let [x, w, b] = args else { bail!("group_norm: three arguments") };
        let channels = x.dims[1];
        let per_group = channels / self.groups;
        let pixels = x.data.len() / (x.dims[0] * channels);
        let mut y = vec![T::ZERO; x.data.len()];
        let n = per_group * pixels;
        let moments = y
            .par_chunks_exact_mut(n)
            .zip(x.data.par_chunks_exact(n))
            .enumerate()
            .map(|(i, (y, x))| {
                let count = T::from_f64(n as f64);
                let mean = sum(x) / count;
                let rstd = T::ONE / (squares(x, mean) / count + T::from_f64(self.eps)).sqrt();
                for (j, (y, x)) in y.chunks_exact_mut(pixels).zip(x.chunks_exact(pixels)).enumerate() {
                    let c = i % self.groups * per_group + j;
                    let scale = rstd * w.data[c];
                    affine(x, scale, b.data[c] - mean * scale, self.silu, y);
                }
                (mean.to_f64(), rstd.to_f64())
            })
            .collect();
        self.moments.get_or_init(|| moments);
        Ok((y, x.dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        _: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let ([x, w, b], Some(moments)) = (args, self.moments.get()) else { bail!("group_norm: no forward") };
        let (batch, channels) = (x.dims[0], x.dims[1]);
        let per_group = channels / self.groups;
        let pixels = x.data.len() / (batch * channels);
        let n = per_group * pixels;
        let mut gx = vec![T::ZERO; x.data.len()];
        // Per image and channel: the sums of the gradient, plain and times the normalised input.
        let mut sums = vec![(T::ZERO, T::ZERO); batch * channels];
        gx.par_chunks_exact_mut(n)
            .zip(x.data.par_chunks_exact(n).zip(grad.par_chunks_exact(n)))
            .zip(sums.par_chunks_exact_mut(per_group))
            .enumerate()
            .for_each(|(i, ((gx, (x, g)), sums))| {
                let (mean, rstd) = (T::from_f64(moments[i].0), T::from_f64(moments[i].1));
                let first = i % self.groups * per_group;
                let (mut plain, mut scaled) = (T::ZERO, T::ZERO);
                for (j, sum) in sums.iter_mut().enumerate() {
                    let (w, b) = (w.data[first + j], b.data[first + j]);
                    let at = j * pixels..(j + 1) * pixels;
                    let to = &mut gx[at.clone()];
                    *sum = inner((&x[at.clone()], &g[at]), (mean, rstd), (w, b), self.silu, to);
                    plain += w * sum.0;
                    scaled += w * sum.1;
                }
                // gx = rstd (w dz - mean(w dz) - xhat mean(w dz xhat)), with dz in gx from above.
                let count = T::from_f64(n as f64);
                let slope = scaled / count * rstd * rstd;
                for j in 0..per_group {
                    let at = j * pixels..(j + 1) * pixels;
                    let shift = slope * mean - plain / count * rstd;
                    outer(&x[at.clone()], rstd * w.data[first + j], slope, shift, &mut gx[at]);
                }
            });
        let total = |of: fn(&(T, T)) -> T| -> Vec<T> {
            let mut totals = vec![T::ZERO; channels];
            for image in sums.chunks_exact(channels) {
                totals.iter_mut().zip(image).for_each(|(t, s)| *t += of(s));
            }
            totals
        };
        Ok(vec![Some(gx), Some(total(|s| s.1)), Some(total(|s| s.0))])
    }
}

/// Interleaved running sums, as in [`super::reduce`].
const LANES: usize = 32;

multiversion! {
    /// Sum of (x - mean)^2.
    fn squares<T: Real>(x: &[T], mean: T) -> T {
        let mut acc = [T::ZERO; LANES];
        let chunks = x.chunks_exact(LANES);
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
    /// `y = x * scale + shift`, then SiLU if asked for.
    fn affine<T: Real>(x: &[T], scale: T, shift: T, silu: bool, y: &mut [T]) {
        if silu {
            for (y, &x) in y.iter_mut().zip(x) {
                let z = x * scale + shift;
                *y = z / (T::ONE + (T::ZERO - z).exp());
            }
        } else {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x * scale + shift;
            }
        }
    }
}

multiversion! {
    /// The gradient before the activation, into `dz`; its sum, and the sum of it times the normalised input.
    fn inner<T: Real>(
        xg: (&[T], &[T]),
        moments: (T, T),
        weights: (T, T),
        silu: bool,
        dz: &mut [T],
    ) -> (T, T) {
        let ((x, g), (mean, rstd), (w, b)) = (xg, moments, weights);
        if silu {
            for ((d, &x), &g) in dz.iter_mut().zip(x).zip(g) {
                *d = g * silu_slope((x - mean) * rstd * w + b);
            }
        } else {
            dz.copy_from_slice(g);
        }
        let (mut plain, mut scaled) = ([T::ZERO; LANES], [T::ZERO; LANES]);
        for (d, x) in dz.chunks(LANES).zip(x.chunks(LANES)) {
            if d.len() == LANES {
                for i in 0..LANES {
                    plain[i] += d[i];
                    scaled[i] += d[i] * (x[i] - mean);
                }
            } else {
                for i in 0..d.len() {
                    plain[i] += d[i];
                    scaled[i] += d[i] * (x[i] - mean);
                }
            }
        }
        let mut totals = (T::ZERO, T::ZERO);
        for i in 0..LANES {
            totals.0 += plain[i];
            totals.1 += scaled[i];
        }
        (totals.0, totals.1 * rstd)
    }
}

multiversion! {
    /// `gx = scale * gx - slope * x + shift`.
    fn outer<T: Real>(x: &[T], scale: T, slope: T, shift: T, gx: &mut [T]) {
        for (d, &x) in gx.iter_mut().zip(x) {
            *d = scale * *d - slope * x + shift;
        }
    }
}
