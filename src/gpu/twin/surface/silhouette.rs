//! Antialiasing of silhouettes, the one path by which visibility has a gradient.
//!
//! Two neighbouring pixels with different triangles are a pair. If a silhouette edge of the nearer
//! triangle crosses the segment between the centres at the share d from the triangle's own pixel,
//! that triangle covers ½ + d of the two pixels: at d < ½ its own pixel takes ½ − d of the
//! neighbour's colour, else the neighbour takes d − ½ of its (nvdiffrast, Laine et al. 2020, §3.5).

use glam::{Vec2, Vec3};
use rayon::prelude::*;

use super::PIXEL_CHUNK;
use super::geometry::{center, corners, relative, vertex};
use crate::gpu::kernels::{RASTER, SECOND_OWNS, SurfaceParams};

/// How far beyond the segment's ends a crossing may lie, for rounding.
const SLACK: f32 = 1e-3;

/// The pair's other pixel in the same picture.
#[inline(always)]
fn neighbour(p: &SurfaceParams, local: usize, axis: usize) -> Option<usize> {
    let (width, height) = (p.width as usize, p.height as usize);
    match axis {
        0 if local % width + 1 < width => Some(local + 1),
        1 if local / width + 1 < height => Some(local + width),
        _ => None,
    }
}

/// Share from the centre of the owning pixel to the crossing of edge (a, b) with the segment towards
/// the neighbour, `direction` (±1) along `axis`; `None` if it does not cross there or is too flat.
#[inline(always)]
fn crossing(a: Vec3, b: Vec3, pixel: Vec2, axis: usize, direction: f32) -> Option<f32> {
    let (ra, rb) = (relative(a, pixel), relative(b, pixel));
    let (along_a, across_a) = (ra[axis], ra[1 - axis]);
    let (along_b, across_b) = (rb[axis], rb[1 - axis]);
    if (across_a < 0.0) == (across_b < 0.0) {
        return None;
    }
    let by_along = a.z * across_b - across_a * b.z;
    let by_across = a.z * along_b - along_a * b.z;
    // Of the pair to the right and the pair below, one sees an edge: the steeper way.
    let steep = by_along.abs() > by_across.abs() || (axis == 0 && by_along.abs() == by_across.abs());
    let t = across_a / (across_a - across_b);
    if !steep || a.z + t * (b.z - a.z) <= 0.0 {
        return None;
    }
    let d = direction * (along_a * across_b - across_a * along_b) / by_along;
    (-SLACK..=1.0 + SLACK).contains(&d).then_some(d.clamp(0.0, 1.0))
}

/// Whether the surface ends at edge `k` as seen from here: nothing is joined, or it folds back.
#[inline(always)]
fn is_silhouette(p: &SurfaceParams, c: [Vec3; 3], k: usize, other: u32, clip: &[f32], view: usize) -> bool {
    if other >= p.vertices {
        return true;
    }
    let other = vertex(p, clip, view, other);
    let (a, b) = (c[(k + 1) % 3], c[(k + 2) % 3]);
    // Relative to the corner in the middle of things, so that little cancels.
    let side = |v: Vec3| {
        let pixel = a.truncate() / a.z;
        let (rb, rv) = (relative(b, pixel), relative(v, pixel));
        (rb.x * rv.y - rb.y * rv.x) * v.z.signum()
    };
    // Also where the neighbour is seen edge-on.
    let sides = side(c[k]) * side(other);
    sides >= 0.0 || sides.is_nan()
}

