//! Which triangle each sample sees: exact fixed-point edge tests and a z-buffer.

use glam::Vec2;

use super::{
    project::{SUBPIXELS, Scene, ScreenTriangle},
    shade,
};

/// No triangle covers this sample.
pub(super) const EMPTY: u32 = u32::MAX;

/// The nearest triangle of every sample, row by row.
pub(super) struct Samples {
    pub(super) triangle: Vec<u32>,
    /// 1 / depth; 0 where nothing is seen.
    pub(super) inverse_depth: Vec<f32>,
}

/// How much nearer, relatively, a triangle must be to replace what was drawn before it: above
/// rounding, so that coincident surfaces do not mix in streaks.
const NEARER: f32 = 1.0 + 2e-6;

/// A half-plane in fixed point: inside where `value(x, y) ≥ 0`.
struct Edge {
    dx: i64,
    dy: i64,
    value: i64,
}

impl Edge {
    /// Edge from `a` to `b` with its value at sample (`x`, `y`); the interior is where it is not
    /// negative. Samples exactly on an edge belong to one of the two triangles that share it.
    fn new(a: [i64; 2], b: [i64; 2], x: i64, y: i64) -> Self {
        let (ex, ey) = (b[0] - a[0], b[1] - a[1]);
        let owns = ey < 0 || (ey == 0 && ex > 0);
        let (px, py) = (x * SUBPIXELS + SUBPIXELS / 2 - a[0], y * SUBPIXELS + SUBPIXELS / 2 - a[1]);
        let value = ex * py - ey * px - i64::from(!owns);
        Self { dx: -ey * SUBPIXELS, dy: ex * SUBPIXELS, value }
    }
}

/// Keeps the nearest triangle of each sample; of (almost) equally near ones the first.
pub(super) fn fill(scene: &Scene<'_>) -> Samples {
    let count = scene.width as usize * scene.height as usize;
    let mut samples = Samples { triangle: vec![EMPTY; count], inverse_depth: vec![0.0; count] };
    for (number, triangle) in scene.triangles.iter().enumerate() {
        fill_triangle(scene, triangle, number as u32, &mut samples);
    }
    samples
}

fn fill_triangle(scene: &Scene<'_>, triangle: &ScreenTriangle, number: u32, samples: &mut Samples) {
    let [a, b, c] = triangle.corners;
    // First and last sample whose centre may lie inside.
    let range = |axis: usize, size: u32| {
        let low = a[axis].min(b[axis]).min(c[axis]);
        let high = a[axis].max(b[axis]).max(c[axis]);
        let half = SUBPIXELS / 2;
        (
            (low + half - 1).div_euclid(SUBPIXELS).max(0),
            (high - half).div_euclid(SUBPIXELS).min(i64::from(size) - 1),
        )
    };
    let ((x0, x1), (y0, y1)) = (range(0, scene.width), range(1, scene.height));
    if x0 > x1 || y0 > y1 {
        return;
    }
    let mut edges = [Edge::new(a, b, x0, y0), Edge::new(b, c, x0, y0), Edge::new(c, a, x0, y0)];
    let opaque = scene.materials[triangle.material as usize].opaque;
    let step = triangle.inverse_depth.0.x;
    for y in y0..=y1 {
        if let Some((first, last)) = span(&edges, x1 - x0) {
            let row = y as usize * scene.width as usize;
            let start = Vec2::new((x0 + first) as f32 + 0.5, y as f32 + 0.5) - triangle.origin;
            let begin = triangle.inverse_depth.at(start);
            let range = row + (x0 + first) as usize..=row + (x0 + last) as usize;
            let depths = samples.inverse_depth[range.clone()].iter_mut();
            for (i, (depth, seen)) in depths.zip(&mut samples.triangle[range]).enumerate() {
                let inverse = begin + step * i as f32;
                if inverse > *depth * NEARER
                    && (opaque || shade::covers(scene, triangle, (x0 + first) as u32 + i as u32, y as u32))
                {
                    *depth = inverse;
                    *seen = number;
                }
            }
        }
        for edge in &mut edges {
            edge.value += edge.dy;
        }
    }
}

/// First and last step in `0..=last` of a row that lies inside all edges.
fn span(edges: &[Edge; 3], last: i64) -> Option<(i64, i64)> {
    let (mut first, mut last) = (0, last);
    for edge in edges {
        // value + dx · i ≥ 0
        if edge.dx > 0 && edge.value < 0 {
            first = first.max((-edge.value + edge.dx - 1) / edge.dx);
        } else if edge.dx < 0 && edge.value >= 0 {
            last = last.min(edge.value / -edge.dx);
        } else if edge.value < 0 {
            return None;
        }
    }
    (first <= last).then_some((first, last))
}
