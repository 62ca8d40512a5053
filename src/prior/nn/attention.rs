//! Scaled dot-product attention in one operation, a block of queries at a time.
//!
//! The backward recomputes the probabilities of a block instead of keeping those of all blocks:
//! with `P = softmax(scale Q K^T)`, `O = P V` and gradient `dO`,
//! `dV = P^T dO`, `dP = dO V^T`, `dS = P (dP - sum_j P dP)`, `dQ = scale dS K`, `dK = scale dS^T Q`.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::gemm::{Mat, Packed, pack, packed_len, serial};
use super::real::{Real, Shared, uninit};
use super::simd::multiversion;
use super::tape::{self, Arg, Layer};

/// Attention of `q` [B, N, H D] to `k`, `v` [B, M, H D] with H = `heads` heads side by side:
/// `softmax(scale q k^T) v` per head, [B, N, H D]. With `causal`, query i sees keys 0..=i (N = M).
///
/// # Errors
/// When shapes, dtypes or devices do not fit together.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f64,
    causal: bool,
) -> Result<Tensor> {
    let (batch, n, width) = q.dims3()?;
    let m = k.dim(1)?;
    if heads == 0 || width % heads != 0 || k.dims() != [batch, m, width] || v.dims() != k.dims() {
        bail!("attention: {heads} heads, q {:?}, k {:?}, v {:?}", q.dims(), k.dims(), v.dims());
    }
    if m == 0 || (causal && n != m) {
        bail!("attention: {n} queries and {m} keys (causal: {causal})");
    }
    if q.elem_count() == 0 || !tape::on_cpu(&[q, k, v]) {
        return super::fallback::attention(q, k, v, heads, scale, causal);
    }
    tape::apply(Attention { heads, scale, causal }, &[q, k, v])
}

struct Attention {
    heads: usize,
    scale: f64,
    causal: bool,
}

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    /// Elements of a head.
    depth: usize,
    /// Queries of a block: at most 64, fewer for many keys, a number that depends on the shape only.
    block: usize,
}

impl Sizes {
    fn new<T>(q: &Arg<T>, k: &Arg<T>, heads: usize) -> Self {
        let (queries, keys) = (q.dims[1], k.dims[1]);
        let block = (65_536 / keys).next_multiple_of(8).clamp(8, 64).min(queries);
        Self { batch: q.dims[0], queries, keys, heads, depth: q.dims[2] / heads, block }
    }

    fn width(&self) -> usize {
        self.heads * self.depth
    }

    /// Where head `h` of row `row` of image `b` starts in a tensor with `rows` rows per image.
    fn at(&self, rows: usize, (b, h): (usize, usize), row: usize) -> usize {
        (b * rows + row) * self.width() + h * self.depth
    }

    /// One head of one image, from `row` on.
    fn view<'a, T>(&self, x: &'a [T], rows: usize, bh: (usize, usize), row: usize) -> Mat<'a, T> {
        Mat::new(&x[self.at(rows, bh, row)..], self.width())
    }

    /// Copies `block` [rows][depth] to one head of one image from `row` on.
    ///
    /// # Safety
    /// No other task may write the same head and rows.
    unsafe fn put<T: Real>(&self, block: &[T], out: Shared<T>, rows: usize, bh: (usize, usize), row: usize) {
        for (i, from) in block.chunks_exact(self.depth).enumerate() {
            // SAFETY: the caller's promise.
            unsafe { out.slice(self.at(rows, bh, row + i), self.depth) }.copy_from_slice(from);
        }
    }
}

impl Layer for Attention {
    const NAME: &'static str = "attention";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let [q, k, v] = args else { bail!("attention: three arguments") };
        let s = Sizes::new(q, k, self.heads);
        let mut result = vec![T::ZERO; q.data.len()];
        let out = Shared::new(&mut result);
        let blocks = s.queries.div_ceil(s.block);
        // Few heads: their blocks of queries are shared out too, each part packing the keys again.
        let pairs = s.batch * s.heads;
        let parts = (2 * rayon::current_num_threads()).div_ceil(pairs).clamp(1, blocks);
        let per_part = blocks.div_ceil(parts);
        (0..pairs * parts).into_par_iter().for_each(|task| {
            let bh = (task / parts / s.heads, task / parts % s.heads);
            let first = task % parts * per_part;
            T::with_scratch(|[scratch, ..]| {
                let sizes = [packed_len::<T>(s.depth, s.keys), s.block * s.keys, s.block * s.depth];
                let [keys, p, o] = carve(uninit(scratch, sizes.iter().sum()), sizes);
                let keys = pack(s.view(k.data, s.keys, bh, 0).t(), s.depth, s.keys, keys);
                for blk in first..blocks.min(first + per_part) {
                    let row = blk * s.block;
                    let rows = s.block.min(s.queries - row);
                    self.probabilities(&s, s.view(q.data, s.queries, bh, row), &keys, (row, rows), p);
                    o.fill(T::ZERO);
                    let values = s.view(v.data, s.keys, bh, 0);
                    serial((rows, s.depth, s.keys), Mat::new(p, s.keys), Err(values), o, s.depth);
                    // SAFETY: every task has its own head and queries.
                    unsafe { s.put(&o[..rows * s.depth], out, s.queries, bh, row) };
                }
            });
        });
        Ok((result, q.dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        needs: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let [q, k, v] = args else { bail!("attention: three arguments") };
        let s = Sizes::new(q, k, self.heads);
        let mut grads: Vec<Vec<T>> = args.iter().map(|a| vec![T::ZERO; a.data.len()]).collect();
        let out: Vec<Shared<T>> = grads.iter_mut().map(|g| Shared::new(g)).collect();
        (0..s.batch * s.heads).into_par_iter().for_each(|pair| {
            let bh = (pair / s.heads, pair % s.heads);
            T::with_scratch(|[scratch, ..]| {
                self.head_gradients(&s, [q.data, k.data, v.data, grad], bh, needs, scratch, &out);
            });
        });
        Ok(grads.into_iter().zip(needs).map(|(g, &needed)| needed.then_some(g)).collect())
    }
}

impl Attention {
    /// The probabilities of a block of queries into `p` [rows][keys].
    fn probabilities<T: Real>(
        &self,
        s: &Sizes,
        q: Mat<'_, T>,
        keys: &Packed<'_, T>,
        (row, rows): (usize, usize),
        p: &mut [T],
    ) {
        let p = &mut p[..rows * s.keys];
        p.fill(T::ZERO);
        serial((rows, s.keys, s.depth), q, Ok(keys), p, s.keys);
        for (i, p) in p.chunks_exact_mut(s.keys).enumerate() {
            let seen = if self.causal { row + i + 1 } else { s.keys };
            softmax(&mut p[..seen], T::from_f64(self.scale));
            p[seen..].fill(T::ZERO);
        }
    }

