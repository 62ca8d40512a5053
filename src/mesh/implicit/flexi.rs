//! FlexiCubes (Shen et al., "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", 2023).
//!
//! Dual marching cubes with weights. Each cell that the surface passes gets one vertex a loop of its cut
//! edges: the β-weighted mean of the crossings, which α moves along their edges (eq. 4 and 5 of the paper).
//! Each cut edge of the lattice gets a quadrilateral of its four cells' vertices; γ says how it is split
//! (eq. 6). With vertices free inside their cells, sharp edges and corners need not lie on lattice edges.
//!
//! Manifold by construction: the loops of a cell come from pairing the cut edges of each face, and on a
//! face with four of them (inside and outside at alternate corners) both neighbours pair alike. Such a face
//! joins its cells' loops twice if both of its pairs lie on one loop in either cell (the paper's cases
//! C16 and C19); it is then paired the other way.

use glam::DVec3;

use super::loops::{self, CellLoops, EDGES};
use super::{Lattice, crossing, crossing_backward};
use crate::Result;

/// How far raw weights can move the weights from 1.
const SCALE: f64 = 0.99;

/// What is optimised. All weights are raw: any real number, 0 at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    /// Signed distances at the points, positive inside.
    pub sdf: Vec<f64>,
    /// Raw deformations of the points.
    pub deform: Vec<DVec3>,
    /// Eight a cell: weights of the corners' distances, `1 + 0.99 tanh`.
    pub alpha: Vec<[f64; 8]>,
    /// Twelve a cell: weights of the edges' crossings, `1 + 0.99 tanh`.
    pub beta: Vec<[f64; 12]>,
    /// One a cell: weight of its vertices in the split, `0.99 sigmoid + 0.005`.
    pub gamma: Vec<f64>,
}

impl Parameters {
    /// Neutral weights around given distances.
    pub fn new(lattice: Lattice, sdf: Vec<f64>) -> Self {
        let cells = lattice.cells().pow(3);
        Self {
            deform: vec![DVec3::ZERO; sdf.len()],
            sdf,
            alpha: vec![[0.0; 8]; cells],
            beta: vec![[0.0; 12]; cells],
            gamma: vec![0.0; cells],
        }
    }

    fn zeros(&self) -> Self {
        Self {
            sdf: vec![0.0; self.sdf.len()],
            deform: vec![DVec3::ZERO; self.deform.len()],
            alpha: vec![[0.0; 8]; self.alpha.len()],
            beta: vec![[0.0; 12]; self.beta.len()],
            gamma: vec![0.0; self.gamma.len()],
        }
    }

    fn check(&self, lattice: Lattice) -> Result<()> {
        let cells = lattice.cells().pow(3);
        lattice.check("sdf", self.sdf.len(), lattice.len())?;
        lattice.check("deform", self.deform.len(), lattice.len())?;
        lattice.check("alpha", self.alpha.len(), cells)?;
        lattice.check("beta", self.beta.len(), cells)?;
        lattice.check("gamma", self.gamma.len(), cells)
    }
}

/// How quadrilaterals become triangles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Four triangles around a γ-weighted middle: differentiable by γ.
    Middle,
    /// Two triangles along the diagonal of the larger γ product: half the triangles.
    Diagonal,
}

/// The vertex of a loop.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Dual {
    cell: u32,
    /// The edges of the loop, one bit each.
    edges: u16,
}

/// The surface, and where each of its vertices comes from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Surface {
    /// The loops' vertices, then the middles.
    pub positions: Vec<DVec3>,
    /// Counter-clockwise seen from outside.
    pub triangles: Vec<[u32; 3]>,
    duals: Vec<Dual>,
    middles: Vec<[u32; 4]>,
}

fn weight(raw: f64) -> (f64, f64) {
    let t = raw.tanh();
    (1.0 + SCALE * t, SCALE * (1.0 - t * t))
}

fn gamma(raw: f64) -> (f64, f64) {
    let s = 1.0 / (1.0 + (-raw).exp());
    (SCALE * s + 0.5 * (1.0 - SCALE), SCALE * s * (1.0 - s))
}

