//! Edge functions of homogeneous screen triangles.

use glam::{Vec2, Vec3};

use crate::gpu::kernels::SurfaceParams;

/// The triangle's corners in `view`; `None` for an index without a vertex.
#[inline(always)]
pub(super) fn corners(
    p: &SurfaceParams,
    indices: &[u32],
    clip: &[f32],
    view: usize,
    triangle: usize,
) -> Option<[Vec3; 3]> {
    let ids = &indices[3 * triangle..3 * triangle + 3];
    if ids.iter().any(|&i| i >= p.vertices) {
        return None;
    }
    Some([0, 1, 2].map(|k| vertex(p, clip, view, ids[k])))
}

/// One vertex in `view`.
#[inline(always)]
pub(super) fn vertex(p: &SurfaceParams, clip: &[f32], view: usize, index: u32) -> Vec3 {
    Vec3::from_slice(&clip[3 * (view * p.vertices as usize + index as usize)..])
}

/// The centre of pixel `index` of a picture.
#[inline(always)]
pub(super) fn center(p: &SurfaceParams, index: usize) -> Vec2 {
    let width = p.width as usize;
    Vec2::new((index % width) as f32 + 0.5, (index / width) as f32 + 0.5)
}

/// Screen offset of a vertex from a pixel, times w.
#[inline(always)]
pub(super) fn relative(v: Vec3, pixel: Vec2) -> Vec2 {
    Vec2::new(v.x - pixel.x * v.z, v.y - pixel.y * v.z)
}

#[inline(always)]
fn cross(a: Vec2, b: Vec2) -> f32 {
    a.x * b.y - a.y * b.x
}

/// An order of vertices by value: both triangles at an edge compute the same number, also where
/// their vertices are copies, also where a compiler fuses multiplication and addition.
#[inline(always)]
fn in_order(a: Vec3, b: Vec3) -> bool {
    if a.x != b.x {
        return a.x < b.x;
    }
    if a.y != b.y {
        return a.y < b.y;
    }
    a.z <= b.z
}

/// Twice the area of (pixel, a, b), times both w.
#[inline(always)]
fn edge(a: Vec3, b: Vec3, ra: Vec2, rb: Vec2) -> f32 {
    if in_order(a, b) { cross(ra, rb) } else { -cross(rb, ra) }
}

/// The edge function's slope by the pixel.
#[inline(always)]
pub(super) fn slope(a: Vec3, b: Vec3) -> Vec2 {
    Vec2::new(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z)
}

/// The slope with the sign that both triangles at the edge agree on.
#[inline(always)]
fn agreed_slope(a: Vec3, b: Vec3) -> Vec2 {
    if in_order(a, b) { slope(a, b) } else { -slope(b, a) }
}

/// The three edge functions at a pixel; the k-th is zero on the edge opposite corner k.
#[inline(always)]
pub(super) fn edges(c: [Vec3; 3], pixel: Vec2) -> Vec3 {
    let r = c.map(|v| relative(v, pixel));
    Vec3::new(edge(c[1], c[2], r[1], r[2]), edge(c[2], c[0], r[2], r[0]), edge(c[0], c[1], r[0], r[1]))
}

/// Whether the pixel is on the inner side of an edge; exactly on it, left and top edges own it.
#[inline(always)]
fn owned(e: f32, sign: f32, a: Vec3, b: Vec3) -> bool {
    if e != 0.0 {
        return e * sign > 0.0;
    }
    let slope = agreed_slope(a, b) * sign;
    slope.x > 0.0 || (slope.x == 0.0 && slope.y > 0.0)
}

/// Barycentric coordinates and w where the triangle covers the pixel's centre in front of the near
/// plane.
#[inline(always)]
pub(super) fn cover(p: &SurfaceParams, c: [Vec3; 3], pixel: Vec2) -> Option<(Vec3, f32)> {
    let e = edges(c, pixel);
    // Away from the edges, most pixels end here.
    if e.min_element() < 0.0 && e.max_element() > 0.0 {
        return None;
    }
    let sum = e.x + e.y + e.z;
    // Also for NaN.
    if sum == 0.0 || sum.is_nan() || (p.cull == 1 && sum > 0.0) {
        return None;
    }
    let sign = sum.signum();
    if !owned(e.x, sign, c[1], c[2]) || !owned(e.y, sign, c[2], c[0]) || !owned(e.z, sign, c[0], c[1]) {
        return None;
    }
    let b = e / sum;
    let w = b.x * c[0].z + b.y * c[1].z + b.z * c[2].z;
    (w >= p.near && w <= f32::MAX).then_some((b, w))
}

