//! Weight gradient of a convolution: for each tap, a matrix product over pixels.
//!
//! `gw[co, ci, t] = sum_q g[co, q] x[ci, q + offset_t]` over the padded grid of [`super::plan`], with g zero
//! outside the result. Both are packed with channels innermost, so that a tap is only a shift of the
//! packed input's address and no vector is reduced across its lanes.

use rayon::prelude::*;

use super::plan::{Plan, Unit};
use super::real::{Real, Shared, zeroed};
use super::tile::{self, Terms, gemm_tile};

/// Units are summed in at most this many partial gradients, a number that does not depend on threads.
const PARTIALS: usize = 8;
/// Elements that all partial gradients together may take.
const PARTIAL_ELEMENTS: usize = 4 << 20;
/// Pixels per pass over the taps: what stays in the first-level cache.
const RUN: usize = 256;

/// The gradient [Co, Ci, k, k] for input `x` and output gradient `g` [B, Co, Ho, Wo].
pub(crate) fn weight_gradient<T: Real>(plan: &Plan, x: &[T], g: &[T], co: usize) -> Vec<T> {
    let (mr, nr) = gemm_tile::<T>();
    let ci = plan.shape.channels;
    let taps = plan.shape.kernel * plan.shape.kernel;
    let units = plan.units();
    let (in_blocks, out_blocks) = (ci.div_ceil(mr), co.div_ceil(nr));
    // A partial gradient is [in block][out block][tap][MR][NR].
    let tile = taps * mr * nr;
    let size = in_blocks * out_blocks * tile;
    let partials = PARTIALS.min(PARTIAL_ELEMENTS / size.max(1)).clamp(1, units.len().max(1));
    let per_partial = units.len().div_ceil(partials);
    let partials = units.len().div_ceil(per_partial.max(1));
    // Splitting the input channels gives more tasks without changing any sum.
    let parts = (2 * rayon::current_num_threads()).div_ceil(partials.max(1)).clamp(1, in_blocks);
    let blocks = in_blocks.div_ceil(parts);
    let parts = in_blocks.div_ceil(blocks);
    let mut sums = vec![T::ZERO; partials * size];
    let shared = Shared::new(&mut sums);
    (0..partials * parts).into_par_iter().for_each(|task| {
        let (partial, first) = (task / parts, task % parts * blocks);
        let count = blocks.min(in_blocks - first);
        let len = out_blocks * tile;
        // SAFETY: a task owns its input blocks of its partial gradient.
        let sums = unsafe { shared.slice(partial * size + first * len, count * len) };
        let mine = units.iter().skip(partial * per_partial).take(per_partial);
        T::with_scratch(|[a, b, _]| {
            for &unit in mine {
                let a = pack_input(plan, unit, x, first * mr..ci.min((first + count) * mr), a);
                let b = pack_gradient(plan, unit, g, co, b);
                accumulate(plan, unit, a, b, (count, out_blocks), sums);
            }
        });
    });
    gather(&sums, (partials, size), (co, ci, taps))
}

/// Adds the partial gradients in order and brings them into the weights' order.
fn gather<T: Real>(
    sums: &[T],
    (partials, size): (usize, usize),
    (co, ci, taps): (usize, usize, usize),
) -> Vec<T> {
    let (mr, nr) = gemm_tile::<T>();
    let out_blocks = co.div_ceil(nr);
    let mut gw = vec![T::ZERO; co * ci * taps];
    gw.par_chunks_exact_mut(ci * taps).enumerate().for_each(|(o, row)| {
        for (i, cell) in row.chunks_exact_mut(taps).enumerate() {
            let at = ((i / mr * out_blocks + o / nr) * taps * mr + i % mr) * nr + o % nr;
            for p in 0..partials {
                for (t, w) in cell.iter_mut().enumerate() {
                    *w += sums[p * size + at + t * mr * nr];
                }
            }
        }
    });
    gw
}

