//! 3×3 convolution of stride 1 by Winograd's minimal filtering F(2×2, 3×3): 16 multiplications for four
//! results of a channel instead of 36 (Lavin and Gray, "Fast Algorithms for Convolutional Neural
//! Networks", 2016).
//!
//! `Y = Aᵀ [ Σ_ci (G g Gᵀ) ⊙ (Bᵀ d B) ] A` for every 4×4 tile `d` of the padded input (tiles overlap by
//! two). The sum over channels is a matrix product for each of the 16 components. F(4×4, 3×3) would save more
//! products, but its constants lose two to three digits of f32; this one loses about a bit.
//!
//! Pictures are turned to channels innermost on the way in and back on the way out: then the transforms are
//! vector code over channels whatever the picture's size, and the products read and write whole lines.
//!
//! Where there are many tiles a task takes a [`Block`] of them through all stages, so that what lies between
//! stays in its cache. Where the filters are the larger part (small pictures, wide layers) the pictures are
//! transformed first and a task takes a panel of output channels. Nothing here depends on the number of threads
//! but the cut into tasks, and no sum is cut.

mod filters;
mod transform;

use rayon::prelude::*;

use super::conv::Filters;
use super::plan::Shape;
use super::real::{Real, Shared, uninit};
use super::tile::{self, Terms, gemm_tile};
pub(super) use filters::lift_all;
use transform::{lower, raise};

/// Components of a transformed tile.
const PARTS: usize = 16;
/// Tiles below which transforming the filters costs more than is saved.
const FEW_TILES: usize = 12;
/// Tiles below which the way by transforms is not worth it even when the filters' are there already.
const FEW_TILES_KEPT: usize = 4;
/// Channels below which the transforms of pictures cost more than is saved.
const FEW_CHANNELS: usize = 24;
/// Bytes that the transformed tiles of a task, before and after the products, should take.
const CACHE: usize = 1 << 20;
/// Terms summed in registers before they go to memory: keeps a panel of the filters in the first-level cache.
const K_BLOCK: usize = 384;
/// Between two components, so that they do not share the sets of the first-level cache.
const SKEW: usize = 16;

/// Tiles of a convolution.
#[derive(Clone, Copy)]
struct Tiles {
    shape: Shape,
    out: [usize; 2],
    /// Tiles in a column and in a row of one picture.
    rows: usize,
    columns: usize,
    /// Output channels, and both kinds rounded up to whole registers or panels.
    outputs: usize,
    inputs_padded: usize,
    outputs_padded: usize,
}

/// A rectangle of tiles: of one picture, or all of several.
#[derive(Clone, Copy, Debug)]
struct Block {
    image: usize,
    images: usize,
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
}

impl Block {
    fn count(&self) -> usize {
        self.images * self.rows * self.columns
    }
}

impl Tiles {
    fn new<T: Real>(shape: Shape, outputs: usize) -> Self {
        let out = shape.out();
        let [rows, columns] = out.map(|n| n.div_ceil(2));
        Self {
            shape,
            out,
            rows,
            columns,
            outputs,
            inputs_padded: shape.channels.next_multiple_of(transform::lanes::<T>()),
            outputs_padded: outputs.next_multiple_of(gemm_tile::<T>().1),
        }
    }

    fn count(&self) -> usize {
        self.shape.batch * self.rows * self.columns
    }

    /// All tiles in blocks of about `most`.
    fn blocks(&self, most: usize) -> Vec<Block> {
        let picture = self.rows * self.columns;
        let images = (most / picture).clamp(1, self.shape.batch.max(1));
        let even = |n: usize, most: usize| n.div_ceil(n.div_ceil(most.max(1)));
        let images = even(self.shape.batch, images);
        let columns = even(self.columns, most);
        let rows = even(self.rows, most / columns);
        let mut all = Vec::new();
        for image in (0..self.shape.batch).step_by(images) {
            for row in (0..self.rows).step_by(rows) {
                for column in (0..self.columns).step_by(columns) {
                    all.push(Block {
                        image,
                        images: images.min(self.shape.batch - image),
                        row,
                        rows: rows.min(self.rows - row),
                        column,
                        columns: columns.min(self.columns - column),
                    });
                }
            }
        }
        all
    }

