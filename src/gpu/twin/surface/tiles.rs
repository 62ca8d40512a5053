//! Which triangles may be seen in which tile of the screen.

use glam::{Vec2, Vec3};
use rayon::prelude::*;

use super::super::split_at_bounds;
use super::geometry::{bounds, corners};
use crate::gpu::kernels::{SURFACE_TILE, SurfaceParams};

/// Calls `found` for every tile that the triangle may touch.
///
/// A triangle of few tiles takes its whole box; of a larger one's, tiles wholly outside of an edge
/// are left out, for a long sliver's box is mostly empty.
fn touched(p: &SurfaceParams, c: [Vec3; 3], mut found: impl FnMut(usize)) {
    let Some([x0, x1, y0, y1]) = bounds(p, c) else { return };
    let tile = |v: u32| v / SURFACE_TILE;
    let (tx, ty) = (tile(x0)..=tile(x1 - 1), tile(y0)..=tile(y1 - 1));
    let many = (tx.end() - tx.start() + 1) * (ty.end() - ty.start() + 1) > 4;
    // The three edges as lines, inside positive for what is in front of the camera.
    let sign = c[0].dot(c[1].cross(c[2])).signum();
    let lines = [c[1].cross(c[2]), c[2].cross(c[0]), c[0].cross(c[1])].map(|l| l * sign);
    for y in ty {
        for x in tx.clone() {
            let low = Vec2::new(x as f32, y as f32) * SURFACE_TILE as f32;
            if !many || !lines.iter().any(|&l| outside(l, low, low + SURFACE_TILE as f32)) {
                found((y * p.tiles_x + x) as usize);
            }
        }
    }
}

/// Whether the whole box is on the outer side of a line, for certain.
fn outside(line: Vec3, low: Vec2, high: Vec2) -> bool {
    let x = if line.x > 0.0 { high.x } else { low.x };
    let y = if line.y > 0.0 { high.y } else { low.y };
    let terms = Vec3::new(line.x * x, line.y * y, line.z);
    let rounding = 1e-5 * (terms.x.abs() + terms.y.abs() + terms.z.abs());
    terms.x + terms.y + terms.z < -rounding
}

/// Adds each triangle to the counts of its tiles; see [`crate::gpu::kernels::Kernel::SurfaceTileCount`].
pub fn surface_tile_count(p: &SurfaceParams, indices: &[u32], clip: &[f32], counts: &mut [u32]) {
    let tiles = (p.tiles_x * p.tiles_y) as usize;
    let views = counts[..tiles * p.views as usize].par_chunks_exact_mut(tiles);
    views.enumerate().for_each(|(view, counts)| {
        for triangle in 0..p.triangles as usize {
            if let Some(c) = corners(p, indices, clip, view, triangle) {
                touched(p, c, |tile| counts[tile] += 1);
            }
        }
    });
}

/// Lists the triangles of each tile; see [`crate::gpu::kernels::Kernel::SurfaceTileWrite`].
pub fn surface_tile_write(
    p: &SurfaceParams,
    indices: &[u32],
    clip: &[f32],
    offsets: &[u32],
    cursors: &mut [u32],
    list: &mut [u32],
) {
    let (tiles, views) = ((p.tiles_x * p.tiles_y) as usize, p.views as usize);
    let limits: Vec<_> = (0..=views).map(|v| offsets[v * tiles] as usize).collect();
    let parts = split_at_bounds(list, &limits, 1);
    let cursors = cursors[..tiles * views].par_chunks_exact_mut(tiles);
    cursors.zip(parts).enumerate().for_each(|(view, (cursors, list))| {
        for triangle in 0..p.triangles as usize {
            let Some(c) = corners(p, indices, clip, view, triangle) else { continue };
            touched(p, c, |tile| {
                let start = offsets[view * tiles + tile] as usize - limits[view];
                list[start + cursors[tile] as usize] = triangle as u32;
                cursors[tile] += 1;
            });
        }
    });
}
