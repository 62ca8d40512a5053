//! Iso-surfaces that can be differentiated: a mesh that moves with the signed distances on a lattice.
//!
//! [`tets`] (DMTet) and [`flexi`] (FlexiCubes) turn signed distances, positive inside, at the points of a
//! [`Lattice`] into triangles, and a gradient by the triangles' vertices into one by distances, deformation
//! and weights. Which triangles there are is decided by signs and has no gradient. [`regularize`] holds
//! penalties, [`init`] first values from a density or a mesh. Everything is in double precision: the
//! gradients are sums of few terms, and their checks are finite differences.
//!
//! The seam to a renderer: it takes `positions` and `triangles`, and answers with a gradient by `positions`.

pub mod flexi;
pub mod init;
mod loops;
pub mod regularize;
#[cfg(test)]
mod tests;
pub mod tets;
pub mod weights;

use glam::{DVec3, UVec3};

use super::TriMesh;
use crate::{Error, Result};

/// Cells a side that are allowed.
pub const MAX_CELLS: usize = 128;

/// A regular lattice of points over [−1, 1]³.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lattice {
    cells: usize,
}

impl Lattice {
    /// `cells` cells a side.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none or more than [`MAX_CELLS`].
    pub fn new(cells: usize) -> Result<Self> {
        if (1..=MAX_CELLS).contains(&cells) {
            return Ok(Self { cells });
        }
        Err(Error::invalid("resolution", format!("{cells} is outside 1 … {MAX_CELLS}")))
    }

    /// Cells a side.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// Points in all: `(cells + 1)³`.
    pub fn len(&self) -> usize {
        (self.cells + 1).pow(3)
    }

    /// Never: there are at least eight points.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Distance of neighbouring points.
    pub fn spacing(&self) -> f64 {
        2.0 / self.cells as f64
    }

    /// The point's number: x first.
    pub fn index(&self, [x, y, z]: [usize; 3]) -> usize {
        let n = self.cells + 1;
        x + n * (y + n * z)
    }

    /// The point's coordinates in cells.
    pub fn coordinates(&self, index: usize) -> [usize; 3] {
        let n = self.cells + 1;
        [index % n, index / n % n, index / (n * n)]
    }

    /// Where the point is without deformation.
    pub fn base(&self, index: usize) -> DVec3 {
        let [x, y, z] = self.coordinates(index).map(|c| c as u32);
        UVec3::new(x, y, z).as_dvec3() * self.spacing() - 1.0
    }

    /// Where the point is: at most half a cell from its base, `base + ½ h tanh(deform)`, so that no cell
    /// turns inside out along an axis.
    pub fn placed(&self, index: usize, deform: DVec3) -> DVec3 {
        let bent = DVec3::from_array(deform.to_array().map(f64::tanh));
        self.base(index) + 0.5 * self.spacing() * bent
    }

    /// The gradient by `deform` from the one by the place.
    fn placed_backward(&self, deform: DVec3, gradient: DVec3) -> DVec3 {
        let slope = DVec3::from_array(deform.to_array().map(|d| 1.0 - d.tanh().powi(2)));
        0.5 * self.spacing() * slope * gradient
    }

    /// Checks the arrays' lengths.
    fn check(&self, what: &str, len: usize, wanted: usize) -> Result<()> {
        if len == wanted {
            return Ok(());
        }
        Err(Error::invalid(what, format!("{len} values, {wanted} are needed for {} cells", self.cells)))
    }
}

/// A point on a lattice edge where the signs change: `(p_a s_b − p_b s_a) / (s_b − s_a)`.
fn crossing([pa, pb]: [DVec3; 2], [sa, sb]: [f64; 2]) -> DVec3 {
    (pa * sb - pb * sa) / (sb - sa)
}

/// The gradients of [`crossing`] by both points and both values.
fn crossing_backward([pa, pb]: [DVec3; 2], [sa, sb]: [f64; 2], g: DVec3) -> ([DVec3; 2], [f64; 2]) {
    let d = sb - sa;
    let along = g.dot(pa - pb) / (d * d);
    ([g * (sb / d), g * (-sa / d)], [along * sb, -along * sa])
}

/// Single precision, for the rest of the room.
pub fn to_tri_mesh(positions: &[DVec3], triangles: &[[u32; 3]]) -> TriMesh {
    TriMesh { positions: positions.iter().map(|p| p.as_vec3()).collect(), triangles: triangles.to_vec() }
}
