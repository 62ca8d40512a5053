//! Deep marching tetrahedra (Shen et al., "Deep Marching Tetrahedra", 2021, section 3.1).
//!
//! Each cell of the lattice is cut into the six tetrahedra of Freudenthal's triangulation, whose edges
//! go from a point to one that is larger by 0 or 1 in each coordinate: a point owns seven edges, and
//! neighbouring cells agree on their common face. A tetrahedron has three cases up to symmetry (one,
//! two, three points inside), none ambiguous, so the surface is a closed manifold whatever the values, as long
//! as the lattice's hull is outside.

use glam::DVec3;

use super::loops::cut_cells;
use super::{Lattice, crossing, crossing_backward};
use crate::Result;

/// Points from a cell's first to its last by unit steps along the axes of a permutation; odd permutations
/// have their middle points swapped, so that every tetrahedron has a positive volume.
const TETS: [[usize; 4]; 6] =
    [[0, 1, 3, 7], [0, 5, 1, 7], [0, 3, 2, 7], [0, 2, 6, 7], [0, 4, 5, 7], [0, 6, 4, 7]];

/// The surface, and where each of its vertices comes from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Surface {
    /// Vertices.
    pub positions: Vec<DVec3>,
    /// Counter-clockwise seen from outside (towards negative values).
    pub triangles: Vec<[u32; 3]>,
    /// The lattice points whose edge each vertex is on.
    pub edges: Vec<[u32; 2]>,
}

/// A gradient by the inputs of [`extract`].
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// By the signed distances.
    pub sdf: Vec<f64>,
    /// By the deformations.
    pub deform: Vec<DVec3>,
}

/// The surface `sdf = 0` (inside is positive; NaN is outside) of the lattice deformed by `deform`.
///
/// # Errors
/// [`crate::Error::Invalid`] if an array has not one value a point.
pub fn extract(lattice: Lattice, sdf: &[f64], deform: &[DVec3]) -> Result<Surface> {
    lattice.check("sdf", sdf.len(), lattice.len())?;
    lattice.check("deform", deform.len(), lattice.len())?;
    let mut surface = Surface::default();
    let mut known = vec![u32::MAX; 7 * lattice.len()];
    let n = lattice.cells();
    for (cell, _) in cut_cells(lattice, sdf) {
        let cell = cell as usize;
        let [x, y, z] = [cell % n, cell / n % n, cell / (n * n)];
        let corner = |c: usize| lattice.index([x + (c & 1), y + (c >> 1 & 1), z + (c >> 2)]);
        for tet in TETS {
            // Corners within a tetrahedron are nested: the difference of two is the edge's direction.
            let mut vertex = |i: usize, j: usize| {
                let (a, b) = (tet[i].min(tet[j]), tet[i].max(tet[j]));
                let slot = &mut known[7 * corner(a) + (b ^ a) - 1];
                if *slot == u32::MAX {
                    let ends = [corner(a), corner(b)];
                    let places = ends.map(|p| lattice.placed(p, deform[p]));
                    *slot = surface.positions.len() as u32;
                    surface.positions.push(crossing(places, ends.map(|p| sdf[p])));
                    surface.edges.push(ends.map(|p| p as u32));
                }
                *slot
            };
            polygon(tet.map(|c| sdf[corner(c)] > 0.0), &mut vertex, &mut surface.triangles);
        }
    }
    Ok(surface)
}

/// The triangles of one tetrahedron of positive volume; `vertex` gives the one on an edge.
fn polygon(inside: [bool; 4], vertex: &mut impl FnMut(usize, usize) -> u32, triangles: &mut Vec<[u32; 3]>) {
    let count = inside.iter().filter(|i| **i).count();
    match count {
        1 | 3 => {
            let [i, j, k, l] = even(inside, count == 1);
            let [a, b, c] = [vertex(i, j), vertex(i, k), vertex(i, l)];
            // Outward is away from the one inside, or towards the one outside.
            triangles.push(if count == 1 { [a, b, c] } else { [a, c, b] });
        }
        2 => {
            let [i, j, k, l] = even(inside, true);
            let [a, b, c, d] = [vertex(i, k), vertex(i, l), vertex(j, l), vertex(j, k)];
            triangles.extend([[a, b, c], [a, c, d]]);
        }
        _ => {}
    }
}

/// An even permutation of 0 … 3 that begins with the points whose side is `first`.
fn even(inside: [bool; 4], first: bool) -> [usize; 4] {
    let mut order = [0, 1, 2, 3];
    order.sort_by_key(|&i| inside[i] != first);
    let inversions =
        (0..4).flat_map(|a| (a + 1..4).map(move |b| (a, b))).filter(|&(a, b)| order[a] > order[b]);
    if inversions.count() % 2 == 1 {
        order.swap(2, 3);
    }
    order
}

impl Surface {
    /// The gradient of a loss by `sdf` and `deform` from its gradient by the positions.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if an array has the wrong length.
    pub fn backward(
        &self,
        lattice: Lattice,
        sdf: &[f64],
        deform: &[DVec3],
        by_positions: &[DVec3],
    ) -> Result<Gradient> {
        lattice.check("sdf", sdf.len(), lattice.len())?;
        lattice.check("deform", deform.len(), lattice.len())?;
        lattice.check("gradient", by_positions.len(), self.positions.len())?;
        let mut out = Gradient { sdf: vec![0.0; sdf.len()], deform: vec![DVec3::ZERO; sdf.len()] };
        for (edge, g) in self.edges.iter().zip(by_positions) {
            let ends = edge.map(|p| p as usize);
            let places = ends.map(|p| lattice.placed(p, deform[p]));
            let (by_places, by_values) = crossing_backward(places, ends.map(|p| sdf[p]), *g);
            for (k, p) in ends.into_iter().enumerate() {
                out.sdf[p] += by_values[k];
                out.deform[p] += lattice.placed_backward(deform[p], by_places[k]);
            }
        }
        Ok(out)
    }
}
