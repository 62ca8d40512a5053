//! 3×3 convolution of stride 1 by Winograd's minimal filtering F(2×2, 3×3): 16 multiplications for four
//! results of a channel instead of 36 (Lavin and Gray, "Fast Algorithms for Convolutional Neural
//! Networks", 2016).
//!
//! `Y = Aᵀ [ Σ_ci (G g Gᵀ) ⊙ (Bᵀ d B) ] A` for every 4×4 tile `d` of the padded input (tiles overlap by
//! two). The sum over channels is a matrix product for each of the 16 components, so the work runs in the
//! same register tile as the direct way; around it stand two transforms of additions only. F(4×4, 3×3)
//! would save more products, but its constants lose two to three digits of f32; this one loses about a bit.
//!
//! A task takes `run` neighbouring tiles through all three stages, so that what lies between them stays
//! in the second-level cache. Nothing here depends on the number of threads.

use rayon::prelude::*;

use super::conv::Filters;
use super::plan::Shape;
use super::real::{Real, Shared, uninit};
use super::simd::{Isa, isa};
use super::tile::{self, Terms, conv_tile};

/// The transforms once for each instruction set; the rest inlines into them.
macro_rules! compiled_for {
    ($module:ident, $features:literal) => {
        #[cfg(target_arch = "x86_64")]
        mod $module {
            use super::{Real, Segment, Tiles};

            #[target_feature(enable = $features)]
            pub(super) unsafe fn lower<T: Real>(t: &Tiles, s: Segment, x: &[T], to: &mut [T], l: &mut [T]) {
                super::lower(t, s, x, to, l);
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn raise<T: Real>(
                m: [&[T]; 16],
                odd: bool,
                shift: T,
                l: &mut [T],
                to: &mut [T],
            ) {
                super::raise(m, odd, shift, l, to);
            }
        }
    };
}
compiled_for!(wide, "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma");
compiled_for!(half, "avx2,fma");

/// Calls a transform compiled for the machine's widest registers.
macro_rules! dispatch {
    ($function:ident($($arg:expr),*)) => {
        // SAFETY: `isa()` has checked the instruction set.
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { wide::$function($($arg),*) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { half::$function($($arg),*) },
            _ => $function($($arg),*),
        }
    };
}

/// Components of a transformed tile.
const PARTS: usize = 16;
/// Tiles below which transforming the filters costs more than is saved (it does not depend on the
/// picture's size).
const FEW_TILES: usize = 192;
/// Channels below which the transforms of pictures do.
const FEW_CHANNELS: usize = 64;
/// Tiles in a row below which the transforms' loops are too short to be vector code.
const SHORT_ROW: usize = 12;
/// Bytes that a task's transformed input should take.
const CACHE: usize = 448 << 10;

/// Tiles of a convolution, in the order image, row, column.
#[derive(Clone, Copy)]
struct Tiles {
    shape: Shape,
    out: [usize; 2],
    /// Tiles in a column and in a row of one picture.
    rows: usize,
    columns: usize,
    /// Tiles a task takes: whole register tiles.
    run: usize,
}

/// Neighbouring tiles of one row of one picture.
#[derive(Clone, Copy)]
struct Segment {
    image: usize,
    row: usize,
    column: usize,
    len: usize,
    /// Position in the task's run.
    at: usize,
}

impl Tiles {
    fn new<T: Real>(shape: Shape) -> Self {
        let out = shape.out();
        let [rows, columns] = out.map(|n| n.div_ceil(2));
        let nr = conv_tile::<T>().1;
        let most = (CACHE / (PARTS * shape.channels * size_of::<T>()) / nr * nr).clamp(nr, 8 * nr);
        let run = most.min((shape.batch * rows * columns).next_multiple_of(nr));
        Self { shape, out, rows, columns, run }
    }

    fn count(&self) -> usize {
        self.shape.batch * self.rows * self.columns
    }

    /// The pieces of rows that make up tiles `from..to`.
    fn segments(self, from: usize, to: usize) -> impl Iterator<Item = Segment> {
        let mut next = from;
        std::iter::from_fn(move || {
            if next >= to {
                return None;
            }
            let (line, column) = (next / self.columns, next % self.columns);
            let len = (self.columns - column).min(to - next);
            let at = next - from;
            next += len;
            Some(Segment { image: line / self.rows, row: line % self.rows, column, len, at })
        })
    }
}

/// Whether this way is quicker than the direct one.
pub(super) fn pays(shape: &Shape, outputs: usize) -> bool {
    let tiles = shape.batch * shape.out().map(|n| n.div_ceil(2)).iter().product::<usize>();
    (shape.kernel, shape.stride, shape.dilation) == (3, 1, 1)
        && shape.before <= 2
        && shape.channels.min(outputs) >= FEW_CHANNELS
        && shape.out()[1] >= 2 * SHORT_ROW
        && tiles >= FEW_TILES
}

/// The convolution of `source` `[batch, inputs, H, W]`: `[batch, outputs, Ho, Wo]`.
pub(super) fn correlate<T: Real, F>(
    shape: Shape,
    source: &[T],
    filters: &Filters<F>,
    bias: Option<&[T]>,
) -> Vec<T>
where
    F: Fn(usize, usize, usize) -> T + Sync,
{
    let tiles = Tiles::new::<T>(shape);
    let mr = conv_tile::<T>().0;
    let blocks = filters.outputs.div_ceil(mr);
    let weights = transformed_filters(filters, blocks);
    let mut result = vec![T::ZERO; shape.batch * filters.outputs * tiles.out[0] * tiles.out[1]];
    let out = Shared::new(&mut result);
    let units = tiles.count().div_ceil(tiles.run);
    // With few units the output channels are split too; each part transforms the input for itself.
    let parts = (4 * rayon::current_num_threads()).div_ceil(units.max(1)).clamp(1, blocks.div_ceil(8));
    let per_part = blocks.div_ceil(parts);
    (0..units * parts).into_par_iter().for_each(|task| {
        let (from, first) = (task / parts * tiles.run, task % parts * per_part);
        let to = (from + tiles.run).min(tiles.count());
        let last = blocks.min(first + per_part);
        if first >= last {
            return;
        }
        T::with_scratch(|[input, products, lines]| {
            let input = uninit(input, PARTS * shape.channels * tiles.run);
            let products = uninit(products, PARTS * (last - first) * mr * tiles.run);
            let lines = uninit(lines, 18 * (tiles.columns + 1));
            for segment in tiles.segments(from, to) {
                dispatch!(lower(&tiles, segment, source, input, lines));
            }
            multiply(&tiles, to - from, &weights, blocks, first..last, input, products);
            let channels = first * mr..filters.outputs.min(last * mr);
            inverse_transform(&tiles, (from, to), products, channels, (filters.outputs, bias), out, lines);
        });
    });
    result
}

/// `G g Gᵀ` of every filter, as `[component][block][input][MR]`.
fn transformed_filters<T: Real, F>(filters: &Filters<F>, blocks: usize) -> Vec<T>
where
    F: Fn(usize, usize, usize) -> T + Sync,
{
    let mr = conv_tile::<T>().0;
    let block = filters.inputs * mr;
    let mut all = vec![T::ZERO; PARTS * blocks * block];
    let out = Shared::new(&mut all);
    (0..blocks).into_par_iter().for_each(|blk| {
        // SAFETY: every block has its own part of each component.
        let parts: [&mut [T]; PARTS] =
            std::array::from_fn(|p| unsafe { out.slice((p * blocks + blk) * block, block) });
        for i in 0..filters.inputs {
            // The same tap of all outputs of the block side by side, so that the sums are vector code.
            let mut taps = [[T::ZERO; MOST_ROWS]; 9];
            for m in 0..mr.min(filters.outputs - blk * mr) {
                for (t, tap) in taps.iter_mut().enumerate() {
                    tap[m] = (filters.at)(blk * mr + m, i, t);
                }
            }
            let lines = [0, 1, 2].map(|r| lift([taps[3 * r], taps[3 * r + 1], taps[3 * r + 2]]));
            for c in 0..4 {
                for (r, values) in lift([lines[0][c], lines[1][c], lines[2][c]]).iter().enumerate() {
                    parts[r * 4 + c][i * mr..][..mr].copy_from_slice(&values[..mr]);
                }
            }
        }
    });
    all
}

/// Most rows of a register tile.
const MOST_ROWS: usize = 8;

/// `G` times three numbers, for several outputs: `[g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2]`.
#[inline(always)]
fn lift<T: Real>(g: [[T; MOST_ROWS]; 3]) -> [[T; MOST_ROWS]; 4] {
    let half = T::from_f64(0.5);
    let sum: [T; MOST_ROWS] = std::array::from_fn(|m| half * (g[0][m] + g[2][m] + g[1][m]));
    let difference = std::array::from_fn(|m| half * (g[0][m] + g[2][m] - g[1][m]));
    [g[0], sum, difference, g[2]]
}

/// The 16 matrix products of a task: `products[component][channel][tile]`.
fn multiply<T: Real>(
    tiles: &Tiles,
    count: usize,
    weights: &[T],
    blocks: usize,
    range: std::ops::Range<usize>,
    input: &[T],
    products: &mut [T],
) {
    let (mr, nr) = conv_tile::<T>();
    let (inputs, run) = (tiles.shape.channels, tiles.run);
    assert!(input.len() >= PARTS * inputs * run && run.is_multiple_of(nr) && count <= run);
    assert!(
        products.len() >= PARTS * range.len() * mr * run && weights.len() == PARTS * blocks * inputs * mr
    );
    for part in 0..PARTS {
        let input = &input[part * inputs * run..][..inputs * run];
        for (i, blk) in range.clone().enumerate() {
            let a = &weights[(part * blocks + blk) * inputs * mr..][..inputs * mr];
            let rows = &mut products[(part * range.len() + i) * mr * run..][..mr * run];
            for q in (0..count).step_by(nr) {
                let terms = Terms {
                    steps: inputs,
                    a: a.as_ptr(),
                    a_row: 1,
                    a_term: mr,
                    b: input[q..].as_ptr(),
                    b_step: run,
                    offsets: &[0],
                };
                // SAFETY: `a` holds a block; q + nr <= run, so every row of `input` and of `rows` holds
                // the whole register tile.
                unsafe { tile::conv(terms, rows[q..].as_mut_ptr(), run) };
            }
        }
    }
}

/// `Bᵀ d B` of a segment's tiles: `input[component][channel][tile]`.
#[inline(always)]
fn lower<T: Real>(tiles: &Tiles, segment: Segment, source: &[T], input: &mut [T], lines: &mut [T]) {
    let Shape { channels, height, width, before, .. } = tiles.shape;
    let (n, depth) = (segment.len, channels * tiles.run);
    let (lines, pairs) = lines.split_at_mut(16 * n);
    let (even, odd) = pairs.split_at_mut(n + 1);
    let odd = &mut odd[..n + 1];
    for channel in 0..channels {
        let plane = &source[(segment.image * channels + channel) * height * width..][..height * width];
        for (r, line) in lines.chunks_exact_mut(4 * n).enumerate() {
            let row = (2 * segment.row + r).checked_sub(before).filter(|row| *row < height);
            let row = row.map_or(&[][..], |row| &plane[row * width..][..width]);
            deinterleave(row, 2 * segment.column, before, even, odd);
            across(even, odd, line);
        }
        for column in 0..4 {
            let at = |r: usize| &lines[(r * 4 + column) * n..][..n];
            let place = |r: usize| (r * 4 + column) * depth + channel * tiles.run + segment.at;
            down([at(0), at(1), at(2), at(3)], input, [0, 1, 2, 3].map(place));
        }
    }
}

/// Columns `first`, `first + 2`, … and the ones beside them of a padded row; zero outside of `row`.
#[inline(always)]
fn deinterleave<T: Real>(row: &[T], first: usize, before: usize, even: &mut [T], odd: &mut [T]) {
    let inside = |x: usize| x.checked_sub(before).and_then(|x| row.get(x)).copied().unwrap_or(T::ZERO);
    let n = even.len();
    // Only the first pair can lie in the padding before (it is at most two wide); then pairs are whole
    // until the row ends.
    (even[0], odd[0]) = (inside(first), inside(first + 1));
    let start = (first + 2 - before).min(row.len());
    let whole = ((row.len() - start) / 2).min(n - 1);
    let pairs = row[start..start + 2 * whole].chunks_exact(2);
    for ((pair, e), o) in pairs.zip(&mut even[1..]).zip(&mut odd[1..]) {
        (*e, *o) = (pair[0], pair[1]);
    }
    for i in whole + 1..n {
        (even[i], odd[i]) = (inside(first + 2 * i), inside(first + 2 * i + 1));
    }
}

/// `d B` for one row of tiles that overlap by two columns: `line[component][tile]`.
#[inline(always)]
fn across<T: Real>(even: &[T], odd: &[T], line: &mut [T]) {
    let n = even.len() - 1;
    let (a, b) = line.split_at_mut(2 * n);
    let ((l0, l1), (l2, l3)) = (a.split_at_mut(n), b.split_at_mut(n));
    let (odd, next_odd, next) = (&odd[..n], &odd[1..=n], &even[1..=n]);
    for i in 0..n {
        l0[i] = even[i] - next[i];
        l1[i] = odd[i] + next[i];
        l2[i] = next[i] - odd[i];
        l3[i] = odd[i] - next_odd[i];
    }
}

/// `Bᵀ` times four rows, to the four places.
#[inline(always)]
fn down<T: Real>(rows: [&[T]; 4], to: &mut [T], places: [usize; 4]) {
    let n = rows[0].len();
    let [d0, d1, d2, d3] = rows.map(|r| &r[..n]);
    to[places[0]..][..n].iter_mut().enumerate().for_each(|(i, v)| *v = d0[i] - d2[i]);
    to[places[1]..][..n].iter_mut().enumerate().for_each(|(i, v)| *v = d1[i] + d2[i]);
    to[places[2]..][..n].iter_mut().enumerate().for_each(|(i, v)| *v = d2[i] - d1[i]);
    to[places[3]..][..n].iter_mut().enumerate().for_each(|(i, v)| *v = d1[i] - d3[i]);
}

/// `Aᵀ m A` of the tiles `from..to` for the given output channels, with the bias, into the result.
fn inverse_transform<T: Real>(
    tiles: &Tiles,
    (from, to): (usize, usize),
    products: &[T],
    channels: std::ops::Range<usize>,
    (outputs, bias): (usize, Option<&[T]>),
    out: Shared<T>,
    lines: &mut [T],
) {
    let [ho, wo] = tiles.out;
    let held = products.len() / PARTS;
    for (i, channel) in channels.enumerate() {
        let shift = bias.map_or(T::ZERO, |b| b[channel]);
        for segment in tiles.segments(from, to) {
            let n = segment.len;
            let part = |p: usize| &products[p * held + i * tiles.run + segment.at..][..n];
            let (row, first) = (2 * segment.row, 2 * segment.column);
            for r in 0..2.min(ho - row) {
                let start = ((segment.image * outputs + channel) * ho + row + r) * wo + first;
                // SAFETY: segments and channels own disjoint pieces of rows.
                let to = unsafe { out.slice(start, (2 * n).min(wo - first)) };
                dispatch!(raise(std::array::from_fn(part), r == 1, shift, &mut lines[..4 * n], to));
            }
        }
    }
}

/// One row of pixels (the upper or the lower one) of `Aᵀ m A`.
#[inline(always)]
fn raise<T: Real>(m: [&[T]; PARTS], lower: bool, shift: T, lines: &mut [T], to: &mut [T]) {
    let n = m[0].len();
    for (column, line) in lines.chunks_exact_mut(n).enumerate() {
        up([m[column], m[4 + column], m[8 + column], m[12 + column]], !lower, line);
    }
    interleave(lines, shift, to);
}

/// A row of `Aᵀ` times the four rows of a column: the first or the second.
#[inline(always)]
fn up<T: Real>([m0, m1, m2, m3]: [&[T]; 4], first: bool, to: &mut [T]) {
    let n = to.len();
    let (m0, m1, m2, m3) = (&m0[..n], &m1[..n], &m2[..n], &m3[..n]);
    if first {
        (0..n).for_each(|i| to[i] = m0[i] + m1[i] + m2[i]);
    } else {
        (0..n).for_each(|i| to[i] = m1[i] - m2[i] - m3[i]);
    }
}

/// The same across columns, pixel by pixel.
#[inline(always)]
fn interleave<T: Real>(lines: &[T], shift: T, to: &mut [T]) {
    let n = lines.len() / 4;
    let (a, b) = lines.split_at(2 * n);
    let ((l0, l1), (l2, l3)) = (a.split_at(n), b.split_at(n));
    let even = |i: usize| l0[i] + l1[i] + l2[i] + shift;
    let odd = |i: usize| l1[i] - l2[i] - l3[i] + shift;
    let whole = to.len() / 2;
    for (i, pair) in to[..2 * whole].chunks_exact_mut(2).enumerate() {
        (pair[0], pair[1]) = (even(i), odd(i));
    }
    if let Some(last) = to[2 * whole..].first_mut() {
        *last = even(whole);
    }
}
