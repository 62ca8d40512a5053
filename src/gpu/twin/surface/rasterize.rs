//! The nearest triangle at each pixel's centre, and what moving its corners does to its coordinates.

use glam::{Vec2, Vec3};
use rayon::prelude::*;

use super::geometry::{bounds, center, corners, cover, edges, relative};
use crate::gpu::kernels::{SURFACE_TILE, SurfaceParams};

/// What has been peeled off before: ids and coordinates of the layer in front.
#[derive(Clone, Copy)]
struct Front<'a> {
    ids: &'a [u32],
    raster: &'a [f32],
}

impl Front<'_> {
    /// Whether `(w, id)` comes after the layer in front at this pixel.
    fn is_before(self, pixel: usize, w: f32, id: u32) -> bool {
        let (front, own) = (self.raster[4 * pixel + 3], self.ids[pixel]);
        own != 0 && (w > front || (w == front && id > own))
    }
}

/// The nearest triangle (of equally near ones the first) at each pixel; see
/// [`crate::gpu::kernels::Kernel::SurfaceRasterize`].
#[expect(clippy::too_many_arguments, reason = "the kernel's bindings")]
pub fn surface_rasterize(
    p: &SurfaceParams,
    indices: &[u32],
    clip: &[f32],
    offsets: &[u32],
    list: &[u32],
    front_ids: &[u32],
    front_raster: &[f32],
    ids: &mut [u32],
    raster: &mut [f32],
) {
    let (width, picture) = (p.width as usize, (p.width * p.height) as usize);
    let band = width * SURFACE_TILE as usize;
    let pixels = picture * p.views as usize;
    let ids = ids[..pixels].chunks_mut(picture).enumerate();
    let rows: Vec<_> = ids
        .zip(raster[..4 * pixels].chunks_mut(4 * picture))
        .flat_map(|((view, ids), raster)| {
            let bands = ids.chunks_mut(band).zip(raster.chunks_mut(4 * band)).enumerate();
            bands.map(move |(row, (ids, raster))| (view, row, ids, raster))
        })
        .collect();
    let front = (p.peel == 1).then_some(Front { ids: front_ids, raster: front_raster });
    rows.into_par_iter().for_each(|(view, row, ids, raster)| {
        ids.fill(0);
        raster.fill(0.0);
        let first = view * picture + row * band;
        for column in 0..p.tiles_x as usize {
            let tile = (view * p.tiles_y as usize + row) * p.tiles_x as usize + column;
            for &triangle in &list[offsets[tile] as usize..offsets[tile + 1] as usize] {
                let Some(c) = corners(p, indices, clip, view, triangle as usize) else { continue };
                draw(p, c, triangle + 1, [column, row], first, front, ids, raster);
            }
        }
    });
}

/// Draws one triangle into one tile; `ids` and `raster` begin with pixel `first`, the band's.
#[expect(clippy::too_many_arguments, reason = "the innermost loops")]
#[inline(always)]
fn draw(
    p: &SurfaceParams,
    c: [Vec3; 3],
    id: u32,
    [column, row]: [usize; 2],
    first: usize,
    front: Option<Front<'_>>,
    ids: &mut [u32],
    raster: &mut [f32],
) {
    let Some([x0, x1, y0, y1]) = bounds(p, c) else { return };
    let low = |tile: usize| tile as u32 * SURFACE_TILE;
    let high = |tile: usize| low(tile) + SURFACE_TILE;
    for y in y0.max(low(row))..y1.min(high(row)) {
        for x in x0.max(low(column))..x1.min(high(column)) {
            let Some((b, w)) = cover(p, c, Vec2::new(x as f32 + 0.5, y as f32 + 0.5)) else { continue };
            let at = ((y - low(row)) * p.width + x) as usize;
            if front.is_some_and(|front| !front.is_before(first + at, w, id)) {
                continue;
            }
            let best = raster[4 * at + 3];
            if ids[at] == 0 || w < best || (w == best && id < ids[at]) {
                ids[at] = id;
                raster[4 * at..4 * at + 4].copy_from_slice(&b.extend(w).to_array());
            }
        }
    }
}

/// Adds the gradient of coordinates and depth to the corners'; see
/// [`crate::gpu::kernels::Kernel::SurfaceRasterizeBackward`].
pub fn surface_rasterize_backward(
    p: &SurfaceParams,
    indices: &[u32],
    clip: &[f32],
    ids: &[u32],
    raster_grad: &[f32],
    clip_grad: &mut [f32],
) {
    let (n, picture) = (3 * p.vertices as usize, (p.width * p.height) as usize);
    if n == 0 {
        return;
    }
    let views = clip_grad[..n * p.views as usize].par_chunks_exact_mut(n);
    views.enumerate().for_each(|(view, clip_grad)| {
        for pixel in 0..picture {
            let at = view * picture + pixel;
            let grad: [f32; 4] = std::array::from_fn(|i| raster_grad[4 * at + i]);
            if ids[at] == 0 || grad == [0.0; 4] {
                continue;
            }
            let triangle = ids[at] as usize - 1;
            let Some(c) = corners(p, indices, clip, view, triangle) else { continue };
            for (k, by) in pull(c, center(p, pixel), grad).into_iter().enumerate() {
                let out = 3 * indices[3 * triangle + k] as usize;
                for (out, by) in clip_grad[out..out + 3].iter_mut().zip(by.to_array()) {
                    *out += by;
                }
            }
        }
    });
}

/// From the gradient by (b₀, b₁, b₂, w) to that by the corners: b = e/Σe, w = Σ bₖ wₖ.
fn pull(c: [Vec3; 3], pixel: Vec2, grad: [f32; 4]) -> [Vec3; 3] {
    let e = edges(c, pixel);
    let sum = e.x + e.y + e.z;
    let b = e / sum;
    let by_b = Vec3::new(grad[0], grad[1], grad[2]) + Vec3::new(c[0].z, c[1].z, c[2].z) * grad[3];
    let by_e = (by_b - by_b.dot(b)) / sum;
    let r = c.map(|v| relative(v, pixel));
    std::array::from_fn(|k| {
        // Corner k is the second of e₍ₖ₊₁₎ = r₍ₖ₊₂₎ × rₖ and the first of e₍ₖ₊₂₎ = rₖ × r₍ₖ₊₁₎.
        let (i, j) = ((k + 1) % 3, (k + 2) % 3);
        let by_r = Vec2::new(by_e[j] * r[i].y - by_e[i] * r[j].y, by_e[i] * r[j].x - by_e[j] * r[i].x);
        Vec3::new(by_r.x, by_r.y, grad[3] * b[k] - pixel.dot(by_r))
    })
}
