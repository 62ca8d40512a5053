//! How a convolution's input lies in its padded buffer.
//!
//! The output of a stride-1 convolution, flattened over a zero-padded grid of row pitch P, is
//! `out[q] = sum_{ky,kx} w[ky,kx] x[q + ky P + kx]`: every tap is the same contiguous run of pixels,
//! shifted. So vectors load straight from the padded rows and nothing is unfolded; the few positions
//! that fall into the padding are computed and dropped.
//!
//! - Small images lie side by side in one buffer (`group` of them), so that the runs stay long; the
//!   padding between two of them is shared.
//! - With stride s, the padded input is split into s x s *phases* (even and odd rows and columns for
//!   s = 2), each a buffer of its own: tap (ky, kx) reads phase (ky mod s, kx mod s), shifted by
//!   (ky / s, kx / s), and the runs stay contiguous.
//! - A *dilated* source (zeros between its pixels) turns the input gradient of a strided convolution into
//!   a stride-1 convolution.
//! - Large images are cut into bands of rows, so that a buffer fits the second-level cache.
//!
//! Nothing here depends on the number of threads.

use super::real::Real;
use super::tile::conv_tile;

/// Bytes that a task's padded input may take.
const CACHE: usize = 384 << 10;
/// Pixels worth laying side by side.
const RUN: usize = 1000;

/// Sizes of a convolution, seen from its source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Images.
    pub(crate) batch: usize,
    /// Channels of the source.
    pub(crate) channels: usize,
    /// Rows and columns of the source.
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Distance between source pixels in the padded grid (1: dense).
    pub(crate) dilation: usize,
    /// Zero rows (columns) before and after.
    pub(crate) before: usize,
    pub(crate) after: [usize; 2],
    /// Filter size.
    pub(crate) kernel: usize,
    /// Step of the filter over the padded grid.
    pub(crate) stride: usize,
}

impl Shape {
    /// Rows and columns of the padded grid.
    fn padded(&self) -> [usize; 2] {
        let spread = |n: usize| (n - 1) * self.dilation + 1 + self.before;
        [spread(self.height) + self.after[0], spread(self.width) + self.after[1]]
    }

    /// Rows and columns of the result.
    pub(crate) fn out(&self) -> [usize; 2] {
        self.padded().map(|n| (n - self.kernel) / self.stride + 1)
    }
}

/// The layout chosen for a [`Shape`].
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    /// Rows and columns of the result.
    pub(crate) out: [usize; 2],
    /// Images per buffer.
    pub(crate) group: usize,
    /// Result rows per band.
    pub(crate) band: usize,
    /// Columns per image in a buffer's row.
    slot: usize,
    /// Elements of one phase of one channel.
    pub(crate) plane: usize,
}

/// One buffer's worth of work: images and result rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) image: usize,
    pub(crate) images: usize,
    pub(crate) row: usize,
    pub(crate) rows: usize,
}

impl Plan {
    /// Lays out `shape` for elements of type T.
    pub(crate) fn new<T: Real>(shape: Shape) -> Self {
        let out = shape.out();
        let (s, k) = (shape.stride, shape.kernel);
        let columns = shape.padded()[1].div_ceil(s);
        let shared = if s == 1 { shape.before.min(shape.after[1]).min(k - 1) } else { 0 };
        let slot = columns - shared;
        let reach = (k - 1) / s;
        let row_bytes = slot * shape.channels * s * s * size_of::<T>();
        // Whole images if some fit the cache, else bands of rows.
        let image_bytes = row_bytes * (out[0] + reach);
        let most = (CACHE / image_bytes).min(RUN.div_ceil(out[0] * slot)).clamp(1, shape.batch.max(1));
        let group = shape.batch.div_ceil(shape.batch.div_ceil(most).max(1)).max(1);
        let fitting = (CACHE / row_bytes).saturating_sub(reach).max(4).min(out[0]);
        let band = if group > 1 { out[0] } else { out[0].div_ceil(out[0].div_ceil(fitting)) };
        let mut plan = Self { shape, out, group, band, slot, plane: 0 };
        let pixels = plan.run(group, band).next_multiple_of(conv_tile::<T>().1);
        let pitch = plan.pitch(group);
        let rows = band + reach;
        plan.plane = (rows * pitch + shared).max(pixels + reach * (pitch + 1));
        plan
    }