    /// Tiles a task should take.
    fn run<T: Real>(&self) -> usize {
        let bytes = PARTS * (self.inputs_padded + self.outputs_padded) * size_of::<T>();
        let fitting = (CACHE / bytes).max(4 * gemm_tile::<T>().0);
        fitting.min(self.count().div_ceil(2 * rayon::current_num_threads())).max(gemm_tile::<T>().0)
    }
}

/// Whether this way is quicker than the direct one; `kept`: the transformed filters are there already.
pub(super) fn pays(shape: &Shape, outputs: usize, kept: bool) -> bool {
    let tiles = shape.batch * shape.out().map(|n| n.div_ceil(2)).iter().product::<usize>();
    (shape.kernel, shape.stride, shape.dilation) == (3, 1, 1)
        && shape.channels.min(outputs) >= FEW_CHANNELS
        && tiles >= if kept { FEW_TILES_KEPT } else { FEW_TILES }
}

/// The convolution of `source` `[batch, inputs, H, W]`: `[batch, outputs, Ho, Wo]`. `kept`: what [`lift_all`]
/// made of the filters before.
pub(super) fn correlate<T: Real>(
    shape: Shape,
    source: &[T],
    filters: &Filters<'_, T>,
    kept: Option<&[T]>,
    bias: Option<&[T]>,
) -> Vec<T> {
    let tiles = Tiles::new::<T>(shape, filters.outputs);
    let mut shifts = vec![T::ZERO; tiles.outputs_padded];
    if let Some(bias) = bias {
        shifts[..bias.len()].copy_from_slice(bias);
    }
    let mut result = vec![T::ZERO; shape.batch * filters.outputs * tiles.out[0] * tiles.out[1]];
    let out = Shared::new(&mut result);
    match kept {
        Some(lifted) => by_tiles(&tiles, source, lifted, &shifts, out),
        None if filters.outputs > 2 * tiles.count() => by_filters(&tiles, source, filters, &shifts, out),
        None => by_tiles(&tiles, source, &lift_all(filters), &shifts, out),
    }
    result
}

/// Many tiles: a task takes some of them through all stages, with filters that are transformed already.
fn by_tiles<T: Real>(tiles: &Tiles, source: &[T], lifted: &[T], shifts: &[T], out: Shared<T>) {
    let (inputs, nr) = (tiles.shape.channels, gemm_tile::<T>().1);
    let panels = tiles.outputs_padded / nr;
    let blocks = tiles.blocks(tiles.run::<T>());
    // With few blocks the output channels are split too; each part transforms the input for itself.
    let parts = (2 * rayon::current_num_threads()).div_ceil(blocks.len().max(1)).clamp(1, panels.div_ceil(4));
    let parts = if rayon::current_num_threads() == 1 { 1 } else { parts };
    let per_part = panels.div_ceil(parts);
    (0..blocks.len() * parts).into_par_iter().for_each(|task| {
        let (block, first) = (blocks[task / parts], task % parts * per_part);
        let range = first..panels.min(first + per_part);
        if range.is_empty() {
            return;
        }
        T::with_scratch(|[input, products, patch]| {
            let (count, width) = (block.count(), range.len() * nr);
            let (deep, high) = (count * tiles.inputs_padded + SKEW, count * width + SKEW);
            let input = uninit(input, PARTS * deep);
            let products = uninit(products, PARTS * high);
            lower(tiles, block, source, patch, input, deep);
            for part in 0..PARTS {
                for (i, panel) in range.clone().enumerate() {
                    let b = &lifted[(part * panels + panel) * inputs * nr..][..inputs * nr];
                    let a = &input[part * deep..][..count * tiles.inputs_padded];
                    let c = &mut products[part * high + i * nr..(part + 1) * high];
                    multiply((count, inputs), (a, tiles.inputs_padded), b, (c, width));
                }
            }
            let channels = range.start * nr..tiles.outputs.min(range.end * nr);
            raise(tiles, block, products, (high, width), channels, shifts, patch, out);
        });
    });
}

