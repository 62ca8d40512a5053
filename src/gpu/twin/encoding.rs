//! The multiresolution hash grid: corner indices and weights, gather, and scatter of gradients.

use rayon::prelude::*;

use super::lanes::{LANES, Lanes, Vector, multiversion};
use crate::gpu::kernels::{FEATURES, FieldParams, Level};

/// A block of positions in grid coordinates, [0, 1], by axis.
type Unit = [Lanes; 3];

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
        let (cells, last) = ((level.vertices - 1) as f32, (level.vertices - 2) as f32);
        // An axis' share of the index, and of the weight, at the lower and the upper vertex.
        let mut share = [[[0u32; LANES]; 2]; 3];
        let mut part = [[[0.0f32; LANES]; 2]; 3];
        let factors = if level.hashed == 0 {
            [1, level.vertices, level.vertices * level.vertices]
        } else {
            [1, 2_654_435_761, 805_459_861]
        };
        for axis in 0..3 {
            for lane in 0..LANES {
                let x = unit[axis][lane] * cells;
                let low = if x < last { x } else { last };
                // SAFETY: `unit` is in [0, 1] and never NaN (see `load_unit`), so this is in 0..4096.
                // The checked cast does not vectorise. Truncation is floor here.
                let cell = unsafe { low.to_int_unchecked::<i32>() };
                let up = x - cell as f32;
                part[axis][0][lane] = 1.0 - up;
                part[axis][1][lane] = up;
                share[axis][0][lane] = (cell as u32).wrapping_mul(factors[axis]);
                share[axis][1][lane] = (cell as u32 + 1).wrapping_mul(factors[axis]);
            }
        }
        for (corner, (index, weight)) in self.index.iter_mut().zip(&mut self.weight).enumerate() {
            let up = [corner & 1, corner >> 1 & 1, corner >> 2];
            let ([x, y, z], [a, b, c]) =
                (std::array::from_fn(|i| &share[i][up[i]]), std::array::from_fn(|i| &part[i][up[i]]));
            if level.hashed == 0 {
                for lane in 0..LANES {
                    index[lane] = x[lane] + y[lane] + z[lane];
                }
            } else {
                for lane in 0..LANES {
                    index[lane] = (x[lane] ^ y[lane] ^ z[lane]) & (level.entries - 1);
                }
            }
            for lane in 0..LANES {
                weight[lane] = a[lane] * b[lane] * c[lane];
            }
        }
    }
}

/// Loads up to `LANES` points of `[n, 3]` world coordinates as [0, 1]³; missing lanes are zero.
#[inline(always)]
fn load_unit(positions: &[f32]) -> Unit {
    let mut unit = [[0.0; LANES]; 3];
    let [x, y, z] = &mut unit;
    for (lane, position) in positions.as_chunks::<3>().0.iter().take(LANES).enumerate() {
        x[lane] = to_unit(position[0]);
        y[lane] = to_unit(position[1]);
        z[lane] = to_unit(position[2]);
    }
    unit
}

/// World to grid coordinate. NaN becomes 0, which keeps every index in range.
#[inline(always)]
fn to_unit(x: f32) -> f32 {
    let x = x * 0.5 + 0.5;
    let x = if x > 0.0 { x } else { 0.0 };
    if x < 1.0 { x } else { 1.0 }
}

/// Trilinear features of points, `[level][point]`; zero where a level is off. Level by level, so
/// that a level's table stays in the cache.
#[inline(always)]
pub(super) fn encode<V: Vector>(
    p: &FieldParams,
    positions: &[f32],
    grid: &[f32],
    features: &mut [&mut [[f32; FEATURES]]],
) {
    let mut corners = Corners::new();
    let units: Vec<Unit> = positions.chunks(3 * LANES).map(load_unit).collect();
    let entries = grid.as_chunks::<FEATURES>().0;
    let (on, off) = features.split_at_mut(p.active_levels as usize);
    for (level, features) in p.table.iter().zip(on) {
        let table = &entries[level.offset as usize..][..level.entries as usize];
        for (unit, out) in units.iter().zip(features.chunks_mut(LANES)) {
            corners.locate(level, unit);
            let mut sum = [V::splat(0.0); FEATURES];
            for (index, weight) in corners.index.iter().zip(&corners.weight) {
                let weight = V::load(weight);
                // SAFETY: `locate` keeps every index below `level.entries`, the length of `table`.
                let entry = unsafe { V::gather(table, index) };
                for (sum, entry) in sum.iter_mut().zip(entry) {
                    *sum = sum.add_product(weight, entry);
                }
            }
            let mut lanes = [[0.0; LANES]; FEATURES];
            for (lanes, sum) in lanes.iter_mut().zip(sum) {
                sum.store(lanes);
            }
            for (lane, out) in out.iter_mut().enumerate() {
                *out = [lanes[0][lane], lanes[1][lane]];
            }
        }
    }
    for features in off {
        features.fill([0.0; FEATURES]);
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
fn scatter_body<V: Vector>(level: &Level, positions: &[f32], features: &[f32], table: &mut [f32]) {
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

/// Writes the gradient by the points; see [`crate::gpu::kernels::Kernel::GridPositionsBackward`]. Beyond the box
/// the coordinates stand still, and so does the gradient.
pub fn grid_positions_backward(
    p: &FieldParams,
    positions: &[f32],
    grid: &[f32],
    features: &[f32],
    positions_grad: &mut [f32],
) {
    let n = p.points as usize;
    let entries = grid.as_chunks::<FEATURES>().0;
    let features = features.as_chunks::<FEATURES>().0;
    let blocks =
        positions_grad[..3 * n].par_chunks_mut(3 * LANES).zip(positions[..3 * n].par_chunks(3 * LANES));
    blocks.enumerate().for_each(|(block, (out, positions))| {
        let unit = load_unit(positions);
        let mut corners = Corners::new();
        out.fill(0.0);
        for (l, level) in p.table[..p.active_levels as usize].iter().enumerate() {
            corners.locate(level, &unit);
            let table = &entries[level.offset as usize..][..level.entries as usize];
            let cells = (level.vertices - 1) as f32;
            for (lane, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                let grad = features[l * n + block * LANES + lane];
                let part: [f32; 3] = std::array::from_fn(|axis| {
                    let x = unit[axis][lane] * cells;
                    x - x.min(cells - 1.0).floor()
                });
                let mut by = [0.0f32; 3];
                for (corner, index) in corners.index.iter().enumerate() {
                    let entry = table[index[lane] as usize];
                    let value = grad[0] * entry[0] + grad[1] * entry[1];
                    let up = |axis: usize| corner >> axis & 1 == 1;
                    let weight = |axis: usize| if up(axis) { part[axis] } else { 1.0 - part[axis] };
                    for (axis, by) in by.iter_mut().enumerate() {
                        let others = weight((axis + 1) % 3) * weight((axis + 2) % 3);
                        *by += if up(axis) { others * value } else { -(others * value) };
                    }
                }
                for (axis, (out, by)) in out.iter_mut().zip(by).enumerate() {
                    let inside = unit[axis][lane] > 0.0 && unit[axis][lane] < 1.0;
                    *out += if inside { 0.5 * cells * by } else { 0.0 };
                }
            }
        }
    });
}
