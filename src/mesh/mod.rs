//! Iso-surface, cleaning, simplification, UV unwrapping and texture baking.
//!
//! [`build_asset`] is the whole path: density grid → [`threshold`] → [`iso`] → [`clean`] →
//! [`simplify`] → [`normals`] → [`unwrap`] → [`bake`] → [`place`]. Simplification comes before
//! unwrapping, so charts are cut on the triangles that ship.

pub mod bake;
pub mod bake_normals;
pub mod build;
pub mod clean;
mod collapse;
pub mod fill;
pub mod holes;
pub mod implicit;
pub mod iso;
pub mod normals;
pub mod options;
pub mod place;
pub mod simplify;
pub mod smooth;
mod table;
#[cfg(test)]
pub(crate) mod testing;
pub mod threshold;
pub mod topology;
pub mod unwrap;

use glam::Vec3;

pub use build::{build_asset, build_from_surface, build_placed, surface};
pub use options::{MeshOptions, MeshReport, Stage, StageTime};

/// Density (≥ 0, inverse world units) at points of the world box [-1,1]³.
pub type DensityFn<'a> = &'a (dyn Fn(&[Vec3]) -> Vec<f32> + Sync);
/// Linear RGB in 0..1 at points of the world box.
pub type ColorFn<'a> = &'a (dyn Fn(&[Vec3]) -> Vec<Vec3> + Sync);

/// Points per call of a field callback: bounds the callback's working memory.
pub(crate) const CHUNK: usize = 1 << 16;

/// An indexed triangle surface without attributes; one vertex per position.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TriMesh {
    /// Vertices, world units.
    pub positions: Vec<Vec3>,
    /// Counter-clockwise (seen from outside) vertex triples.
    pub triangles: Vec<[u32; 3]>,
}

impl TriMesh {
    /// The corners of triangle `t`.
    pub fn corners(&self, t: usize) -> [Vec3; 3] {
        self.triangles[t].map(|v| self.positions[v as usize])
    }

    /// Twice the area vector of triangle `t` (outward).
    pub fn area_vector(&self, t: usize) -> Vec3 {
        let [a, b, c] = self.corners(t);
        (b - a).cross(c - a)
    }

    /// Drops vertices that no triangle uses; the order of the others stays.
    pub fn compact(&mut self) {
        let mut used = vec![false; self.positions.len()];
        self.triangles.iter().flatten().for_each(|&v| used[v as usize] = true);
        let mut next = 0;
        let remap: Vec<u32> = used
            .iter()
            .map(|&u| {
                let index = next;
                next += u32::from(u);
                index
            })
            .collect();
        let mut keep = used.iter();
        self.positions.retain(|_| *keep.next().unwrap_or(&false));
        self.triangles.iter_mut().flatten().for_each(|v| *v = remap[*v as usize]);
    }
}
