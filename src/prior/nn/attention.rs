//! Scaled dot-product attention in one operation, a block of queries and a chunk of keys at a time.
//!
//! Forward: the running maximum `m` and sum `l` of each row let a chunk's part of `O = softmax(scale Q K^T) V` be
//! added before the later chunks are known (Dao et al., FlashAttention), so that a block's numbers stay in the
//! second-level cache whatever the number of keys. Backward: with `P = exp(scale Q K^T - m) / l` again and gradient
//! `dO`, `dV = P^T dO`, `dP = dO V^T`, `dS = P (dP - dO . O)`, `dQ = scale dS K`, `dK = scale dS^T Q`.

use std::sync::OnceLock;

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::gemm::{Mat, Put, serial};
use super::pack::{Packed, pack, packed_len};
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
        return super::elsewhere::attention(q, k, v, heads, scale, causal);
    }
    tape::apply(Attention { heads, scale, causal, rows: OnceLock::new() }, &[q, k, v])
}

struct Attention {
    heads: usize,
    scale: f64,
    causal: bool,
    /// What the forward pass leaves to the backward one: of each row the largest exponent, then of each row
    /// one over the sum. [2, B, H, N]
    rows: OnceLock<Vec<f64>>,
}

/// Queries of a block among many: whole tiles of every instruction set (4, 6 or 8 rows).
const BLOCK: usize = 48;

/// Queries that are one block when there are no more.
const BLOCK_MAX: usize = 64;

/// Elements of a packed chunk of keys or values: a few of these and a block's exponents fit the second level.
const CHUNK_ELEMENTS: usize = 20_480;

/// Sizes of one call. They depend on shapes only, so that the sums do too.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    /// Elements of a head.
    depth: usize,
    /// Queries of a block.
    block: usize,
    /// Keys of a chunk.
    chunk: usize,
}

/// One chunk of keys, or one block of queries: the first and how many.
type Span = (usize, usize);

impl Sizes {
    fn new<T>(q: &Arg<T>, k: &Arg<T>, heads: usize) -> Self {
        let (queries, keys, depth) = (q.dims[1], k.dims[1], q.dims[2] / heads);
        let chunk = (CHUNK_ELEMENTS / depth / 64 * 64).clamp(64, 512).min(keys);
        let block = if queries <= BLOCK_MAX { queries } else { BLOCK };
        Self { batch: q.dims[0], queries, keys, heads, depth, block, chunk }
    }

    fn width(&self) -> usize {
        self.heads * self.depth
    }

    /// From one row of exponents to the next: not a power of two, whose rows would share cache sets.
    fn stride(&self) -> usize {
        self.chunk + 16
    }

    /// Where head `h` of row `row` of image `b` starts in a tensor with `rows` rows per image.
    fn at(&self, rows: usize, (b, h): (usize, usize), row: usize) -> usize {
        (b * rows + row) * self.width() + h * self.depth
    }

