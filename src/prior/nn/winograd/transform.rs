//! `Bᵀ d B` of a block's tiles and `Aᵀ m A` back, with channels innermost.

use std::ops::Range;

use super::{Block, PARTS, Tiles};
use crate::prior::nn::plan::Shape;
use crate::prior::nn::real::{Real, Shared, uninit, zeroed};
use crate::prior::nn::simd::{Isa, Simd, isa};

/// Elements of the machine's registers.
pub(super) fn lanes<T: Real>() -> usize {
    match isa() {
        Isa::Avx512 => T::Wide::LANES,
        Isa::Avx2 => T::Half::LANES,
        Isa::Baseline => T::Base::LANES,
    }
}

/// The transforms once for each instruction set; the rest inlines into them.
macro_rules! compiled_for {
    ($module:ident, $features:literal, $set:ident) => {
        #[cfg(target_arch = "x86_64")]
        mod $module {
            use super::{Down, Real, Up};

            #[target_feature(enable = $features)]
            pub(super) unsafe fn down<T: Real>(d: Down<T>) {
                // SAFETY: the caller's promise.
                unsafe { super::down::<T::$set>(d) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn up<T: Real>(u: Up<T>) {
                // SAFETY: the caller's promise.
                unsafe { super::up::<T::$set>(u) }
            }
        }
    };
}
compiled_for!(wide, "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma", Wide);
compiled_for!(half, "avx2,fma", Half);

/// Calls a transform compiled for the machine's widest registers.
macro_rules! dispatch {
    ($function:ident($arg:expr)) => {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => wide::$function($arg),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => half::$function($arg),
            _ => $function::<T::Base>($arg),
        }
    };
}

/// A row of tiles on the way in.
#[derive(Clone, Copy)]
struct Down<T> {
    /// The first tile's first pixel; its next row is `row` elements away.
    from: *const T,
    row: usize,
    /// The first tile's first component; the next one is `deep` elements away.
    to: *mut T,
    deep: usize,
    tiles: usize,
    channels: usize,
}

/// `Bᵀ d B`: rows first (only two of them are needed for one of the result), then columns.
#[inline(always)]
unsafe fn down<S: Simd>(d: Down<S::T>) {
    // SAFETY: the caller has made room for all of it.
    unsafe {
        for tile in 0..d.tiles {
            let from = d.from.add(2 * tile * d.channels);
            let to = d.to.add(tile * d.channels);
            for c in (0..d.channels).step_by(S::LANES) {
                let (from, to) = (from.add(c), to.add(c));
                row_in::<S, false>(&d, from, [0, 2], to);
                row_in::<S, true>(&d, from, [1, 2], to.add(4 * d.deep));
                row_in::<S, false>(&d, from, [2, 1], to.add(8 * d.deep));
                row_in::<S, false>(&d, from, [1, 3], to.add(12 * d.deep));
            }
        }
    }
}

/// A row of `Bᵀ d`, the sum or the difference of two rows of pixels, times `B`.
#[inline(always)]
unsafe fn row_in<S: Simd, const SUM: bool>(
    d: &Down<S::T>,
    from: *const S::T,
    rows: [usize; 2],
    to: *mut S::T,
) {
    // SAFETY: as in [`down`].
    unsafe {
        let [a, b] = rows.map(|r| from.add(r * d.row));
        let mut t = [S::splat(S::T::ZERO); 4];
        for (x, t) in t.iter_mut().enumerate() {
            let (a, b) = (S::load(a.add(x * d.channels)), S::load(b.add(x * d.channels)));
            *t = if SUM { S::add(a, b) } else { S::sub(a, b) };
        }
        S::store(to, S::sub(t[0], t[2]));
        S::store(to.add(d.deep), S::add(t[1], t[2]));
        S::store(to.add(2 * d.deep), S::sub(t[2], t[1]));
        S::store(to.add(3 * d.deep), S::sub(t[1], t[3]));
    }
}

/// Transforms a block of the source: `to[component][tile][channel]`, components `deep` elements apart.
pub(super) fn lower<T: Real>(
    tiles: &Tiles,
    block: Block,
    source: &[T],
    patch: &mut Vec<T>,
    to: &mut [T],
    deep: usize,
) {
    let channels = tiles.inputs_padded;
    let (rows, columns) = (2 * block.rows + 2, 2 * block.columns + 2);
    assert!(to.len() >= PARTS * deep && deep >= block.count() * channels);
    let patch = zeroed(patch, block.images * rows * columns * channels);
    turn_in(tiles, block, source, patch);
    for line in 0..block.images * block.rows {
        let (n, row) = (line / block.rows, line % block.rows);
        let way = Down {
            from: patch[(n * rows + 2 * row) * columns * channels..].as_ptr(),
            row: columns * channels,
            to: to[line * block.columns * channels..].as_mut_ptr(),
            deep,
            tiles: block.columns,
            channels,
        };
        // SAFETY: the patch holds four rows from there on, `to` all components by the assertion; `isa()` has
        // checked the instruction set.
        unsafe { dispatch!(down(way)) };
    }
}

/// Channels turned together.
const STRIP: usize = 8;

/// Copies a block's pixels with channels innermost into a patch of zeros.
fn turn_in<T: Real>(tiles: &Tiles, block: Block, source: &[T], patch: &mut [T]) {
    let Shape { channels, height, width, before, .. } = tiles.shape;
    let (rows, columns) = (2 * block.rows + 2, 2 * block.columns + 2);
    let depth = tiles.inputs_padded;
    // Columns of the source that the block sees, and where the first of them lies in the patch.
    let first = (2 * block.column).saturating_sub(before);
    let last = (2 * block.column + columns).saturating_sub(before).min(width);
    let shift = first + before - 2 * block.column;
    for n in 0..block.images {
        for r in 0..rows {
            let Some(y) = (2 * block.row + r).checked_sub(before).filter(|y| *y < height) else { continue };
            let to = &mut patch[((n * rows + r) * columns + shift) * depth..];
            let at = (block.image + n) * channels * height * width + y * width;
            for c in (0..channels).step_by(STRIP) {
                let count = STRIP.min(channels - c);
                let line = |i: usize| &source[at + (c + i.min(count - 1)) * height * width..][first..last];
                let lines: [&[T]; STRIP] = std::array::from_fn(line);
                for (x, to) in to.chunks_mut(depth).take(last - first).enumerate() {
                    let values: [T; STRIP] = lines.map(|line| line[x]);
                    to[c..c + count].copy_from_slice(&values[..count]);
                }
            }
        }
    }
}

/// A row of tiles on the way out.
#[derive(Clone, Copy)]
struct Up<T> {
    /// The first tile's first component; the next one is `high` elements away, the next tile `width`.
    from: *const T,
    high: usize,
    width: usize,
    /// The first pixel of the upper row; the lower one is `row` elements away.
    to: *mut T,
    row: usize,
    shifts: *const T,
    tiles: usize,
    channels: usize,
}

/// `Aᵀ m A`, plus the bias.
#[inline(always)]
unsafe fn up<S: Simd>(u: Up<S::T>) {
    // SAFETY: the caller has made room for all of it.
    unsafe {
        for tile in 0..u.tiles {
            let from = u.from.add(tile * u.width);
            let to = u.to.add(2 * tile * u.channels);
            for c in (0..u.channels).step_by(S::LANES) {
                let shift = S::load(u.shifts.add(c));
                let (from, to) = (from.add(c), to.add(c));
                row_out::<S, true>(&u, from, shift, to);
                row_out::<S, false>(&u, from.add(4 * u.high), shift, to.add(u.row));
            }
        }
    }
}

/// A row of `Aᵀ m` (the upper one: the sum of three rows from `from` on), times `A`, plus the bias.
#[inline(always)]
unsafe fn row_out<S: Simd, const UPPER: bool>(u: &Up<S::T>, from: *const S::T, shift: S::V, to: *mut S::T) {
    // SAFETY: as in [`up`].
    unsafe {
        let mut t = [S::splat(S::T::ZERO); 4];
        for (x, t) in t.iter_mut().enumerate() {
            let at = from.add(x * u.high);
            let (a, b, c) = (S::load(at), S::load(at.add(4 * u.high)), S::load(at.add(8 * u.high)));
            *t = if UPPER { S::add(S::add(a, b), c) } else { S::sub(S::sub(a, b), c) };
        }
        S::store(to, S::add(S::add(S::add(t[0], t[1]), t[2]), shift));
        S::store(to.add(u.channels), S::add(S::sub(S::sub(t[1], t[2]), t[3]), shift));
    }
}

/// Transforms a block's products `[component][tile][width]` (components `high` elements apart) for the output
/// `channels` that they hold, into the result.
#[expect(clippy::too_many_arguments, reason = "the state of one loop nest")]
pub(super) fn raise<T: Real>(
    tiles: &Tiles,
    block: Block,
    products: &[T],
    (high, width): (usize, usize),
    channels: Range<usize>,
    shifts: &[T],
    patch: &mut Vec<T>,
    out: Shared<T>,
) {
    assert!(products.len() >= PARTS * high && high >= block.count() * width && width >= channels.len());
    assert!(shifts.len() >= channels.start + width);
    let row = 2 * block.columns * width;
    let patch = uninit(patch, 2 * row);
    for line in 0..block.images * block.rows {
        let way = Up {
            from: products[line * block.columns * width..].as_ptr(),
            high,
            width,
            to: patch.as_mut_ptr(),
            row,
            shifts: shifts[channels.start..].as_ptr(),
            tiles: block.columns,
            channels: width,
        };
        // SAFETY: the patch holds two rows of pixels, `products` all components by the assertion; `isa()` has
        // checked the instruction set.
        unsafe { dispatch!(up(way)) };
        turn_out(tiles, block, line, patch, width, channels.clone(), out);
    }
}

/// Two rows of pixels, channels innermost, to their places in the result.
fn turn_out<T: Real>(
    tiles: &Tiles,
    block: Block,
    line: usize,
    patch: &[T],
    width: usize,
    channels: Range<usize>,
    out: Shared<T>,
) {
    let [ho, wo] = tiles.out;
    let (image, row) = (block.image + line / block.rows, 2 * (block.row + line % block.rows));
    let first = 2 * block.column;
    let count = (2 * block.columns).min(wo - first);
    for r in 0..2.min(ho - row) {
        let from = &patch[r * 2 * block.columns * width..][..count * width];
        for (i, channel) in channels.clone().enumerate() {
            let start = ((image * tiles.outputs + channel) * ho + row + r) * wo + first;
            // SAFETY: blocks and channels own disjoint pieces of rows.
            let to = unsafe { out.slice(start, count) };
            for (x, to) in to.iter_mut().enumerate() {
                *to = from[x * width + i];
            }
        }
    }
}
