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
use rayon::prelude::*;

use super::loops::{self, EDGES};
use super::weights::{CellWeights, Weights, moved, share};
use super::{Lattice, crossing, crossing_backward};
use crate::Result;

/// What is optimised. All weights and deformations are raw: any real number, 0 at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    /// Signed distances at the points, positive inside.
    pub sdf: Vec<f64>,
    /// Raw deformations of the points.
    pub deform: Vec<DVec3>,
    /// Weights of the cells.
    pub weights: Weights,
}

impl Parameters {
    /// Neutral weights around given distances.
    pub fn new(lattice: Lattice, sdf: Vec<f64>) -> Self {
        Self { deform: vec![DVec3::ZERO; sdf.len()], sdf, weights: Weights::new(lattice) }
    }

    fn check(&self, lattice: Lattice) -> Result<()> {
        lattice.check("sdf", self.sdf.len(), lattice.len())?;
        lattice.check("deform", self.deform.len(), lattice.len())?;
        lattice.check("weights", self.weights.capacity(), lattice.cells().pow(3))
    }
}

/// A gradient by [`Parameters`].
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// By the signed distances.
    pub sdf: Vec<f64>,
    /// By the raw deformations.
    pub deform: Vec<DVec3>,
    /// By the raw weights of [`Surface::cells`].
    pub rows: Vec<CellWeights>,
}