/// Columns and rows [x0, x1) × [y0, y1) that the part in front of the near plane may touch.
#[inline(always)]
pub(super) fn bounds(p: &SurfaceParams, c: [Vec3; 3]) -> Option<[u32; 4]> {
    if !c.iter().all(|v| v.is_finite()) {
        return None;
    }
    let (mut low, mut high) = (Vec2::INFINITY, Vec2::NEG_INFINITY);
    let mut extend = |v: Vec2| (low, high) = (low.min(v), high.max(v));
    for k in 0..3 {
        let (a, b) = (c[k], c[(k + 1) % 3]);
        if a.z >= p.near {
            extend(a.truncate() / a.z);
        }
        if (a.z >= p.near) != (b.z >= p.near) {
            let cut = a + (b - a) * ((p.near - a.z) / (b.z - a.z));
            extend(cut.truncate() / p.near);
        }
    }
    // One pixel of room for rounding.
    let size = Vec2::new(p.width as f32, p.height as f32);
    let first = (low - 1.0).floor().clamp(Vec2::ZERO, size);
    let last = (high + 1.0).ceil().clamp(Vec2::ZERO, size);
    let range = [first.x as u32, last.x as u32, first.y as u32, last.y as u32];
    (range[0] < range[1] && range[2] < range[3]).then_some(range)
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;
    use crate::rng::{Rng, Stream};

    /// How many of the grid's triangles cover each pixel's centre. Vertex (i, j) is at `place(i, j)`,
    /// in pixels, with its w.
    fn covered(n: u32, size: usize, place: impl Fn(u32, u32) -> Vec3) -> Vec<u32> {
        let p = SurfaceParams { width: size as u32, height: size as u32, near: 0.01, ..Zeroable::zeroed() };
        let at = |i, j| {
            let v = place(i, j);
            Vec3::new(v.x * v.z, v.y * v.z, v.z)
        };
        let mut hits = vec![0; size * size];
        for (x, y) in (0..n - 1).flat_map(|y| (0..n - 1).map(move |x| (x, y))) {
            let [a, b, c, d] = [at(x, y), at(x + 1, y), at(x + 1, y + 1), at(x, y + 1)];
            // Both diagonals and both orders of corners.
            let pair = if (x + y) % 2 == 0 { [[a, b, c], [a, c, d]] } else { [[d, b, a], [b, c, d]] };
            for (pixel, hits) in hits.iter_mut().enumerate() {
                *hits += pair.iter().filter(|c| cover(&p, **c, center(&p, pixel)).is_some()).count() as u32;
            }
        }
        hits
    }

    fn all_inner_are_hit_once(hits: &[u32], size: usize) {
        for (i, n) in hits.iter().enumerate() {
            let (x, y) = (i % size, i / size);
            if x > 1 && y > 1 && x < size - 2 && y < size - 2 {
                assert_eq!(*n, 1, "pixel {x}, {y}");
            }
        }
    }

    #[test]
    fn a_shared_edge_owns_a_pixel_once_also_exactly_on_its_centre() {
        // Every other vertex on a pixel's centre: edges of all eight directions end on and cross centres.
        for w in [1.0, 3.0] {
            let hits = covered(17, 32, |i, j| Vec3::new(2.0 * i as f32 + 0.5, 2.0 * j as f32 + 0.5, w));
            all_inner_are_hit_once(&hits, 32);
        }
        // Whole pixels: no centre on an edge but for the diagonals.
        all_inner_are_hit_once(&covered(33, 32, |i, j| Vec3::new(i as f32, j as f32, 1.0)), 32);
    }

    #[test]
    fn shared_edges_leave_no_gap_at_any_depth_and_place() {
        let rng = Rng::new(3, Stream::Probe, 0);
        for round in 0..20 {
            let number = |i, j, k| rng.uniform(u64::from(((round * 40 + i) * 40 + j) * 3 + k));
            let hits = covered(33, 32, |i, j| {
                let inner = |v: u32| if v == 0 || v == 32 { 0.0 } else { 0.45 };
                let x = i as f32 + inner(i) * (2.0 * number(i, j, 0) - 1.0);
                let y = j as f32 + inner(j) * (2.0 * number(i, j, 1) - 1.0);
                Vec3::new(x, y, 0.5 + 4.0 * number(i, j, 2))
            });
            all_inner_are_hit_once(&hits, 32);
        }
    }
}
