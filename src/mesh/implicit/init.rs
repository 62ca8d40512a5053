//! First signed distances: from a density, or from a mesh.

use glam::{DVec3, Vec3};
use rayon::prelude::*;

use super::Lattice;
use crate::mesh::{CHUNK, DensityFn, TriMesh};

/// What Magic3D (Lin et al., 2023) begins its second stage with: `clamp(density − threshold, −1, 1)` at the
/// points. The hull is outside, so that the surface closes.
pub fn from_density(lattice: Lattice, density: DensityFn<'_>, threshold: f32) -> Vec<f64> {
    let points: Vec<Vec3> = (0..lattice.len()).map(|i| lattice.base(i).as_vec3()).collect();
    let sampled = points.chunks(CHUNK).flat_map(density);
    sampled
        .enumerate()
        .map(|(i, d)| {
            let value = f64::from(d - threshold).clamp(-1.0, 1.0);
            // NaN is outside, too.
            if on_hull(lattice, i) || value.is_nan() { -1.0 } else { value }
        })
        .collect()
}

/// Whether a point is on one of the lattice's six sides.
pub fn on_hull(lattice: Lattice, index: usize) -> bool {
    lattice.coordinates(index).iter().any(|&c| c == 0 || c == lattice.cells())
}

/// Signed distances to a closed mesh inside the box, positive inside. Inside is where triangles wind around a
/// point at least once, so overlapping parts are a union.
pub fn from_mesh(lattice: Lattice, mesh: &TriMesh) -> Vec<f64> {
    let inside = inside(lattice, mesh);
    let tree = Tree::new(mesh);
    (0..lattice.len())
        .into_par_iter()
        .map(|i| {
            let distance = tree.distance(lattice.base(i));
            if inside[i] { distance } else { -distance }
        })
        .collect()
}

/// The distance of one point from a mesh.
#[cfg(test)]
pub(super) fn distance(mesh: &TriMesh, p: DVec3) -> f64 {
    Tree::new(mesh).distance(p)
}

/// Which points the mesh winds around, by the triangles that a ray along +x meets.
fn inside(lattice: Lattice, mesh: &TriMesh) -> Vec<bool> {
    let (n, h) = (lattice.cells() + 1, lattice.spacing());
    // Rays beside the points, so that none runs along an edge of a mesh made on the same lattice.
    let shift = DVec3::new(0.0, 1.234_567e-5, 0.765_432e-5) * h;
    let mut crossings: Vec<Vec<(f64, i32)>> = vec![Vec::new(); n * n];
    for t in 0..mesh.triangles.len() {
        let corners = mesh.corners(t).map(|p| p.as_dvec3() - shift);
        let area = (corners[1] - corners[0]).cross(corners[2] - corners[0]);
        if area.x == 0.0 {
            continue;
        }
        let span = |axis: usize| {
            let (low, high) =
                corners.iter().fold((f64::MAX, f64::MIN), |(l, h), c| (l.min(c[axis]), h.max(c[axis])));
            let cell = |x: f64| ((x + 1.0) / h).clamp(0.0, (n - 1) as f64);
            cell(low).ceil() as usize..=cell(high).floor() as usize
        };
        for z in span(2) {
            for y in span(1) {
                let at = lattice.base(lattice.index([0, y, z]));
                let across = |a: DVec3, b: DVec3| (a.y - at.y) * (b.z - at.z) - (a.z - at.z) * (b.y - at.y);
                let w = [0, 1, 2].map(|k| across(corners[(k + 1) % 3], corners[(k + 2) % 3]) / area.x);
                if w.iter().all(|w| *w >= 0.0) {
                    let x = (0..3).map(|k| w[k] * corners[k].x).sum();
                    crossings[y + n * z].push((x, if area.x > 0.0 { 1 } else { -1 }));
                }
            }
        }
    }
    let winds = |i: usize| {
        let [_, y, z] = lattice.coordinates(i);
        let x = lattice.base(i).x;
        crossings[y + n * z].iter().filter(|c| c.0 > x).map(|c| c.1).sum::<i32>() > 0
    };
    (0..lattice.len()).map(winds).collect()
}