    /// One head of one image, from `row` on.
    fn view<'a, T>(&self, x: &'a [T], rows: usize, bh: (usize, usize), row: usize) -> Mat<'a, T> {
        Mat::new(&x[self.at(rows, bh, row)..], self.width())
    }

    /// The chunks of keys that a block of queries sees.
    fn chunks(self, (row, rows): Span, causal: bool) -> impl Iterator<Item = Span> {
        let seen = if causal { row + rows } else { self.keys };
        (0..seen).step_by(self.chunk).map(move |at| (at, self.chunk.min(self.keys - at)))
    }

    /// The blocks of queries.
    fn blocks(self) -> impl Iterator<Item = Span> {
        (0..self.queries).step_by(self.block).map(move |at| (at, self.block.min(self.queries - at)))
    }

    /// Packs the keys of one head chunk by chunk, as rows ([chunk, depth]) or `transposed`.
    fn pack<'a, T: Real>(
        &self,
        keys: Mat<'_, T>,
        transposed: bool,
        mut buffer: &'a mut [T],
    ) -> Vec<Packed<'a, T>> {
        self.chunks((0, self.queries), false)
            .map(|(at, len)| {
                let part = keys.rows_from(at);
                let (part, k, n) =
                    if transposed { (part.t(), self.depth, len) } else { (part, len, self.depth) };
                let (mine, rest) = std::mem::take(&mut buffer).split_at_mut(packed_len::<T>(k, n));
                buffer = rest;
                pack(part, k, n, mine)
            })
            .collect()
    }

    /// Elements that [`Self::pack`] needs.
    fn packed<T: Real>(&self, transposed: bool) -> usize {
        let size = |len| {
            if transposed { packed_len::<T>(self.depth, len) } else { packed_len::<T>(len, self.depth) }
        };
        self.chunks((0, self.queries), false).map(|(_, len)| size(len)).sum()
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
        let mut kept = vec![0.0; 2 * s.batch * s.heads * s.queries];
        let (out, rows) = (Shared::new(&mut result), Shared::new(&mut kept));
        // Few heads: their blocks of queries are shared out too, each part packing the keys again.
        let blocks: Vec<Span> = s.blocks().collect();
        let pairs = s.batch * s.heads;
        let parts = (2 * rayon::current_num_threads()).div_ceil(pairs).clamp(1, blocks.len());
        let per_part = blocks.len().div_ceil(parts);
        (0..pairs * parts).into_par_iter().for_each(|task| {
            let pair = task / parts;
            let bh = (pair / s.heads, pair % s.heads);
            let mine = blocks.chunks(per_part).nth(task % parts).unwrap_or_default();
            T::with_scratch(|[scratch, ..]| {
                let sizes =
                    [s.packed::<T>(true), s.packed::<T>(false), s.block * s.stride(), s.block * s.depth];
                let [keys, values, p, o] = carve(uninit(scratch, sizes.iter().sum()), sizes);
                let keys = s.pack(s.view(k.data, s.keys, bh, 0), true, keys);
                let values = s.pack(s.view(v.data, s.keys, bh, 0), false, values);
                for &(row, count) in mine {
                    let o = &mut o[..count * s.depth];
                    let state = self.block(
                        &s,
                        s.view(q.data, s.queries, bh, row),
                        (&keys, &values),
                        (row, count),
                        p,
                        o,
                    );
                    // SAFETY: every task has its own head and queries.
                    unsafe {
                        s.put(o, out, s.queries, bh, row);
                        let at = pair * s.queries + row;
                        for (i, slot) in rows.slice(at, count).iter_mut().enumerate() {
                            *slot = state[i].0.to_f64();
                        }
                        for (i, slot) in rows.slice(pairs * s.queries + at, count).iter_mut().enumerate() {
                            *slot = state[i].1.to_f64();
                        }
                    }
                }
            });
        });
        self.rows.get_or_init(|| kept);
        Ok((result, q.dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        out: &[T],
        grad: &[T],
        needs: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let [q, k, v] = args else { bail!("attention: three arguments") };
        let Some(rows) = self.rows.get() else { bail!("attention: backward without forward") };
        let s = Sizes::new(q, k, self.heads);
        let mut grads: Vec<Vec<T>> = args.iter().map(|a| vec![T::ZERO; a.data.len()]).collect();
        let shared: Vec<Shared<T>> = grads.iter_mut().map(|g| Shared::new(g)).collect();
        let pass = Backward { s, q: q.data, k: k.data, v: v.data, out, grad, needs, rows, attention: self };
        (0..s.batch * s.heads).into_par_iter().for_each(|pair| {
            T::with_scratch(|[scratch, ..]| pass.head((pair / s.heads, pair % s.heads), scratch, &shared));
        });
        Ok(grads.into_iter().zip(needs).map(|(g, &needed)| needed.then_some(g)).collect())
    }
}

impl Attention {
    /// The exponents `q k^T` of a block and a chunk into `p` [rows][stride].
    fn exponents<T: Real>(s: &Sizes, q: Mat<'_, T>, keys: &Packed<'_, T>, (rows, len): Span, p: &mut [T]) {
        let p = &mut p[..rows * s.stride()];
        serial((rows, len, s.depth), q, Ok(keys), p, s.stride(), Put::Set);
    }

    /// How many of a chunk's keys a query sees.
    fn seen(&self, query: usize, (at, len): Span) -> usize {
        if self.causal { (query + 1).saturating_sub(at).min(len) } else { len }
    }

    /// The result of a block of queries into `o` [rows][depth], and of each row the largest exponent and one
    /// over the sum.
    fn block<T: Real>(
        &self,
        s: &Sizes,
        q: Mat<'_, T>,
        (keys, values): (&[Packed<'_, T>], &[Packed<'_, T>]),
        (row, rows): Span,
        p: &mut [T],
        o: &mut [T],
    ) -> [(T, T); BLOCK_MAX] {
        let scale = T::from_f64(self.scale);
        let mut state = [(T::from_f64(f64::NEG_INFINITY), T::ZERO); BLOCK_MAX];
        o.fill(T::ZERO);
        for (c, chunk) in s.chunks((row, rows), self.causal).enumerate() {
            Self::exponents(s, q, &keys[c], (rows, chunk.1), p);
            for (i, p) in p.chunks_exact_mut(s.stride()).take(rows).enumerate() {
                let seen = self.seen(row + i, chunk);
                if seen > 0 {
                    let fade = softmax_part(&mut p[..seen], scale, &mut state[i]);
                    if fade != T::ONE {
                        o[i * s.depth..][..s.depth].iter_mut().for_each(|o| *o *= fade);
                    }
                }
                p[seen..chunk.1].fill(T::ZERO);
            }
            serial((rows, s.depth, chunk.1), Mat::new(p, s.stride()), Ok(&values[c]), o, s.depth, Put::Add);
        }
        for (o, (_, sum)) in o.chunks_exact_mut(s.depth).zip(&mut state) {
            *sum = T::ONE / *sum;
            o.iter_mut().for_each(|o| *o *= *sum);
        }
        state
    }
}

/// What all heads of a backward pass share.
struct Backward<'a, T> {
    s: Sizes,
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    out: &'a [T],
    grad: &'a [T],
    needs: &'a [bool],
    rows: &'a [f64],
    attention: &'a Attention,
}

