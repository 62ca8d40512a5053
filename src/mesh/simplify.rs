//! Quadric edge-collapse simplification (Garland & Heckbert 1997) under the link condition: the
//! result is as closed, as manifold and of the same genus as the input, by construction.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use glam::{DMat3, DVec3};

use super::TriMesh;
use super::collapse::Collapser;
use super::topology::edges;

/// Squared distances to a set of planes, Σ wᵢ (nᵢ·x + dᵢ)² = xᵀAx + 2 b·x + c.
#[derive(Debug, Clone, Copy)]
struct Quadric {
    a: DMat3,
    b: DVec3,
    c: f64,
}

/// Weight of the distance to the edge's middle relative to the planes: decides in flat regions,
/// where the planes say nothing, in favour of round triangles.
const CENTRING: f64 = 1e-3;

impl Quadric {
    /// No plane at all.
    const ZERO: Self = Self { a: DMat3::ZERO, b: DVec3::ZERO, c: 0.0 };

    /// The plane of a triangle, weighted by its area. `normal` has twice the area's length.
    fn plane(point: DVec3, normal: DVec3) -> Self {
        let length = normal.length();
        if length <= 0.0 {
            return Self::ZERO;
        }
        let n = normal / length;
        let (weight, d) = (length / 2.0, -n.dot(point));
        Self { a: weight * DMat3::from_cols(n * n.x, n * n.y, n * n.z), b: weight * d * n, c: weight * d * d }
    }

    /// `weight` times the squared distance to `point`.
    fn point(point: DVec3, weight: f64) -> Self {
        Self { a: weight * DMat3::IDENTITY, b: -weight * point, c: weight * point.length_squared() }
    }

    fn plus(&self, other: &Self) -> Self {
        Self { a: self.a + other.a, b: self.b + other.b, c: self.c + other.c }
    }

    fn at(&self, x: DVec3) -> f64 {
        x.dot(self.a * x) + 2.0 * self.b.dot(x) + self.c
    }

    /// The point of the smallest value.
    fn minimum(&self) -> Option<DVec3> {
        let x = self.a.inverse() * -self.b;
        x.is_finite().then_some(x)
    }
}

/// Triangles worse than this (1 equilateral, 0 degenerate) may not be made out of better ones.
const WORST: f32 = 0.15;

/// A collapse in the queue: cost (bits of a non-negative number sort like it), the edge, and
/// the ends' versions at the time.
type Entry = Reverse<(u64, u32, u32, u32, u32)>;

struct Queue {
    work: Collapser,
    quadrics: Vec<Quadric>,
    version: Vec<u32>,
    heap: BinaryHeap<Entry>,
}

/// A copy of the closed manifold `mesh` with at most `target` triangles, or more where neither
/// the topology nor the triangles' shapes allow to go on.
pub fn simplify(mesh: &TriMesh, target: usize) -> TriMesh {
    let mut quadrics = vec![Quadric::ZERO; mesh.positions.len()];
    for t in 0..mesh.triangles.len() {
        let plane = Quadric::plane(mesh.corners(t)[0].as_dvec3(), mesh.area_vector(t).as_dvec3());
        for v in mesh.triangles[t] {
            quadrics[v as usize] = quadrics[v as usize].plus(&plane);
        }
    }
    let version = vec![0; mesh.positions.len()];
    let mut queue = Queue { work: Collapser::new(mesh.clone()), quadrics, version, heap: BinaryHeap::new() };
    let mut pairs: Vec<(u32, u32)> = edges(mesh).into_iter().map(|e| (e.0, e.1)).collect();
    // An edge that was refused may become free when its surroundings change: go again while
    // a round achieves something.
    loop {
        let before = queue.work.triangles();
        pairs.iter().for_each(|&(a, b)| queue.push(a, b));
        queue.run(target);
        let after = queue.work.triangles();
        if after <= target || after == before {
            return queue.work.finish();
        }
        pairs = queue.pairs();
    }
}