/// Triangles in a tree of boxes.
pub(crate) struct Tree {
    triangles: Vec<[DVec3; 3]>,
    nodes: Vec<Node>,
}

struct Node {
    low: DVec3,
    high: DVec3,
    /// First triangle and number of a leaf; an inner node has 0, its left child next to it.
    start: usize,
    count: usize,
    right: usize,
}

const LEAF: usize = 4;

impl Tree {
    pub(crate) fn new(mesh: &TriMesh) -> Self {
        let triangles: Vec<[DVec3; 3]> =
            (0..mesh.triangles.len()).map(|t| mesh.corners(t).map(|p| p.as_dvec3())).collect();
        let mut tree = Self { triangles, nodes: Vec::new() };
        if !tree.triangles.is_empty() {
            tree.build(0, tree.triangles.len());
        }
        tree
    }

    fn build(&mut self, start: usize, end: usize) -> usize {
        let points = self.triangles[start..end].iter().flatten();
        let (low, high) = points.fold((DVec3::MAX, DVec3::MIN), |(l, h), p| (l.min(*p), h.max(*p)));
        let index = self.nodes.len();
        self.nodes.push(Node { low, high, start, count: end - start, right: 0 });
        if end - start > LEAF {
            let size = high - low;
            let axis = (0..3).fold(0, |a, b| if size[b] > size[a] { b } else { a });
            let middle = (end - start) / 2;
            let key = |t: &[DVec3; 3]| t[0][axis] + t[1][axis] + t[2][axis];
            self.triangles[start..end].sort_by(|a, b| key(a).total_cmp(&key(b)));
            self.nodes[index].count = 0;
            self.build(start, start + middle);
            self.nodes[index].right = self.build(start + middle, end);
        }
        index
    }

    /// Distance to the nearest triangle; infinite without any.
    pub(crate) fn distance(&self, p: DVec3) -> f64 {
        let mut best = f64::INFINITY;
        let mut stack: Vec<usize> = if self.nodes.is_empty() { Vec::new() } else { vec![0] };
        let bound = |n: &Node| (p - p.clamp(n.low, n.high)).length_squared();
        while let Some(index) = stack.pop() {
            let node = &self.nodes[index];
            if bound(node) >= best {
                continue;
            }
            if node.count > 0 {
                for t in &self.triangles[node.start..node.start + node.count] {
                    best = best.min((p - closest(*t, p)).length_squared());
                }
                continue;
            }
            let (a, b) = (index + 1, node.right);
            // The nearer child is looked at first.
            let order = if bound(&self.nodes[a]) < bound(&self.nodes[b]) { [b, a] } else { [a, b] };
            stack.extend(order);
        }
        best.sqrt()
    }
}

/// The point of a triangle nearest to `p` (Ericson, "Real-Time Collision Detection", 5.1.5).
fn closest([a, b, c]: [DVec3; 3], p: DVec3) -> DVec3 {
    let (ab, ac) = (b - a, c - a);
    let dots = |q: DVec3| (ab.dot(p - q), ac.dot(p - q));
    let ((d1, d2), (d3, d4), (d5, d6)) = (dots(a), dots(b), dots(c));
    if d1 <= 0.0 && d2 <= 0.0 {
        return a;
    }
    if d3 >= 0.0 && d4 <= d3 {
        return b;
    }
    if d6 >= 0.0 && d5 <= d6 {
        return c;
    }
    let vc = d1 * d4 - d3 * d2;
    if vc <= 0.0 && d1 >= 0.0 && d3 <= 0.0 {
        return a + ab * (d1 / (d1 - d3));
    }
    let vb = d5 * d2 - d1 * d6;
    if vb <= 0.0 && d2 >= 0.0 && d6 <= 0.0 {
        return a + ac * (d2 / (d2 - d6));
    }
    let va = d3 * d6 - d5 * d4;
    if va <= 0.0 && d4 >= d3 && d5 >= d6 {
        return b + (c - b) * ((d4 - d3) / ((d4 - d3) + (d5 - d6)));
    }
    let scale = 1.0 / (va + vb + vc);
    a + ab * (vb * scale) + ac * (vc * scale)
}
