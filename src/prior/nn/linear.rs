//! Linear layers and embedding tables.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use super::fallback;
use super::gemm::{Mat, product};
use super::real::Real;
use super::tape::{Arg, Layer, apply, on_cpu};

/// y = x Wᵀ + b over the last dimension: `x` `[…, in]`, `w` `[out, in]`, `b` `[out]`.
///
/// # Errors
/// If shapes or dtypes do not fit.
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = w.dims2()?;
    if x.dims().last() != Some(&inputs) || b.is_some_and(|b| b.dims() != [outputs]) {
        bail!("linear: {:?} with weight {:?}, bias {:?}", x.dims(), w.dims(), b.map(Tensor::dims));
    }
    match b {
        Some(b) if on_cpu(&[x, w, b]) => apply(Linear, &[x, w, b]),
        None if on_cpu(&[x, w]) => apply(Linear, &[x, w]),
        _ => fallback::linear(x, w, b),
    }
}

/// Rows of `table` `[vocabulary, C]` at `ids` `[B, L]` (u32): `[B, L, C]`.
///
/// # Errors
/// If an id is beyond the table.
pub fn embedding(ids: &Tensor, table: &Tensor) -> Result<Tensor> {
    let (batch, length) = ids.dims2()?;
    let (rows, width) = table.dims2()?;
    if !on_cpu(&[table]) || ids.dtype() != DType::U32 {
        return table.index_select(&ids.flatten_all()?, 0)?.reshape((batch, length, width));
    }
    let ids = ids.flatten_all()?.to_vec1::<u32>()?;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
        bail!("embedding: id {id}, the table has {rows} rows");
    }
    apply(Embedding { ids }, &[table])?.reshape((batch, length, width))
}

struct Linear;

struct Embedding {
    ids: Vec<u32>,
}

/// Rows summed by one task; fixed, so that sums do not depend on the number of threads.
const ROWS: usize = 256;

/// Sums over the rows of `x` `[rows, n]`.
fn column_sums<T: Real>(x: &[T], n: usize) -> Vec<T> {
    let add = |acc: &mut Vec<T>, row: &[T]| {
        for (a, &v) in acc.iter_mut().zip(row) {
            *a += v;
        }
    };
    let part = |rows: &[T]| {
        let mut acc = vec![T::ZERO; n];
        rows.chunks(n).for_each(|row| add(&mut acc, row));
        acc
    };
    let parts: Vec<Vec<T>> = x.par_chunks(n * ROWS).map(part).collect();
    let mut out = vec![T::ZERO; n];
    parts.iter().for_each(|p| add(&mut out, p));
    out
}

impl Layer for Linear {
    const NAME: &'static str = "linear";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let [x, w] = [&args[0], &args[1]];
        let (outputs, inputs) = (w.dims[0], w.dims[1]);
        let m = x.data.len() / inputs.max(1);
        let mut y = product((m, outputs, inputs), Mat::new(x.data, inputs), Mat::new(w.data, inputs).t());
        if let Some(b) = args.get(2) {
            y.par_chunks_mut(outputs).for_each(|row| {
                for (y, &b) in row.iter_mut().zip(b.data) {
                    *y += b;
                }
            });
        }
        let mut dims = x.dims.to_vec();
        if let Some(last) = dims.last_mut() {
            *last = outputs;
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
        let [x, w] = [&args[0], &args[1]];
        let (outputs, inputs) = (w.dims[0], w.dims[1]);
        let m = x.data.len() / inputs.max(1);
        let g = Mat::new(grad, outputs);
        let gx = needs[0].then(|| product((m, inputs, outputs), g, Mat::new(w.data, inputs)));
        let gw = needs[1].then(|| product((outputs, inputs, m), g.t(), Mat::new(x.data, inputs)));
        let mut out = vec![gx, gw];
        if let Some(&need) = needs.get(2) {
            out.push(need.then(|| column_sums(grad, outputs)));
        }
        Ok(out)
    }
}

impl Layer for Embedding {
    const NAME: &'static str = "embedding";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let width = args[0].dims[1];
        let row = |id: &u32| &args[0].data[*id as usize * width..][..width];
        Ok((self.ids.iter().flat_map(row).copied().collect(), vec![self.ids.len(), width]))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        _: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let width = args[0].dims[1];
        let mut out = vec![T::ZERO; args[0].data.len()];
        for (id, g) in self.ids.iter().zip(grad.chunks(width)) {
            for (o, &g) in out[*id as usize * width..][..width].iter_mut().zip(g) {
                *o += g;
            }
        }
        Ok(vec![Some(out)])
    }
}