/// The surface of `p`; see the module's text.
///
/// # Errors
/// [`crate::Error::Invalid`] if an array has the wrong length.
pub fn extract(lattice: Lattice, p: &Parameters, split: Split) -> Result<Surface> {
    p.check(lattice)?;
    let cells = loops::trace(lattice, &p.sdf);
    let mut surface = Surface::default();
    // The first vertex of each cell; its others follow.
    let mut first = std::collections::HashMap::new();
    for (cell, found) in &cells {
        first.insert(*cell, surface.duals.len() as u32);
        for edges in found.loops() {
            let dual = Dual { cell: *cell as u32, edges };
            surface.positions.push(cell_vertex(lattice, p, dual));
            surface.duals.push(dual);
        }
    }
    let by_cell: std::collections::HashMap<usize, &CellLoops> = cells.iter().map(|(c, l)| (*c, l)).collect();
    let vertex = |cell: usize, edge: usize| -> Option<u32> {
        Some(first.get(&cell)? + u32::from(by_cell.get(&cell)?.of_edge(edge)?))
    };
    for (cell, found) in &cells {
        for axis in 0..3 {
            // The edge that starts at the cell's first corner; its four cells are this one and three before.
            let edge = loops::edge(0, axis);
            if found.of_edge(edge).is_none() {
                continue;
            }
            let Some(quad) = quad(lattice, *cell, axis, &vertex) else { continue };
            let start = lattice.index(loops::cell_coordinates(lattice, *cell));
            let quad = if p.sdf[start] > 0.0 { quad } else { [quad[3], quad[2], quad[1], quad[0]] };
            surface.split(p, quad, split);
        }
    }
    Ok(surface)
}

/// The vertices around an edge along `axis` from a cell's first corner, counter-clockwise seen from the
/// edge's far end; `None` on the lattice's hull.
fn quad(
    lattice: Lattice,
    cell: usize,
    axis: usize,
    vertex: &impl Fn(usize, usize) -> Option<u32>,
) -> Option<[u32; 4]> {
    let n = lattice.cells();
    let at = loops::cell_coordinates(lattice, cell);
    let (b, c) = ((axis + 1) % 3, (axis + 2) % 3);
    let mut out = [0; 4];
    for (out, (db, dc)) in out.iter_mut().zip([(1, 1), (0, 1), (0, 0), (1, 0)]) {
        let mut cell = at;
        cell[b] = cell[b].checked_sub(db)?;
        cell[c] = cell[c].checked_sub(dc)?;
        let edge = loops::edge(db << b | dc << c, axis);
        *out = vertex(cell[0] + n * (cell[1] + n * cell[2]), edge)?;
    }
    Some(out)
}

/// Corner numbers of an edge, their lattice points, places and weighted distances.
struct Cut {
    corners: [usize; 2],
    points: [usize; 2],
    places: [DVec3; 2],
    values: [f64; 2],
}

impl Cut {
    fn new(lattice: Lattice, p: &Parameters, cell: usize, edge: usize) -> Self {
        let corners = EDGES[edge].map(usize::from);
        let points = corners.map(|c| loops::corner(lattice, cell, c));
        let places = points.map(|i| lattice.placed(i, p.deform[i]));
        let values = [0, 1].map(|k| p.sdf[points[k]] * weight(p.alpha[cell][corners[k]]).0);
        Self { corners, points, places, values }
    }

    fn place(&self) -> DVec3 {
        crossing(self.places, self.values)
    }
}

fn edges_of(mask: u16) -> impl Iterator<Item = usize> {
    (0..12).filter(move |e| mask >> e & 1 == 1)
}

fn cell_vertex(lattice: Lattice, p: &Parameters, dual: Dual) -> DVec3 {
    let cell = dual.cell as usize;
    let (mut sum, mut total) = (DVec3::ZERO, 0.0);
    for e in edges_of(dual.edges) {
        let (w, _) = weight(p.beta[cell][e]);
        sum += w * Cut::new(lattice, p, cell, e).place();
        total += w;
    }
    sum / total
}

