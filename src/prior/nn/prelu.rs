//! Rectifier with a learned slope for negative values.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::real::Real;
use super::tape::{self, Arg, Layer};

/// `max(x, 0) + a min(x, 0)` with a slope for each channel: `x` `[B, C, H, W]`, `a` `[C]`.
///
/// # Errors
/// When shapes, dtypes or devices do not fit together.
pub fn prelu(x: &Tensor, a: &Tensor) -> Result<Tensor> {
    let (_, c, h, w) = x.dims4()?;
    if a.dims() != [c] {
        bail!("prelu: slopes {:?} do not fit {:?}", a.dims(), x.dims());
    }
    if h * w == 0 || !tape::on_cpu(&[x, a]) {
        return x.relu()?.sub(&x.neg()?.relu()?.broadcast_mul(&a.reshape((1, c, 1, 1))?)?);
    }
    tape::apply(Prelu, &[x, a])
}

struct Prelu;

impl Layer for Prelu {
    const NAME: &'static str = "prelu";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let (x, a) = (&args[0], &args[1]);
        let (c, n) = (x.dims[1], x.dims[2] * x.dims[3]);
        let mut y = vec![T::ZERO; x.data.len()];
        let planes = y.par_chunks_exact_mut(n).zip(x.data.par_chunks_exact(n));
        planes.with_min_len(16).enumerate().for_each(|(plane, (y, x))| {
            let a = a.data[plane % c];
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = if x > T::ZERO { x } else { a * x });
        });
        Ok((y, x.dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        needs: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let (x, a) = (&args[0], &args[1]);
        let (b, c, n) = (x.dims[0], x.dims[1], x.dims[2] * x.dims[3]);
        let gx = needs[0].then(|| {
            let mut gx = vec![T::ZERO; x.data.len()];
            let planes = x.data.par_chunks_exact(n).zip(grad.par_chunks_exact(n));
            gx.par_chunks_exact_mut(n).zip(planes).with_min_len(16).enumerate().for_each(
                |(plane, (gx, (x, g)))| {
                    let a = a.data[plane % c];
                    for ((gx, &x), &g) in gx.iter_mut().zip(x).zip(g) {
                        *gx = if x > T::ZERO { g } else { a * g };
                    }
                },
            );
            gx
        });
        // Of one channel over the batch, in order.
        let slope = |channel: usize| {
            let mut sum = T::ZERO;
            for row in 0..b {
                let at = (row * c + channel) * n;
                for (&x, &g) in x.data[at..at + n].iter().zip(&grad[at..at + n]) {
                    sum += if x > T::ZERO { T::ZERO } else { x * g };
                }
            }
            sum
        };
        let ga = needs[1].then(|| (0..c).into_par_iter().with_min_len(4).map(slope).collect());
        Ok(vec![gx, ga])
    }
}