/// Finds each pair's blend; see [`crate::gpu::kernels::Kernel::SilhouettePairs`].
#[expect(clippy::too_many_arguments, reason = "the kernel's bindings")]
pub fn silhouette_pairs(
    p: &SurfaceParams,
    ids: &[u32],
    raster: &[f32],
    indices: &[u32],
    opposite: &[u32],
    clip: &[f32],
    alphas: &mut [f32],
    edges: &mut [u32],
) {
    let picture = (p.width * p.height) as usize;
    let n = 2 * picture * p.views as usize;
    let alphas = alphas[..n].par_chunks_exact_mut(2).with_min_len(PIXEL_CHUNK);
    alphas.zip(edges[..n].par_chunks_exact_mut(2)).enumerate().for_each(|(at, (alphas, edges))| {
        let (view, local) = (at / picture, at % picture);
        for axis in 0..2 {
            (alphas[axis], edges[axis]) = (0.0, 0);
            let Some(next) = neighbour(p, local, axis) else { continue };
            let second = view * picture + next;
            if ids[at] == ids[second] {
                continue;
            }
            let nearer = raster[RASTER * second + 3] < raster[RASTER * at + 3];
            let second_owns = ids[at] == 0 || (ids[second] != 0 && nearer);
            let (owner, from, direction) = match second_owns {
                true => (ids[second], next, -1.0),
                false => (ids[at], local, 1.0),
            };
            let triangle = owner as usize - 1;
            let Some(c) = corners(p, indices, clip, view, triangle) else { continue };
            for k in 0..3 {
                let (a, b) = (c[(k + 1) % 3], c[(k + 2) % 3]);
                let Some(d) = crossing(a, b, center(p, from), axis, direction) else { continue };
                if is_silhouette(p, c, k, opposite[3 * triangle + k], clip, view) {
                    alphas[axis] = if second_owns { d - 0.5 } else { 0.5 - d };
                    edges[axis] = (1 + 3 * triangle + k) as u32 | if second_owns { SECOND_OWNS } else { 0 };
                    break;
                }
            }
        }
    });
}

/// The four pairs of a pixel: (share that it takes, share that the other takes of it, the other).
#[inline(always)]
fn pairs(p: &SurfaceParams, at: usize, alphas: &[f32]) -> [Option<(f32, f32, usize)>; 4] {
    let (width, picture) = (p.width as usize, (p.width * p.height) as usize);
    let local = at % picture;
    let ahead = |axis: usize, other: usize| {
        let alpha = alphas[2 * at + axis];
        (alpha != 0.0).then(|| (alpha.max(0.0), (-alpha).max(0.0), other))
    };
    let behind = |axis: usize, other: usize| {
        let alpha = alphas[2 * other + axis];
        (alpha != 0.0).then(|| ((-alpha).max(0.0), alpha.max(0.0), other))
    };
    [
        if local.is_multiple_of(width) { None } else { behind(0, at - 1) },
        if local >= width { behind(1, at - width) } else { None },
        ahead(0, at + 1),
        ahead(1, at + width),
    ]
}

/// Blends each pixel with its neighbours; see [`crate::gpu::kernels::Kernel::SilhouetteBlend`].
pub fn silhouette_blend(p: &SurfaceParams, alphas: &[f32], layers: &[f32], blended: &mut [f32]) {
    let channels = p.channels as usize;
    let n = channels * (p.views * p.width * p.height) as usize;
    let out = blended[..n].par_chunks_exact_mut(channels).with_min_len(PIXEL_CHUNK);
    out.enumerate().for_each(|(at, out)| {
        out.copy_from_slice(&layers[channels * at..channels * (at + 1)]);
        for (takes, _, other) in pairs(p, at, alphas).into_iter().flatten() {
            for (c, out) in out.iter_mut().enumerate() {
                *out += takes * (layers[channels * other + c] - layers[channels * at + c]);
            }
        }
    });
}

/// The blend's gradient by its input; see [`crate::gpu::kernels::Kernel::SilhouetteBlendBackward`].
pub fn silhouette_blend_backward(
    p: &SurfaceParams,
    alphas: &[f32],
    blended_grad: &[f32],
    layers_grad: &mut [f32],
) {
    let channels = p.channels as usize;
    let n = channels * (p.views * p.width * p.height) as usize;
    let out = layers_grad[..n].par_chunks_exact_mut(channels).with_min_len(PIXEL_CHUNK);
    out.enumerate().for_each(|(at, out)| {
        let own = &blended_grad[channels * at..channels * (at + 1)];
        out.copy_from_slice(own);
        for (takes, gives, other) in pairs(p, at, alphas).into_iter().flatten() {
            for (c, out) in out.iter_mut().enumerate() {
                *out += gives * blended_grad[channels * other + c] - takes * own[c];
            }
        }
    });
}

