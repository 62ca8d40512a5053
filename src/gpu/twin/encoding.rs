//! The multiresolution hash grid: corner indices and weights, gather, and scatter of gradients.

use rayon::prelude::*;

use super::lanes::{LANES, Lanes, multiversion};
use crate::gpu::kernels::{FEATURES, FieldParams, Level, MAX_LEVELS};

/// A block of positions in grid coordinates, [0, 1], by axis.
pub(super) type Unit = [Lanes; 3];

/// Features of a block, `[level][feature]`.
pub(super) type Encoded = [[Lanes; FEATURES]; MAX_LEVELS];

/// The eight corners of the cells that a block of points is in.
struct Corners {
    index: [[u32; LANES]; 8],
    weight: [Lanes; 8],
}

impl Corners {
    #[inline(always)]
    fn new() -> Self {
        Self { index: [[0; LANES]; 8], weight: [[0.0; LANES]; 8] }
    }

    /// Fills in the corners of one level. Every index is below `level.entries`.
    #[inline(always)]
    fn locate(&mut self, level: &Level, unit: &Unit) {
        let cells = (level.vertices - 1) as f32;
        let last = (level.vertices - 2) as f32;
        let mut low = [[0u32; LANES]; 3];
        let mut part = [[[0.0f32; LANES]; 2]; 3];
        for axis in 0..3 {
            for lane in 0..LANES {
                let x = unit[axis][lane] * cells;
                // Truncation is floor here: x is not negative.
                let cell = x.min(last) as i32;
                low[axis][lane] = cell as u32;
                part[axis][1][lane] = x - cell as f32;
                part[axis][0][lane] = 1.0 - part[axis][1][lane];
            }
        }
        for (corner, (index, weight)) in self.index.iter_mut().zip(&mut self.weight).enumerate() {
            let (dx, dy, dz) = (corner & 1, corner >> 1 & 1, corner >> 2);
            for lane in 0..LANES {
                weight[lane] = part[0][dx][lane] * part[1][dy][lane] * part[2][dz][lane];
                let (x, y, z) =
                    (low[0][lane] + dx as u32, low[1][lane] + dy as u32, low[2][lane] + dz as u32);
                index[lane] = if level.hashed == 0 {
                    x + level.vertices * (y + level.vertices * z)
                } else {
                    (x ^ y.wrapping_mul(2_654_435_761) ^ z.wrapping_mul(805_459_861)) & (level.entries - 1)
                };
            }
        }
    }
}

/// Loads up to `LANES` points of `[n, 3]` world coordinates as [0, 1]³; missing lanes are zero.
#[inline(always)]
pub(super) fn load_unit(positions: &[f32]) -> Unit {
    let mut unit = [[0.0; LANES]; 3];
    for (lane, position) in positions.as_chunks::<3>().0.iter().take(LANES).enumerate() {
        for axis in 0..3 {
            unit[axis][lane] = position[axis] * 0.5 + 0.5;
        }
    }
    for axis in &mut unit {
        for x in axis {
            // `max` first: it turns NaN into 0, which keeps every index in range.
            *x = x.max(0.0).min(1.0);
        }
    }
    unit
}

/// Trilinear features of the active levels; the others are left alone.
#[inline(always)]
pub(super) fn encode(p: &FieldParams, unit: &Unit, grid: &[f32], encoded: &mut Encoded) {
    let mut corners = Corners::new();
    let entries = grid.as_chunks::<FEATURES>().0;
    for (level, out) in p.table[..p.active_levels as usize].iter().zip(encoded) {
        corners.locate(level, unit);
        let table = &entries[level.offset as usize..][..level.entries as usize];
        for lane in 0..LANES {
            let mut sum = [0.0; FEATURES];
            for corner in 0..8 {
                // SAFETY: `locate` keeps every index below `level.entries`, the length of `table`.
                let entry = unsafe { table.get_unchecked(corners.index[corner][lane] as usize) };
                let weight = corners.weight[corner][lane];
                sum[0] += weight * entry[0];
                sum[1] += weight * entry[1];
            }
            out[0][lane] = sum[0];
            out[1][lane] = sum[1];
        }
    }
}

/// Adds the gradient of the grid; see [`crate::gpu::kernels::Kernel::GridBackward`]. Each level is
/// one task that walks the points in order, so that the sum does not depend on the threads.
pub fn grid_backward(p: &FieldParams, positions: &[f32], features: &[f32], grid_grad: &mut [f32]) {
    let n = p.points as usize;
    let mut tables = Vec::new();
    let mut rest = grid_grad;
    for level in &p.table[..p.active_levels as usize] {
        let (table, tail) = rest.split_at_mut(level.entries as usize * FEATURES);
        tables.push(table);
        rest = tail;
    }
    // The finest levels miss the cache most: start with them.
    (tables.into_par_iter().enumerate().rev()).with_max_len(1).for_each(|(l, table)| {
        let features = &features[l * n * FEATURES..(l + 1) * n * FEATURES];
        scatter(&p.table[l], &positions[..3 * n], features, table);
    });
}

multiversion!(scatter = scatter_body(level: &Level, positions: &[f32], features: &[f32], table: &mut [f32]));

#[inline(always)]
fn scatter_body(level: &Level, positions: &[f32], features: &[f32], table: &mut [f32]) {
    let table = &mut table.as_chunks_mut::<FEATURES>().0[..level.entries as usize];
    let mut corners = Corners::new();
    for (positions, grads) in positions.chunks(3 * LANES).zip(features.chunks(FEATURES * LANES)) {
        let grads = grads.as_chunks::<FEATURES>().0;
        if grads.iter().all(|g| *g == [0.0; FEATURES]) {
            continue;
        }
        corners.locate(level, &load_unit(positions));
        for (lane, grad) in grads.iter().enumerate() {
            if *grad == [0.0; FEATURES] {
                continue;
            }
            for corner in 0..8 {
                // SAFETY: `locate` keeps every index below `level.entries`, the length of `table`.
                let entry = unsafe { table.get_unchecked_mut(corners.index[corner][lane] as usize) };
                let weight = corners.weight[corner][lane];
                entry[0] += weight * grad[0];
                entry[1] += weight * grad[1];
            }
        }
    }
}