/// Large filters, few tiles: all tiles are transformed first, and a task transforms a panel of filters just
/// before it uses it. Transformed filters of a wide layer would be fresh pages every time, and clearing those
/// takes as long as the arithmetic.
fn by_filters<T: Real>(tiles: &Tiles, source: &[T], filters: &Filters<'_, T>, shifts: &[T], out: Shared<T>) {
    let (inputs, nr) = (tiles.shape.channels, gemm_tile::<T>().1);
    let blocks = tiles.blocks(tiles.run::<T>());
    let starts: Vec<usize> = blocks
        .iter()
        .scan(0, |next, b| {
            let at = *next;
            *next += PARTS * (b.count() * tiles.inputs_padded + SKEW);
            Some(at)
        })
        .collect();
    let mut buffer = Vec::new();
    let len = blocks.iter().map(|b| PARTS * (b.count() * tiles.inputs_padded + SKEW)).sum();
    let input = uninit(&mut buffer, len);
    let shared = Shared::new(input);
    blocks.par_iter().zip(&starts).for_each(|(&block, &at)| {
        let deep = block.count() * tiles.inputs_padded + SKEW;
        // SAFETY: every block has its own part.
        let to = unsafe { shared.slice(at, PARTS * deep) };
        T::with_scratch(|[_, _, patch]| lower(tiles, block, source, patch, to, deep));
    });
    let input: &[T] = input;
    (0..tiles.outputs_padded / nr).into_par_iter().for_each(|panel| {
        T::with_scratch(|[lifted, products, patch]| {
            let lifted = uninit(lifted, PARTS * inputs * nr);
            filters::lift_panel(filters, panel, lifted, inputs * nr);
            let channels = panel * nr..tiles.outputs.min((panel + 1) * nr);
            for (&block, &at) in blocks.iter().zip(&starts) {
                let count = block.count();
                let (deep, high) = (count * tiles.inputs_padded + SKEW, count * nr + SKEW);
                let products = uninit(products, PARTS * high);
                for part in 0..PARTS {
                    let a = &input[at + part * deep..][..count * tiles.inputs_padded];
                    let b = &lifted[part * inputs * nr..][..inputs * nr];
                    multiply(
                        (count, inputs),
                        (a, tiles.inputs_padded),
                        b,
                        (&mut products[part * high..], nr),
                    );
                }
                raise(tiles, block, products, (high, nr), channels.clone(), shifts, patch, out);
            }
        });
    });
}

/// `c[count × NR] = a[count × inputs] b[inputs × NR]`, `a` and `c` with so many elements a row.
fn multiply<T: Real>(
    (count, inputs): (usize, usize),
    (a, a_row): (&[T], usize),
    b: &[T],
    (c, c_row): (&mut [T], usize),
) {
    let (mr, nr) = gemm_tile::<T>();
    let kernel = tile::gemm::<T>(false);
    assert!(inputs <= a_row && count * a_row <= a.len() && inputs * nr <= b.len());
    assert!((count - 1) * c_row + nr <= c.len());
    for k in (0..inputs).step_by(K_BLOCK) {
        for i in (0..count).step_by(mr) {
            let terms = Terms {
                steps: K_BLOCK.min(inputs - k),
                a: a[i * a_row + k..].as_ptr(),
                a_row,
                a_term: 1,
                b: b[k * nr..].as_ptr(),
                b_step: nr,
            };
            // SAFETY: the rows and columns of the tile exist, by the assertions.
            unsafe { kernel(terms, c[i * c_row..].as_mut_ptr(), c_row, mr.min(count - i), k > 0) };
        }
    }
}