impl Queue {
    /// The edge's quadric with its centring term, and the position to collapse it to.
    fn best(&self, a: u32, b: u32) -> (f64, DVec3) {
        let (pa, pb) = (self.work.position(a).as_dvec3(), self.work.position(b).as_dvec3());
        let (middle, length) = (pa.midpoint(pb), pa.distance(pb));
        let planes = self.quadrics[a as usize].plus(&self.quadrics[b as usize]);
        let weight = CENTRING * (planes.a.x_axis.x + planes.a.y_axis.y + planes.a.z_axis.z);
        let full = planes.plus(&Quadric::point(middle, weight));
        // A nearly singular system may put the minimum far away.
        let to = full.minimum().filter(|x| x.distance(middle) < length).unwrap_or(middle);
        (full.at(to).max(0.0) + weight * length * length, to)
    }

    fn push(&mut self, a: u32, b: u32) {
        let (low, high) = (a.min(b), a.max(b));
        let cost = self.best(low, high).0.to_bits();
        let versions = (self.version[low as usize], self.version[high as usize]);
        self.heap.push(Reverse((cost, low, high, versions.0, versions.1)));
    }

    fn run(&mut self, target: usize) {
        while self.work.triangles() > target {
            let Some(Reverse((_, a, b, va, vb))) = self.heap.pop() else { return };
            if (self.version[a as usize], self.version[b as usize]) != (va, vb) {
                continue;
            }
            let to = self.best(a, b).1.as_vec3();
            if !self.work.may_collapse(a, b, to, WORST) {
                continue;
            }
            self.work.collapse(a, b, to);
            self.quadrics[a as usize] = self.quadrics[a as usize].plus(&self.quadrics[b as usize]);
            self.version[a as usize] += 1;
            self.version[b as usize] += 1;
            for v in self.work.neighbours(a) {
                self.push(a, v);
            }
        }
    }

    /// Edges of what is left.
    fn pairs(&self) -> Vec<(u32, u32)> {
        let vertices = 0..self.version.len() as u32;
        vertices
            .flat_map(|a| self.work.neighbours(a).into_iter().filter(move |&b| a < b).map(move |b| (a, b)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::clean::{remove_slivers, smallest_height};
    use crate::mesh::iso::extract;
    use crate::mesh::testing::{cube_grid, grid_of, noise_grid, sphere};
    use crate::mesh::topology::{euler_characteristic, is_manifold, is_watertight, signed_volume};

    #[test]
    fn a_sphere_reaches_the_target_and_keeps_its_volume() {
        let mut fine = sphere(64, 0.7);
        remove_slivers(&mut fine, 0.1 / 32.0);
        let mesh = simplify(&fine, 2_000);
        assert!((1_998..=2_000).contains(&mesh.triangles.len()), "{}", mesh.triangles.len());
        assert!(is_watertight(&mesh) && is_manifold(&mesh));
        let change = signed_volume(&mesh) / signed_volume(&fine) - 1.0;
        // Equilateral triangles with corners on the sphere would lose 0.36 %.
        assert!(change.abs() < 5e-3, "{change}");
        assert!(smallest_height(&mesh) > 0.01, "{}", smallest_height(&mesh));
    }

    #[test]
    fn flat_faces_cost_nothing() {
        let fine = extract(&cube_grid(40), 0.0);
        let mesh = simplify(&fine, 300);
        assert!(mesh.triangles.len() <= 300 && is_watertight(&mesh));
        let change = signed_volume(&mesh) / signed_volume(&fine) - 1.0;
        // The rounding of edges and corners by a fraction of a cell is all that may change.
        assert!(change.abs() < 2e-3, "{change}");
    }

    #[test]
    fn handles_survive_even_hard_targets() {
        let torus = extract(&grid_of(64, |p| 0.1 - (p.truncate().length() - 0.6).hypot(p.z)), 0.0);
        for target in [2_000, 100, 8] {
            let mesh = simplify(&torus, target);
            assert!(is_watertight(&mesh) && is_manifold(&mesh), "target {target}");
            assert_eq!(euler_characteristic(&mesh), 0);
        }
    }

    #[test]
    fn noise_stays_a_closed_manifold_of_the_same_genus() {
        for seed in 0..4 {
            let fine = extract(&noise_grid(14, seed), 0.0);
            let mesh = simplify(&fine, 0);
            assert!(is_watertight(&mesh) && is_manifold(&mesh), "seed {seed}");
            assert_eq!(euler_characteristic(&mesh), euler_characteristic(&fine));
            assert!(mesh.triangles.len() < fine.triangles.len() * 3 / 4, "{}", mesh.triangles.len());
        }
    }
}