    /// All gradients of one head of one image.
    fn head_gradients<T: Real>(
        &self,
        s: &Sizes,
        [q, k, v, grad]: [&[T]; 4],
        bh: (usize, usize),
        needs: &[bool],
        scratch: &mut Vec<T>,
        out: &[Shared<T>],
    ) {
        let packed = packed_len::<T>(s.depth, s.keys);
        let (square, side) = (s.block * s.keys, s.block * s.depth);
        let sizes = [packed, packed, square, square, side, s.keys * s.depth, s.keys * s.depth];
        let [kt, vt, p, ds, gq, gk, gv] = carve(uninit(scratch, sizes.iter().sum()), sizes);
        let keys = s.view(k, s.keys, bh, 0);
        let kt = pack(keys.t(), s.depth, s.keys, kt);
        let vt = pack(s.view(v, s.keys, bh, 0).t(), s.depth, s.keys, vt);
        gk.fill(T::ZERO);
        gv.fill(T::ZERO);
        for row in (0..s.queries).step_by(s.block) {
            let rows = s.block.min(s.queries - row);
            let queries = s.view(q, s.queries, bh, row);
            let go = s.view(grad, s.queries, bh, row);
            self.probabilities(s, queries, &kt, (row, rows), p);
            let (p, ds) = (&p[..rows * s.keys], &mut ds[..rows * s.keys]);
            if needs[2] {
                serial((s.keys, s.depth, rows), Mat::new(p, s.keys).t(), Err(go), gv, s.depth);
            }
            ds.fill(T::ZERO);
            serial((rows, s.keys, s.depth), go, Ok(&vt), ds, s.keys);
            for (p, ds) in p.chunks_exact(s.keys).zip(ds.chunks_exact_mut(s.keys)) {
                softmax_gradient(p, T::from_f64(self.scale), ds);
            }
            if needs[0] {
                gq.fill(T::ZERO);
                serial((rows, s.depth, s.keys), Mat::new(ds, s.keys), Err(keys), gq, s.depth);
                // SAFETY: every task has its own head and image.
                unsafe { s.put(&gq[..rows * s.depth], out[0], s.queries, bh, row) };
            }
            if needs[1] {
                serial((s.keys, s.depth, rows), Mat::new(ds, s.keys).t(), Err(queries), gk, s.depth);
            }
        }
        // SAFETY: as above.
        unsafe {
            s.put(gk, out[1], s.keys, bh, 0);
            s.put(gv, out[2], s.keys, bh, 0);
        }
    }
}

/// Cuts a buffer into consecutive parts.
fn carve<T, const N: usize>(mut buffer: &mut [T], sizes: [usize; N]) -> [&mut [T]; N] {
    sizes.map(|n| {
        let (part, rest) = std::mem::take(&mut buffer).split_at_mut(n);
        buffer = rest;
        part
    })
}

/// Interleaved running values, as in [`super::reduce`].
const LANES: usize = 16;

multiversion! {
    /// `exp(scale (x - max)) / sum`, in place.
    fn softmax<T: Real>(x: &mut [T], scale: T) {
        // The sign of the scale decides which end is the largest exponent.
        let mut top = [x[0] * scale; LANES];
        for chunk in x.chunks(LANES) {
            for (t, &v) in top.iter_mut().zip(chunk) {
                let v = v * scale;
                *t = if v > *t { v } else { *t };
            }
        }
        let mut max = top[0];
        for t in top {
            max = if t > max { t } else { max };
        }
        for v in x.iter_mut() {
            *v = (*v * scale - max).exp();
        }
        let mut acc = [T::ZERO; LANES];
        for chunk in x.chunks(LANES) {
            for (a, &v) in acc.iter_mut().zip(chunk) {
                *a += v;
            }
        }
        let mut total = T::ZERO;
        for a in acc {
            total += a;
        }
        let norm = T::ONE / total;
        for v in x.iter_mut() {
            *v *= norm;
        }
    }
}

multiversion! {
    /// From dP to scale dS, in place.
    fn softmax_gradient<T: Real>(p: &[T], scale: T, d: &mut [T]) {
        let mut acc = [T::ZERO; LANES];
        for (p, d) in p.chunks(LANES).zip(d.chunks(LANES)) {
            for ((a, &p), &d) in acc.iter_mut().zip(p).zip(d) {
                *a += p * d;
            }
        }
        let mut mean = T::ZERO;
        for a in acc {
            mean += a;
        }
        for (d, &p) in d.iter_mut().zip(p) {
            *d = p * (*d - mean) * scale;
        }
    }
}
