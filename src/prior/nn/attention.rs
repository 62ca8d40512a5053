//! Scaled dot-product attention over heads, exact, in memory linear in the number of queries.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::fallback;
use super::gemm::{Mat, pack, packed_len, serial};
use super::norm::dot;
use super::real::Real;
use super::simd::multiversion;
use super::tape::{Arg, Layer, apply, on_cpu};

/// softmax(scale·Q Kᵀ) V for each of `heads` heads: `q` `[B, N, H·D]`, `k` and `v` `[B, M, H·D]`, result
/// `[B, N, H·D]`. With `causal`, query i sees keys 0..=i.
///
/// # Errors
/// If shapes or dtypes do not fit.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f64,
    causal: bool,
) -> Result<Tensor> {
    let ((b, _, c), keys) = (q.dims3()?, k.dims3()?);
    if heads == 0
        || !c.is_multiple_of(heads)
        || k.dims() != v.dims()
        || (keys.0, keys.2) != (b, c)
        || keys.1 == 0
    {
        bail!("attention: q {:?}, k {:?}, v {:?}, {heads} heads", q.dims(), k.dims(), v.dims());
    }
    if on_cpu(&[q, k, v]) {
        apply(Attention { heads, scale, causal }, &[q, k, v])
    } else {
        fallback::attention(q, k, v, heads, scale, causal)
    }
}

struct Attention {
    heads: usize,
    scale: f64,
    causal: bool,
}

/// Queries whose probabilities are in memory at a time: bounds a head's share to 128·M numbers.
const QUERIES: usize = 128;

multiversion! {
    /// Turns scores into probabilities: e^(scale·(s − max)) over their sum.
    fn softmax<T: Real>(row: &mut [T], scale: T) -> () {
        let mut top = row[0];
        for &s in row.iter() {
            top = if s > top { s } else { top };
        }
        let mut total = T::ZERO;
        for s in row.iter_mut() {
            *s = ((*s - top) * scale).exp();
            total += *s;
        }
        let inverse = T::ONE / total;
        for s in row.iter_mut() {
            *s *= inverse;
        }
    }
}

/// One head of one sample: sizes, and where its rows start.
struct Head<'a, T> {
    n: usize,
    m: usize,
    d: usize,
    q: Mat<'a, T>,
    k: Mat<'a, T>,
    v: Mat<'a, T>,
}