impl<T: Real> Backward<'_, T> {
    /// All gradients of one head of one image.
    fn head(&self, bh: (usize, usize), scratch: &mut Vec<T>, grads: &[Shared<T>]) {
        let s = &self.s;
        let (square, side, all) = (s.block * s.stride(), s.block * s.depth, s.keys * s.depth);
        let (wide, tall) = (s.packed::<T>(true), s.packed::<T>(false));
        let block = packed_len::<T>(s.block, s.depth);
        let sizes = [wide, wide, tall, square, square, side, all, all, block, block];
        let [kt, vt, k, p, ds, gq, gk, gv, packed_q, packed_go] =
            carve(uninit(scratch, sizes.iter().sum()), sizes);
        let keys = s.view(self.k, s.keys, bh, 0);
        let kt = s.pack(keys, true, kt);
        let vt = s.pack(s.view(self.v, s.keys, bh, 0), true, vt);
        let k = if self.needs[0] { s.pack(keys, false, k) } else { Vec::new() };
        gk.fill(T::ZERO);
        gv.fill(T::ZERO);
        for (row, rows) in s.blocks() {
            let q = s.view(self.q, s.queries, bh, row);
            let go = s.view(self.grad, s.queries, bh, row);
            let packed_q = pack(q, rows, s.depth, packed_q);
            let packed_go = pack(go, rows, s.depth, packed_go);
            let gq = &mut gq[..rows * s.depth];
            gq.fill(T::ZERO);
            for (c, (at, len)) in s.chunks((row, rows), self.attention.causal).enumerate() {
                let part = at * s.depth..(at + len) * s.depth;
                Attention::exponents(s, q, &kt[c], (rows, len), p);
                Attention::exponents(s, go, &vt[c], (rows, len), ds);
                self.slopes(bh, (row, rows), (at, len), p, ds);
                let (p, ds) = (Mat::new(&*p, s.stride()), Mat::new(&*ds, s.stride()));
                if self.needs[2] {
                    let gv = &mut gv[part.clone()];
                    serial((len, s.depth, rows), p.t(), Ok(&packed_go), gv, s.depth, Put::Add);
                }
                if self.needs[1] {
                    let gk = &mut gk[part];
                    serial((len, s.depth, rows), ds.t(), Ok(&packed_q), gk, s.depth, Put::Add);
                }
                if self.needs[0] {
                    serial((rows, s.depth, len), ds, Ok(&k[c]), gq, s.depth, Put::Add);
                }
            }
            // SAFETY: every task has its own head and image.
            unsafe { s.put(gq, grads[0], s.queries, bh, row) };
        }
        // SAFETY: as above.
        unsafe {
            s.put(gk, grads[1], s.keys, bh, 0);
            s.put(gv, grads[2], s.keys, bh, 0);
        }
    }

    /// From exponents to probabilities, and from dP to scale dS, of a block and a chunk, in place.
    fn slopes(&self, bh: (usize, usize), (row, rows): Span, chunk: Span, p: &mut [T], ds: &mut [T]) {
        let (s, scale) = (&self.s, T::from_f64(self.attention.scale));
        let (first, sums) = self.rows.split_at(s.batch * s.heads * s.queries);
        for i in 0..rows {
            let at = (bh.0 * s.heads + bh.1) * s.queries + row + i;
            let here = s.at(s.queries, bh, row + i);
            let mean = dot(&self.out[here..][..s.depth], &self.grad[here..][..s.depth]);
            let state = (T::from_f64(first[at]), T::from_f64(sums[at]), mean);
            let seen = self.attention.seen(row + i, chunk);
            let (p, ds) = (&mut p[i * s.stride()..][..chunk.1], &mut ds[i * s.stride()..][..chunk.1]);
            softmax_slope(&mut p[..seen], &mut ds[..seen], scale, state);
            p[seen..].fill(T::ZERO);
            ds[seen..].fill(T::ZERO);
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
    /// `exp(scale x - max)` in place, with the running maximum and sum of a row brought up to date: returns
    /// what earlier parts of the row's result have to be multiplied with.
    fn softmax_part<T: Real>(x: &mut [T], scale: T, state: &mut (T, T)) -> T {
        // The sign of the scale decides which end is the largest exponent.
        let mut top = [state.0; LANES];
        let whole = x.chunks_exact(LANES);
        for &v in whole.remainder() {
            let v = v * scale;
            top[0] = if v > top[0] { v } else { top[0] };
        }
        for chunk in whole {
            for (t, &v) in top.iter_mut().zip(chunk) {
                let v = v * scale;
                *t = if v > *t { v } else { *t };
            }
        }
        let mut max = state.0;
        for t in top {
            max = if t > max { t } else { max };
        }
        let mut acc = [T::ZERO; LANES];
        let mut whole = x.chunks_exact_mut(LANES);
        for chunk in &mut whole {
            for (a, v) in acc.iter_mut().zip(chunk) {
                *v = (*v * scale - max).exp();
                *a += *v;
            }
        }
        for v in whole.into_remainder() {
            *v = (*v * scale - max).exp();
            acc[0] += *v;
        }
        let fade = if max == state.0 { T::ONE } else { (state.0 - max).exp() };
        let mut total = state.1 * fade;
        for a in acc {
            total += a;
        }
        *state = (max, total);
        fade
    }
}

multiversion! {
    /// From exponents to probabilities, and from dP to scale dS, in place, with the row's largest exponent, one
    /// over its sum, and `dO . O`.
    fn softmax_slope<T: Real>(p: &mut [T], d: &mut [T], scale: T, row: (T, T, T)) {
        let (max, norm, mean) = row;
        for (p, d) in p.iter_mut().zip(d) {
            *p = (*p * scale - max).exp() * norm;
            *d = *p * (*d - mean) * scale;
        }
    }
}

multiversion! {
    /// The inner product of two rows.
    fn dot<T: Real>(a: &[T], b: &[T]) -> T {
        let mut acc = [T::ZERO; LANES];
        let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        for (acc, (&a, &b)) in acc.iter_mut().zip(a.remainder().iter().zip(b.remainder())) {
            *acc = a * b;
        }
        for (a, b) in a.zip(b) {
            for ((acc, &a), &b) in acc.iter_mut().zip(a).zip(b) {
                *acc += a * b;
            }
        }
        let mut sum = T::ZERO;
        for a in acc {
            sum += a;
        }
        sum
    }
}