impl Surface {
    fn split(&mut self, p: &Parameters, quad: [u32; 4], split: Split) {
        let [a, b, c, d] = quad;
        let g = quad.map(|v| gamma(p.gamma[self.duals[v as usize].cell as usize]).0);
        match split {
            Split::Diagonal if g[0] * g[2] >= g[1] * g[3] => self.triangles.extend([[a, b, c], [a, c, d]]),
            Split::Diagonal => self.triangles.extend([[a, b, d], [b, c, d]]),
            Split::Middle => {
                let m = self.positions.len() as u32;
                let [pa, pb, pc, pd] = quad.map(|v| self.positions[v as usize]);
                let (even, odd) = (g[0] * g[2], g[1] * g[3]);
                let middle = (even * 0.5 * (pa + pc) + odd * 0.5 * (pb + pd)) / (even + odd);
                self.positions.push(middle);
                self.middles.push(quad);
                self.triangles.extend([[a, b, m], [b, c, m], [c, d, m], [d, a, m]]);
            }
        }
    }

    /// The gradient of a loss by all parameters from its gradient by the positions.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if an array has the wrong length.
    pub fn backward(&self, lattice: Lattice, p: &Parameters, by_positions: &[DVec3]) -> Result<Parameters> {
        p.check(lattice)?;
        lattice.check("gradient", by_positions.len(), self.positions.len())?;
        let mut out = p.zeros();
        let mut by_duals = by_positions[..self.duals.len()].to_vec();
        for (quad, g) in self.middles.iter().zip(&by_positions[self.duals.len()..]) {
            self.middle_backward(p, *quad, *g, &mut by_duals, &mut out);
        }
        for (k, (dual, g)) in self.duals.iter().zip(&by_duals).enumerate() {
            dual_backward(lattice, p, *dual, self.positions[k], *g, &mut out);
        }
        Ok(out)
    }

    fn middle_backward(
        &self,
        p: &Parameters,
        quad: [u32; 4],
        g: DVec3,
        by_duals: &mut [DVec3],
        out: &mut Parameters,
    ) {
        let cells = quad.map(|v| self.duals[v as usize].cell as usize);
        let w = cells.map(|c| gamma(p.gamma[c]));
        let (even, odd) = (w[0].0 * w[2].0, w[1].0 * w[3].0);
        let total = even + odd;
        let [pa, pb, pc, pd] = quad.map(|v| self.positions[v as usize]);
        // d middle / d even = (mean of a and c − middle) / total, and so for odd.
        let apart = 0.5 * (pa + pc) - 0.5 * (pb + pd);
        let (by_even, by_odd) = (g.dot(apart) * odd / total.powi(2), -g.dot(apart) * even / total.powi(2));
        for k in 0..4 {
            let (share, by) = if k % 2 == 0 { (even, by_even) } else { (odd, by_odd) };
            by_duals[quad[k] as usize] += g * (0.5 * share / total);
            out.gamma[cells[k]] += by * w[(k + 2) % 4].0 * w[k].1;
        }
    }
}

fn dual_backward(lattice: Lattice, p: &Parameters, dual: Dual, place: DVec3, g: DVec3, out: &mut Parameters) {
    let cell = dual.cell as usize;
    let total: f64 = edges_of(dual.edges).map(|e| weight(p.beta[cell][e]).0).sum();
    for e in edges_of(dual.edges) {
        let (w, slope) = weight(p.beta[cell][e]);
        let cut = Cut::new(lattice, p, cell, e);
        out.beta[cell][e] += slope * g.dot(cut.place() - place) / total;
        let (by_places, by_values) = crossing_backward(cut.places, cut.values, g * (w / total));
        for k in 0..2 {
            let (point, corner) = (cut.points[k], cut.corners[k]);
            let (alpha, slope) = weight(p.alpha[cell][corner]);
            out.sdf[point] += by_values[k] * alpha;
            out.alpha[cell][corner] += by_values[k] * p.sdf[point] * slope;
            out.deform[point] += lattice.placed_backward(p.deform[point], by_places[k]);
        }
    }
}
