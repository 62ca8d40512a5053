//! Affine map of the last dimension.

use std::sync::Arc;

use candle_core::{D, Result, Tensor, bail};
use rayon::prelude::*;

use super::gemm::{Mat, product, product_packed};
use super::kept::Kept;
use super::pack::{Packed, pack_all, packed_len};
use super::real::Real;
use super::tape::{self, Arg, Layer};

/// `x w^T + b` for `x` `[..., Ci]`, `w` `[Co, Ci]`, `b` `[Co]`: `[..., Co]`.
///
/// # Errors
/// When shapes, dtypes or devices do not fit together.
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    map(x, w, b, None)
}

/// As [`linear`], keeping what its kernels make of `w`, if that is no variable, for the next call.
///
/// # Errors
/// As for [`linear`].
pub fn linear_kept(x: &Tensor, w: &Tensor, b: Option<&Tensor>, kept: &Arc<Kept>) -> Result<Tensor> {
    map(x, w, b, Kept::of(kept, w).filter(|_| w.elem_count() <= MOST_KEPT))
}

/// Elements of a weight above which its packed form is not kept: packing is a small part of a wide layer's work.
const MOST_KEPT: usize = 3 << 17;

fn map(x: &Tensor, w: &Tensor, b: Option<&Tensor>, kept: Option<Arc<Kept>>) -> Result<Tensor> {
    let (co, ci) = w.dims2()?;
    if x.dim(D::Minus1)? != ci || b.is_some_and(|b| b.dims() != [co]) {
        bail!("linear: weights {:?} do not fit the input {:?} or the bias", w.dims(), x.dims());
    }
    let args: Vec<&Tensor> = [x, w].into_iter().chain(b).collect();
    if !tape::on_cpu(&args) {
        return super::elsewhere::linear(x, w, b);
    }
    tape::apply(Linear { kept }, &args)
}

struct Linear {
    kept: Option<Arc<Kept>>,
}

impl Linear {
    /// `a b` for a weight `b` in one of its two directions.
    fn product<T: Real>(
        &self,
        (m, n, k): (usize, usize, usize),
        a: Mat<'_, T>,
        b: Mat<'_, T>,
        back: bool,
    ) -> Vec<T> {
        let Some(kept) = self.kept.as_deref().filter(|_| n * k > 0) else { return product((m, n, k), a, b) };
        let panels = kept.get(back, || {
            let mut panels = vec![T::ZERO; packed_len::<T>(k, n)];
            pack_all(b, k, n, &mut panels);
            panels
        });
        product_packed((m, n, k), a, &Packed { panels, k })
    }
}

impl Layer for Linear {
    const NAME: &'static str = "linear";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let (x, w) = (&args[0], &args[1]);
        let (co, ci) = (w.dims[0], w.dims[1]);
        let rows = x.data.len() / ci.max(1);
        let mut y = self.product((rows, co, ci), Mat::new(x.data, ci), Mat::new(w.data, ci).t(), false);
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
        let gx = needs[0].then(|| self.product((rows, ci, co), g, Mat::new(w.data, ci), true));
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
