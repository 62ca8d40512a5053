//! Edge collapses that keep a closed surface a manifold.

use glam::Vec3;

use super::TriMesh;

/// A mesh under edge collapses, with the triangles around every vertex.
pub(super) struct Collapser {
    pub(super) mesh: TriMesh,
    /// Triangles at each vertex; empty for vertices that were collapsed away.
    around: Vec<Vec<u32>>,
    gone: Vec<bool>,
    left: usize,
}

/// The shape below which a triangle counts as a sliver (1 equilateral, 0 degenerate).
pub(super) const SLIVER: f32 = 0.02;

impl Collapser {
    pub(super) fn new(mesh: TriMesh) -> Self {
        let mut around: Vec<Vec<u32>> = vec![Vec::new(); mesh.positions.len()];
        for (t, corners) in mesh.triangles.iter().enumerate() {
            corners.iter().for_each(|&v| around[v as usize].push(t as u32));
        }
        let left = mesh.triangles.len();
        Self { gone: vec![false; left], left, around, mesh }
    }

    /// Number of triangles left.
    pub(super) fn triangles(&self) -> usize {
        self.left
    }

    pub(super) fn position(&self, v: u32) -> Vec3 {
        self.mesh.positions[v as usize]
    }

    /// Vertices joined to `v` by an edge, ascending.
    pub(super) fn neighbours(&self, v: u32) -> Vec<u32> {
        let fan = &self.around[v as usize];
        let mut ring: Vec<u32> =
            fan.iter().flat_map(|&t| self.mesh.triangles[t as usize]).filter(|&w| w != v).collect();
        ring.sort_unstable();
        ring.dedup();
        ring
    }

    /// True if `a` and `b` are joined and merging them at `to` keeps the surface a manifold and
    /// neither folds a triangle over nor makes it worse than `worst` (1 equilateral, 0 degenerate).
    pub(super) fn may_collapse(&self, a: u32, b: u32, to: Vec3, worst: f32) -> bool {
        self.keeps_links(a, b) && self.keeps_shapes(a, b, to, worst)
    }

    /// The link condition for closed surfaces (Dey et al. 1999): the links of `a` and `b` share
    /// the two vertices opposite to their edge and nothing else.
    fn keeps_links(&self, a: u32, b: u32) -> bool {
        let ring = self.neighbours(b);
        if ring.binary_search(&a).is_err() {
            return false;
        }
        let mut common = self.neighbours(a);
        common.retain(|v| ring.binary_search(v).is_ok());
        let [c, d] = common[..] else { return false };
        let spans = |v: u32| {
            self.around[v as usize].iter().any(|&t| {
                let corners = self.mesh.triangles[t as usize];
                corners.contains(&c) && corners.contains(&d)
            })
        };
        !(spans(a) && spans(b))
    }

    fn keeps_shapes(&self, a: u32, b: u32, to: Vec3, worst: f32) -> bool {
        let fans = self.around[a as usize].iter().chain(&self.around[b as usize]);
        let corners = fans.map(|&t| self.mesh.triangles[t as usize]);
        corners.filter(|c| !(c.contains(&a) && c.contains(&b))).all(|c| {
            let before = c.map(|v| self.position(v));
            let after = c.map(|v| if v == a || v == b { to } else { self.position(v) });
            let (old, new) = (shape(before), shape(after));
            // Within 60 degrees of the old plane; as long as it is a sliver, its plane is noise.
            let upright = || {
                let (n0, n1) = (normal(before), normal(after));
                n1.dot(n0) > 0.5 * n1.length() * n0.length()
            };
            if old < SLIVER { new < SLIVER || upright() } else { new > worst.min(0.9 * old) && upright() }
        })
    }

    /// The corners of triangle `t`, unless it was collapsed away.
    pub(super) fn triangle(&self, t: usize) -> Option<[u32; 3]> {
        (!self.gone[t]).then(|| self.mesh.triangles[t])
    }

    /// Merges `b` into `a` at `to`. The caller has asked [`Self::may_collapse`].
    pub(super) fn collapse(&mut self, a: u32, b: u32, to: Vec3) {
        self.mesh.positions[a as usize] = to;
        for t in std::mem::take(&mut self.around[b as usize]) {
            let corners = self.mesh.triangles[t as usize];
            if corners.contains(&a) {
                self.gone[t as usize] = true;
                self.left -= 1;
                for v in corners.into_iter().filter(|v| *v != b) {
                    self.around[v as usize].retain(|&x| x != t);
                }
            } else {
                self.mesh.triangles[t as usize] = corners.map(|v| if v == b { a } else { v });
                self.around[a as usize].push(t);
            }
        }
    }

    pub(super) fn finish(mut self) -> TriMesh {
        let mut gone = self.gone.iter();
        self.mesh.triangles.retain(|_| !*gone.next().unwrap_or(&false));
        self.mesh.compact();
        self.mesh
    }
}

fn normal([a, b, c]: [Vec3; 3]) -> Vec3 {
    (b - a).cross(c - a)
}

/// 4√3·area / Σ side²: 1 for an equilateral triangle, 0 for a degenerate one.
fn shape(corners: [Vec3; 3]) -> f32 {
    let [a, b, c] = corners;
    let sides = a.distance_squared(b) + b.distance_squared(c) + c.distance_squared(a);
    if sides > 0.0 { 2.0 * 3f32.sqrt() * normal(corners).length() / sides } else { 0.0 }
}