impl Attention {
    fn head<'a, T: Real>(&self, args: &[Arg<'a, T>], task: usize) -> Head<'a, T> {
        let (n, m, c) = (args[0].dims[1], args[1].dims[1], args[0].dims[2]);
        let d = c / self.heads;
        let (b, h) = (task / self.heads, task % self.heads);
        let rows = |a: &Arg<'a, T>, length: usize| Mat::new(&a.data[b * length * c + h * d..], c);
        Head { n, m, d, q: rows(&args[0], n), k: rows(&args[1], m), v: rows(&args[2], m) }
    }

    /// Probabilities `[rows, m]` of queries `first..first + rows`.
    fn probabilities<T: Real>(
        &self,
        head: &Head<T>,
        first: usize,
        rows: usize,
        keys: &super::gemm::Packed<T>,
    ) -> Vec<T> {
        let mut p = vec![T::ZERO; rows * head.m];
        serial((rows, head.m, head.d), head.q.from_row(first), Ok(keys), &mut p, head.m);
        for (i, row) in p.chunks_exact_mut(head.m).enumerate() {
            let seen = if self.causal { (first + i + 1).min(head.m) } else { head.m };
            softmax(&mut row[..seen], T::from_f64(self.scale));
            row[seen..].fill(T::ZERO);
        }
        p
    }

    /// `[heads of all samples][rows, d]` back to `[B, rows, H·D]`.
    fn gather<T: Real>(&self, blocks: &[Vec<T>], rows: usize, d: usize) -> Vec<T> {
        let c = self.heads * d;
        let mut out = vec![T::ZERO; blocks.len() * rows * d];
        for (task, block) in blocks.iter().enumerate() {
            let (b, h) = (task / self.heads, task % self.heads);
            for (i, row) in block.chunks_exact(d).enumerate() {
                out[(b * rows + i) * c + h * d..][..d].copy_from_slice(row);
            }
        }
        out
    }

    /// Gradients of one head's q, k and v.
    fn head_gradients<T: Real>(&self, head: &Head<T>, out: Mat<T>, grad: Mat<T>) -> [Vec<T>; 3] {
        let (n, m, d) = (head.n, head.m, head.d);
        let (mut kb, mut vb) = (vec![T::ZERO; packed_len::<T>(d, m)], vec![T::ZERO; packed_len::<T>(d, m)]);
        let keys = pack(head.k.t(), d, m, &mut kb);
        let values = pack(head.v.t(), d, m, &mut vb);
        let [mut gq, mut gk, mut gv] = [vec![T::ZERO; n * d], vec![T::ZERO; m * d], vec![T::ZERO; m * d]];
        let mut ds = Vec::new();
        for first in (0..n).step_by(QUERIES) {
            let rows = QUERIES.min(n - first);
            let p = self.probabilities(head, first, rows, &keys);
            let g = grad.from_row(first);
            serial((m, d, rows), Mat::new(&p, m).t(), Err(g), &mut gv, d);
            ds.clear();
            ds.resize(rows * m, T::ZERO);
            serial((rows, m, d), g, Ok(&values), &mut ds, m);
            for (i, (ds, p)) in ds.chunks_exact_mut(m).zip(p.chunks_exact(m)).enumerate() {
                // Σ_j p_j dP_j = g · o, the softmax's own correction.
                let shift = dot(&grad.from_row(first + i).data[..d], &out.from_row(first + i).data[..d]);
                for (ds, &p) in ds.iter_mut().zip(p) {
                    *ds = p * (*ds - shift) * T::from_f64(self.scale);
                }
            }
            serial((rows, d, m), Mat::new(&ds, m), Err(head.k), &mut gq[first * d..], d);
            serial((m, d, rows), Mat::new(&ds, m).t(), Err(head.q.from_row(first)), &mut gk, d);
        }
        [gq, gk, gv]
    }
}

impl Layer for Attention {
    const NAME: &'static str = "attention";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let dims = args[0].dims;
        let (n, d) = (dims[1], dims[2] / self.heads);
        let one = |task: usize| {
            let head = self.head(args, task);
            let mut buffer = vec![T::ZERO; packed_len::<T>(d, head.m)];
            let keys = pack(head.k.t(), d, head.m, &mut buffer);
            let mut out = vec![T::ZERO; n * d];
            for first in (0..n).step_by(QUERIES) {
                let rows = QUERIES.min(n - first);
                let p = self.probabilities(&head, first, rows, &keys);
                serial((rows, d, head.m), Mat::new(&p, head.m), Err(head.v), &mut out[first * d..], d);
            }
            out
        };
        let blocks: Vec<Vec<T>> = (0..dims[0] * self.heads).into_par_iter().map(one).collect();
        Ok((self.gather(&blocks, n, d), dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        out: &[T],
        grad: &[T],
        needs: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let (dims, m) = (args[0].dims, args[1].dims[1]);
        let (n, c, d) = (dims[1], dims[2], dims[2] / self.heads);
        let one = |task: usize| {
            let start = task / self.heads * n * c + task % self.heads * d;
            let (out, grad) = (Mat::new(&out[start..], c), Mat::new(&grad[start..], c));
            self.head_gradients(&self.head(args, task), out, grad)
        };
        let blocks: Vec<[Vec<T>; 3]> = (0..dims[0] * self.heads).into_par_iter().map(one).collect();
        let mut parts: [Vec<Vec<T>>; 3] = Default::default();
        for block in blocks {
            for (part, b) in parts.iter_mut().zip(block) {
                part.push(b);
            }
        }
        let lengths = [n, m, m];
        let all = (0..3).map(|i| needs[i].then(|| self.gather(&parts[i], lengths[i], d)));
        Ok(all.collect())
    }
}