    /// Elements from one buffer row to the next with `images` side by side.
    pub(crate) fn pitch(&self, images: usize) -> usize {
        images * self.slot
    }

    /// Positions computed for `rows` result rows, padding included.
    pub(crate) fn run(&self, images: usize, rows: usize) -> usize {
        rows * self.pitch(images)
    }

    /// Phases per channel.
    pub(crate) fn phases(&self) -> usize {
        self.shape.stride * self.shape.stride
    }

    /// Elements of a unit's padded input, all channels.
    pub(crate) fn padded_len(&self) -> usize {
        self.shape.channels * self.phases() * self.plane
    }

    /// All units, in order.
    pub(crate) fn units(&self) -> Vec<Unit> {
        let images = (0..self.shape.batch).step_by(self.group);
        images
            .flat_map(|image| {
                let images = self.group.min(self.shape.batch - image);
                (0..self.out[0]).step_by(self.band).map(move |row| {
                    let rows = self.band.min(self.out[0] - row);
                    Unit { image, images, row, rows }
                })
            })
            .collect()
    }

    /// Where each tap reads, in elements from the start of a channel, for a unit of `images` images.
    pub(crate) fn taps(&self, images: usize) -> Vec<usize> {
        let (s, k, pitch) = (self.shape.stride, self.shape.kernel, self.pitch(images));
        (0..k * k)
            .map(|t| {
                let (ky, kx) = (t / k, t % k);
                ((ky % s) * s + kx % s) * self.plane + (ky / s) * pitch + kx / s
            })
            .collect()
    }

    /// Where in a row of the padded result image `n` starts.
    pub(crate) fn column(&self, n: usize) -> usize {
        n * self.slot
    }

    /// Calls `copy(phase, position, image, source row, first source column, count)` for every run of
    /// source pixels of a unit that are `step` apart in the source and adjacent in the buffer, or, for a
    /// dilated source, `gap` apart in the buffer.
    pub(crate) fn copies(&self, unit: Unit, mut copy: impl FnMut(Copy)) {
        let Shape { height, width, dilation, before, stride: s, kernel, .. } = self.shape;
        let pitch = self.pitch(unit.images);
        let rows = (unit.rows - 1) * s + kernel;
        for row in 0..rows {
            // Grid row -> source row, if this one is not padding.
            let Some(above) = (unit.row * s + row).checked_sub(before) else { continue };
            if above % dilation != 0 || above / dilation >= height {
                continue;
            }
            for n in 0..unit.images {
                for phase in 0..s {
                    // The first source column whose grid column is `phase` modulo s.
                    let first = (0..width).take(s).find(|x| (x * dilation + before) % s == phase);
                    let Some(first) = first else { continue };
                    copy(Copy {
                        to: ((row % s) * s + phase) * self.plane
                            + (row / s) * pitch
                            + self.column(n)
                            + (first * dilation + before) / s,
                        gap: if s == 1 { dilation } else { 1 },
                        image: unit.image + n,
                        from: (above / dilation) * width + first,
                        step: s,
                        count: (width - first).div_ceil(s),
                    });
                }
            }
        }
    }
}

/// A run of pixels to copy: element `from + i * step` of a source channel goes to `to + i * gap`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    pub(crate) image: usize,
    pub(crate) from: usize,
    pub(crate) step: usize,
    pub(crate) to: usize,
    pub(crate) gap: usize,
    pub(crate) count: usize,
}
