//! Affine map of the last dimension.

use candle_core::{D, Result, Tensor, bail};
use rayon::prelude::*;

use super::gemm::{Mat, product};
use super::real::Real;
use super::tape::{self, Arg, Layer};

/// `x w^T + b` for `x` `[..., Ci]`, `w` `[Co, Ci]`, `b` `[Co]`: `[..., Co]`.
///
/// # Errors
/// When shapes, dtypes or devices do not fit together.
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let (co, ci) = w.dims2()?;
    if x.dim(D::Minus1)? != ci || b.is_some_and(|b| b.dims() != [co]) {
        bail!("linear: weights {:?} do not fit the input {:?} or the bias", w.dims(), x.dims());
    }
    let args: Vec<&Tensor> = [x, w].into_iter().chain(b).collect();
    if !tape::on_cpu(&args) {
        return super::elsewhere::linear(x, w, b);
    }
    tape::apply(Linear, &args)
}

struct Linear;

impl Layer for Linear {
    const NAME: &'static str = "linear";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let (x, w) = (&args[0], &args[1]);
        let (co, ci) = (w.dims[0], w.dims[1]);
        let rows = x.data.len() / ci.max(1);
        let mut y = product((rows, co, ci), Mat::new(x.data, ci), Mat::new(w.data, ci).t());
        if let Some(bias) = args.get(2).filter(|b| !b.data.is_empty()) {
            y.par_chunks_mut(co * 64).for_each(|rows| {
                for row in rows.chunks_exact_mut(co) {
                    row.iter_mut().zip(bias.data).for_each(|(y, &b)| *y += b);
                }
            });
        }
        let mut dims = x.dims.to_vec();
        if let Some(last) = dims.last_mut() {
            *last = co;
        }
        Ok((y, dims))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        needs: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let (x, w) = (&args[0], &args[1]);
        let (co, ci) = (w.dims[0], w.dims[1]);
        let rows = x.data.len() / ci.max(1);
        let g = Mat::new(grad, co);
        let gx = needs[0].then(|| product((rows, ci, co), g, Mat::new(w.data, ci)));
        let gw = needs[1].then(|| product((co, ci, rows), g.t(), Mat::new(x.data, ci)));
        let mut grads = vec![gx, gw];
        if let Some(&needed) = needs.get(2) {
            // Column sums: the product with a row of ones.
            let ones = Mat { data: &[T::ONE], row: 0, col: 0 };
            grads.push(needed.then(|| product((1, co, rows), ones, g)));
        }
        Ok(grads)
    }
}