/// Adds the blend's gradient by the corners of the crossed edges; see
/// [`crate::gpu::kernels::Kernel::SilhouetteMoveBackward`].
#[expect(clippy::too_many_arguments, reason = "the kernel's bindings")]
pub fn silhouette_move_backward(
    p: &SurfaceParams,
    alphas: &[f32],
    edges: &[u32],
    layers: &[f32],
    blended_grad: &[f32],
    indices: &[u32],
    clip: &[f32],
    clip_grad: &mut [f32],
) {
    let (n, picture, channels) =
        (3 * p.vertices as usize, (p.width * p.height) as usize, p.channels as usize);
    if n == 0 {
        return;
    }
    let views = clip_grad[..n * p.views as usize].par_chunks_exact_mut(n);
    views.enumerate().for_each(|(view, clip_grad)| {
        for local in 0..picture {
            for axis in 0..2 {
                let first = view * picture + local;
                let code = edges[2 * first + axis];
                let Some(next) = neighbour(p, local, axis).filter(|_| code != 0) else { continue };
                let (alpha, second) = (alphas[2 * first + axis], view * picture + next);
                let (taker, giver) = if alpha > 0.0 { (first, second) } else { (second, first) };
                let mut by_alpha = 0.0;
                for c in 0..channels {
                    let step = layers[channels * giver + c] - layers[channels * taker + c];
                    by_alpha += blended_grad[channels * taker + c] * step;
                }
                if alpha < 0.0 {
                    by_alpha = -by_alpha;
                }
                let edge = (code & !SECOND_OWNS) as usize - 1;
                let (triangle, k) = (edge / 3, edge % 3);
                let ends = [indices[3 * triangle + (k + 1) % 3], indices[3 * triangle + (k + 2) % 3]];
                let corners = ends.map(|v| vertex(p, clip, view, v));
                let from = if code & SECOND_OWNS == 0 { local } else { next };
                // α = ½ − d with d the crossing's coordinate, or d − ½ with d the negative of it.
                let pulled = pull_crossing(corners, center(p, from), axis, -by_alpha);
                for (vertex, by) in ends.into_iter().zip(pulled) {
                    let out = 3 * vertex as usize;
                    for (out, by) in clip_grad[out..out + 3].iter_mut().zip(by.to_array()) {
                        *out += by;
                    }
                }
            }
        }
    });
}

/// From the gradient by the crossing's coordinate `N/D` along `axis`, with `N = xₐy_b − yₐx_b` and
/// `D = wₐy_b − yₐw_b` (x along, y across, times w and relative to the pixel), to the edge's ends.
fn pull_crossing([a, b]: [Vec3; 2], pixel: Vec2, axis: usize, by_crossing: f32) -> [Vec3; 2] {
    let (ra, rb) = (relative(a, pixel), relative(b, pixel));
    let ((xa, ya), (xb, yb)) = ((ra[axis], ra[1 - axis]), (rb[axis], rb[1 - axis]));
    let bottom = a.z * yb - ya * b.z;
    let crossing = (xa * yb - ya * xb) / bottom;
    let by_top = by_crossing / bottom;
    let by_bottom = -by_top * crossing;
    let end = |along: f32, across: f32, w: f32| {
        let by_pixel = if axis == 0 { Vec2::new(along, across) } else { Vec2::new(across, along) };
        Vec3::new(by_pixel.x, by_pixel.y, w - pixel.dot(by_pixel))
    };
    [
        end(by_top * yb, -by_top * xb - by_bottom * b.z, by_bottom * yb),
        end(-by_top * ya, by_top * xa + by_bottom * a.z, -by_bottom * ya),
    ]
}