impl Gradient {
    fn zeros(lattice: Lattice, cells: usize) -> Self {
        Self {
            sdf: vec![0.0; lattice.len()],
            deform: vec![DVec3::ZERO; lattice.len()],
            rows: vec![CellWeights::default(); cells],
        }
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
    /// Its place in [`Surface::cells`].
    at: u32,
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
    /// The cells that the surface passes, ascending.
    pub cells: Vec<u32>,
    duals: Vec<Dual>,
    middles: Vec<[u32; 4]>,
}

const NONE: u32 = u32::MAX;

/// The surface of `p`; see the module's text.
///
/// # Errors
/// [`crate::Error::Invalid`] if an array has the wrong length.
pub fn extract(lattice: Lattice, p: &Parameters, split: Split) -> Result<Surface> {
    p.check(lattice)?;
    let cells = loops::trace(lattice, &p.sdf);
    let mut surface =
        Surface { cells: cells.iter().map(|(cell, _)| *cell as u32).collect(), ..Default::default() };
    // The place of each cell in the list, and the first vertex of each; its others follow.
    let mut place = vec![NONE; lattice.cells().pow(3)];
    let mut first = Vec::with_capacity(cells.len());
    for (at, (cell, found)) in cells.iter().enumerate() {
        place[*cell] = at as u32;
        first.push(surface.duals.len() as u32);
        let dual = |edges| Dual { cell: *cell as u32, at: at as u32, edges };
        surface.duals.extend(found.loops().map(dual));
    }
    surface.positions = surface.duals.par_iter().map(|d| cell_vertex(lattice, p, *d)).collect();
    let vertex = |cell: usize, edge: usize| -> Option<u32> {
        let at = place[cell] as usize;
        Some(first.get(at)? + u32::from(cells[at].1.of_edge(edge)?))
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
        let row = p.weights.of(cell);
        let values = [0, 1].map(|k| p.sdf[points[k]] * moved(row.alpha[corners[k]]).0);
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
        let (w, _) = moved(p.weights.of(cell).beta[e]);
        sum += w * Cut::new(lattice, p, cell, e).place();
        total += w;
    }
    sum / total
}

impl Surface {
    fn split(&mut self, p: &Parameters, quad: [u32; 4], split: Split) {
        let [a, b, c, d] = quad;
        let g = quad.map(|v| share(p.weights.of(self.duals[v as usize].cell as usize).gamma).0);
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
    pub fn backward(&self, lattice: Lattice, p: &Parameters, by_positions: &[DVec3]) -> Result<Gradient> {
        p.check(lattice)?;
        lattice.check("gradient", by_positions.len(), self.positions.len())?;
        let mut out = Gradient::zeros(lattice, self.cells.len());
        let mut by_duals = by_positions[..self.duals.len()].to_vec();
        for (quad, g) in self.middles.iter().zip(&by_positions[self.duals.len()..]) {
            self.middle_backward(p, *quad, *g, &mut by_duals, &mut out);
        }
        let parts: Vec<DualGradient> = (self.duals.par_iter().zip(&self.positions).zip(&by_duals))
            .map(|((dual, place), g)| dual_backward(lattice, p, *dual, *place, *g, &[DVec3::ZERO; 12]))
            .collect();
        self.scatter(lattice, &parts, &mut out);
        Ok(out)
    }

    /// Adds the duals' gradients one after the other, so that sums do not depend on the threads.
    fn scatter(&self, lattice: Lattice, parts: &[DualGradient], out: &mut Gradient) {
        for (dual, part) in self.duals.iter().zip(parts) {
            out.rows[dual.at as usize].add(&part.row);
            for corner in 0..8 {
                let point = loops::corner(lattice, dual.cell as usize, corner);
                out.sdf[point] += part.sdf[corner];
                out.deform[point] += part.deform[corner];
            }
        }
    }

    fn middle_backward(
        &self,
        p: &Parameters,
        quad: [u32; 4],
        g: DVec3,
        by_duals: &mut [DVec3],
        out: &mut Gradient,
    ) {
        let duals = quad.map(|v| self.duals[v as usize]);
        let w = duals.map(|d| share(p.weights.of(d.cell as usize).gamma));
        let (even, odd) = (w[0].0 * w[2].0, w[1].0 * w[3].0);
        let total = even + odd;
        let [pa, pb, pc, pd] = quad.map(|v| self.positions[v as usize]);
        // d middle / d even = (mean of a and c − middle) / total, and so for odd.
        let apart = 0.5 * (pa + pc) - 0.5 * (pb + pd);
        let (by_even, by_odd) = (g.dot(apart) * odd / total.powi(2), -g.dot(apart) * even / total.powi(2));
        for k in 0..4 {
            let (share, by) = if k % 2 == 0 { (even, by_even) } else { (odd, by_odd) };
            by_duals[quad[k] as usize] += g * (0.5 * share / total);
            out.rows[duals[k].at as usize].gamma += by * w[(k + 2) % 4].0 * w[k].1;
        }
    }

    /// How unequally far the crossings of a loop are from its vertex (the paper's L_dev, eq. 8): the mean over
    /// the loops of the mean absolute deviation of these distances. Keeps the surface smooth where pictures
    /// say nothing. Returns the value and its gradient.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if an array has the wrong length.
    pub fn deviation(&self, lattice: Lattice, p: &Parameters) -> Result<(f64, Gradient)> {
        p.check(lattice)?;
        let scale = 1.0 / self.duals.len().max(1) as f64;
        let one = |(dual, place): (&Dual, &DVec3)| {
            let (value, by_place, by_crossings) = spread(lattice, p, *dual, *place, scale);
            (value, dual_backward(lattice, p, *dual, *place, by_place, &by_crossings))
        };
        let (values, parts): (Vec<f64>, Vec<DualGradient>) =
            self.duals.par_iter().zip(&self.positions).map(one).unzip();
        let mut out = Gradient::zeros(lattice, self.cells.len());
        self.scatter(lattice, &parts, &mut out);
        Ok((values.iter().sum(), out))
    }
}

/// `scale` times the mean absolute deviation of one loop, and its gradient by the vertex and the crossings.
fn spread(
    lattice: Lattice,
    p: &Parameters,
    dual: Dual,
    place: DVec3,
    scale: f64,
) -> (f64, DVec3, [DVec3; 12]) {
    let cell = dual.cell as usize;
    let off: Vec<(usize, DVec3)> =
        edges_of(dual.edges).map(|e| (e, Cut::new(lattice, p, cell, e).place() - place)).collect();
    let n = off.len() as f64;
    let mean = off.iter().map(|o| o.1.length()).sum::<f64>() / n;
    let signs: Vec<f64> = off.iter().map(|o| (o.1.length() - mean).signum()).collect();
    let middle = signs.iter().sum::<f64>() / n;
    let value = off.iter().map(|o| (o.1.length() - mean).abs()).sum::<f64>() * scale / n;
    let (mut by_place, mut by_crossings) = (DVec3::ZERO, [DVec3::ZERO; 12]);
    for ((e, o), sign) in off.iter().zip(&signs) {
        let g = scale / n * (sign - middle) * o.normalize_or_zero();
        by_place -= g;
        by_crossings[*e] = g;
    }
    (value, by_place, by_crossings)
}

/// One dual's share of a [`Gradient`]: its cell's weights, and its cell's corners.
#[derive(Default)]
struct DualGradient {
    row: CellWeights,
    sdf: [f64; 8],
    deform: [DVec3; 8],
}

/// From the gradient `g` by the vertex, and `by_crossings` by the crossings apart from what the vertex passes on.
fn dual_backward(
    lattice: Lattice,
    p: &Parameters,
    dual: Dual,
    place: DVec3,
    g: DVec3,
    by_crossings: &[DVec3; 12],
) -> DualGradient {
    let cell = dual.cell as usize;
    let weights = p.weights.of(cell);
    let total: f64 = edges_of(dual.edges).map(|e| moved(weights.beta[e]).0).sum();
    let mut out = DualGradient::default();
    for e in edges_of(dual.edges) {
        let (w, slope) = moved(weights.beta[e]);
        let cut = Cut::new(lattice, p, cell, e);
        out.row.beta[e] += slope * g.dot(cut.place() - place) / total;
        let by_crossing = g * (w / total) + by_crossings[e];
        let (by_places, by_values) = crossing_backward(cut.places, cut.values, by_crossing);
        for k in 0..2 {
            let (point, corner) = (cut.points[k], cut.corners[k]);
            let (alpha, slope) = moved(weights.alpha[corner]);
            out.sdf[corner] += by_values[k] * alpha;
            out.row.alpha[corner] += by_values[k] * p.sdf[point] * slope;
            out.deform[corner] += lattice.placed_backward(p.deform[point], by_places[k]);
        }
    }
    out
}