/// The unit's padded input, channels `range`, as [block][phase][position][MR].
fn pack_input<'a, T: Real>(
    plan: &Plan,
    unit: Unit,
    x: &[T],
    range: std::ops::Range<usize>,
    buffer: &'a mut Vec<T>,
) -> &'a [T] {
    let mr = gemm_tile::<T>().0;
    let (ci, size) = (plan.shape.channels, plan.shape.height * plan.shape.width);
    let depth = plan.phases() * plan.plane * mr;
    let blocks = range.len().div_ceil(mr);
    let buffer = zeroed(buffer, blocks * depth);
    plan.copies(unit, |c| {
        for (blk, to) in buffer.chunks_exact_mut(depth).enumerate() {
            let first = range.start + blk * mr;
            let count = mr.min(range.end - first);
            let source = &x[(c.image * ci + first) * size..(c.image * ci + first + count) * size];
            for i in 0..c.count {
                let to = &mut to[(c.to + i * c.gap) * mr..][..count];
                for (m, t) in to.iter_mut().enumerate() {
                    *t = source[m * size + c.from + i * c.step];
                }
            }
        }
    });
    buffer
}

/// The unit's output gradient on the padded grid as [block][position][NR], zero in the padding.
fn pack_gradient<'a, T: Real>(
    plan: &Plan,
    unit: Unit,
    g: &[T],
    co: usize,
    buffer: &'a mut Vec<T>,
) -> &'a [T] {
    let nr = gemm_tile::<T>().1;
    let [ho, wo] = plan.out;
    let (run, pitch) = (plan.run(unit.images, unit.rows), plan.pitch(unit.images));
    let buffer = zeroed(buffer, co.div_ceil(nr) * run * nr);
    for (blk, to) in buffer.chunks_exact_mut(run * nr).enumerate() {
        let count = nr.min(co - blk * nr);
        for n in 0..unit.images {
            let first = (unit.image + n) * co + blk * nr;
            let source = &g[first * ho * wo..(first + count) * ho * wo];
            for y in 0..unit.rows {
                let to = &mut to[(y * pitch + plan.column(n)) * nr..][..wo * nr];
                for m in 0..count {
                    let from = &source[(m * ho + unit.row + y) * wo..][..wo];
                    for (x, &f) in from.iter().enumerate() {
                        to[x * nr + m] = f;
                    }
                }
            }
        }
    }
    buffer
}

/// Adds one unit's products to the partial gradient.
fn accumulate<T: Real>(
    plan: &Plan,
    unit: Unit,
    a: &[T],
    b: &[T],
    (ins, outs): (usize, usize),
    sums: &mut [T],
) {
    let (mr, nr) = gemm_tile::<T>();
    let run = plan.run(unit.images, unit.rows);
    let offsets = plan.taps(unit.images);
    let kernel = tile::gemm::<T>(false);
    let depth = plan.phases() * plan.plane * mr;
    let reach = offsets.iter().max().copied().unwrap_or(0);
    assert!((reach + run) * mr <= depth && a.len() == ins * depth, "weight gradient out of bounds");
    assert!(b.len() == outs * run * nr && sums.len() == ins * outs * offsets.len() * mr * nr);
    for q in (0..run).step_by(RUN) {
        let steps = RUN.min(run - q);
        for out in 0..outs {
            for i in 0..ins {
                for (t, &offset) in offsets.iter().enumerate() {
                    let terms = Terms {
                        steps,
                        a: a[i * depth + (q + offset) * mr..].as_ptr(),
                        a_row: 1,
                        a_term: mr,
                        b: b[(out * run + q) * nr..].as_ptr(),
                        b_step: nr,
                    };
                    let to = &mut sums[((i * outs + out) * offsets.len() + t) * mr * nr..][..mr * nr];
                    // SAFETY: the bounds asserted above hold for every block, tap and run.
                    unsafe { kernel(terms, to.as_mut_ptr(), nr, mr, true) };
                }
            }
        }
    }
}
