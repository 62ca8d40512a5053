//! Penalties on surfaces and on signed distances, with exact gradients.

use glam::DVec3;
use rayon::prelude::*;

use super::Lattice;

/// A penalty and its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct Penalty<T> {
    /// The penalty.
    pub value: f64,
    /// By each vertex or point.
    pub gradient: Vec<T>,
}

/// Twice a triangle's area below which it has no normal.
const FLAT: f64 = 1e-14;

/// The undirected edges of triangles, found once for several penalties.
#[derive(Debug, Clone)]
pub struct Edges {
    /// `(low << 32 | high, triangle)`, sorted: an inner edge is there twice.
    sorted: Vec<(u64, u32)>,
}

impl Edges {
    /// The edges of `triangles`.
    pub fn of(triangles: &[[u32; 3]]) -> Self {
        let each = |(t, &[a, b, c]): (usize, &[u32; 3])| {
            [(a, b), (b, c), (c, a)].map(|(i, j)| (u64::from(i.min(j)) << 32 | u64::from(i.max(j)), t as u32))
        };
        let mut sorted: Vec<(u64, u32)> = triangles.par_iter().enumerate().flat_map_iter(each).collect();
        sorted.par_sort_unstable();
        Self { sorted }
    }

    /// Each edge's triangles, for edges of two.
    fn inner(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        let twice = self.sorted.windows(2).filter(|w| w[0].0 == w[1].0);
        twice.map(|w| [w[0].1 as usize, w[1].1 as usize])
    }

    /// Each edge's vertices, once.
    fn ends(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        self.sorted.chunk_by(|a, b| a.0 == b.0).map(|c| [(c[0].0 >> 32) as usize, c[0].0 as u32 as usize])
    }
}

/// Normal consistency: the mean over inner edges of 1 − cos of the angle between both triangles' normals.
pub fn normal_consistency(positions: &[DVec3], triangles: &[[u32; 3]]) -> Penalty<DVec3> {
    normal_consistency_over(positions, triangles, &Edges::of(triangles))
}

/// [`normal_consistency`] with the edges of the same triangles.
pub fn normal_consistency_over(positions: &[DVec3], triangles: &[[u32; 3]], edges: &Edges) -> Penalty<DVec3> {
    let areas: Vec<DVec3> = triangles
        .par_iter()
        .map(|t| {
            let [a, b, c] = t.map(|v| positions[v as usize]);
            (b - a).cross(c - a)
        })
        .collect();
    let normals: Vec<DVec3> =
        areas.iter().map(|a| if a.length() > FLAT { a.normalize() } else { DVec3::ZERO }).collect();
    let inner: Vec<[usize; 2]> = edges.inner().collect();
    let scale = 1.0 / inner.len().max(1) as f64;
    let mut value = 0.0;
    let mut by_normals = vec![DVec3::ZERO; triangles.len()];
    for [s, t] in inner {
        value += scale * (1.0 - normals[s].dot(normals[t]));
        by_normals[s] -= scale * normals[t];
        by_normals[t] -= scale * normals[s];
    }
    let mut gradient = vec![DVec3::ZERO; positions.len()];
    for (k, t) in triangles.iter().enumerate() {
        let length = areas[k].length();
        if length <= FLAT {
            continue;
        }
        let g = (by_normals[k] - normals[k] * normals[k].dot(by_normals[k])) / length;
        let [a, b, c] = t.map(|v| positions[v as usize]);
        let (by_b, by_c) = ((c - a).cross(g), g.cross(b - a));
        gradient[t[0] as usize] -= by_b + by_c;
        gradient[t[1] as usize] += by_b;
        gradient[t[2] as usize] += by_c;
    }
    Penalty { value, gradient }
}

/// The uniform Laplacian: the mean over vertices of the squared distance from the neighbours' mean.
pub fn laplacian(positions: &[DVec3], triangles: &[[u32; 3]]) -> Penalty<DVec3> {
    laplacian_over(positions, &Edges::of(triangles))
}

/// [`laplacian`] with the edges of the triangles.
pub fn laplacian_over(positions: &[DVec3], edges: &Edges) -> Penalty<DVec3> {
    let pairs: Vec<[usize; 2]> = edges.ends().collect();
    let mut sum = vec![DVec3::ZERO; positions.len()];
    let mut degree = vec![0.0; positions.len()];
    for &[a, b] in &pairs {
        sum[a] += positions[b];
        sum[b] += positions[a];
        degree[a] += 1.0;
        degree[b] += 1.0;
    }
    let scale = 1.0 / positions.len().max(1) as f64;
    let off: Vec<DVec3> = (0..positions.len())
        .map(|i| if degree[i] > 0.0 { sum[i] / degree[i] - positions[i] } else { DVec3::ZERO })
        .collect();
    let value = scale * off.iter().map(|o| o.length_squared()).sum::<f64>();
    let mut gradient: Vec<DVec3> = off.iter().map(|o| -2.0 * scale * *o).collect();
    for &[a, b] in &pairs {
        gradient[b] += 2.0 * scale / degree[a] * off[a];
        gradient[a] += 2.0 * scale / degree[b] * off[b];
    }
    Penalty { value, gradient }
}

/// The lattice's edges whose ends differ in sign, by axis, then by their first point.
fn cut_edges(lattice: Lattice, sdf: &[f64]) -> Vec<[usize; 2]> {
    let n = lattice.cells() + 1;
    let along = |axis: usize| {
        let step = n.pow(axis as u32);
        // Rows along x; an edge along x does not leave its row, the others' rows end one earlier.
        let row = move |r: usize| {
            let (first, [y, z]) = (r * n, [r % n, r / n]);
            let last = match axis {
                0 => n - 1,
                1 if y + 1 == n => 0,
                2 if z + 1 == n => 0,
                _ => n,
            };
            let cut = move |i: &usize| (sdf[*i] > 0.0) != (sdf[*i + step] > 0.0);
            (first..first + last).filter(cut).map(move |i| [i, i + step])
        };
        (0..n * n).into_par_iter().flat_map_iter(row)
    };
    (0..3).flat_map(|axis| along(axis).collect::<Vec<_>>()).collect()
}

/// Changes of sign (Munkberg et al., "Extracting Triangular 3D Models, Materials, and Lighting From
/// Images", 2022, eq. 2): the mean over the edges whose ends differ in sign of the cross-entropies of
/// each end's sigmoid with the other's sign. Removes floaters and inner walls. Distances count in units of
/// `unit`.
pub fn sign_changes(lattice: Lattice, sdf: &[f64], unit: f64) -> Penalty<f64> {
    let cut = cut_edges(lattice, sdf);
    let scale = 1.0 / cut.len().max(1) as f64;
    let mut out = Penalty { value: 0.0, gradient: vec![0.0; sdf.len()] };
    for [a, b] in cut {
        for (x, y) in [(a, b), (b, a)] {
            let (s, target) = (sdf[x] / unit, if sdf[y] > 0.0 { 1.0 } else { 0.0 });
            out.value += scale * (s.max(0.0) - s * target + (-s.abs()).exp().ln_1p());
            out.gradient[x] += scale / unit * (1.0 / (1.0 + (-s).exp()) - target);
        }
    }
    out
}

/// The eikonal equation: the mean over cells of (|∇s| − 1)², the gradient from differences along the edges
/// at a cell's first corner.
pub fn eikonal(lattice: Lattice, sdf: &[f64]) -> Penalty<f64> {
    let (cells, n, h) = (lattice.cells(), lattice.cells() + 1, lattice.spacing());
    let scale = 1.0 / cells.pow(3) as f64;
    let mut out = Penalty { value: 0.0, gradient: vec![0.0; sdf.len()] };
    for cell in 0..cells.pow(3) {
        let i = lattice.index([cell % cells, cell / cells % cells, cell / (cells * cells)]);
        let ends = [i + 1, i + n, i + n * n];
        let slope = ends.map(|j| (sdf[j] - sdf[i]) / h);
        let length = slope.iter().map(|s| s * s).sum::<f64>().sqrt();
        out.value += scale * (length - 1.0).powi(2);
        if length > 0.0 {
            for (j, s) in ends.into_iter().zip(slope) {
                let g = scale * 2.0 * (length - 1.0) * s / length / h;
                out.gradient[j] += g;
                out.gradient[i] -= g;
            }
        }
    }
    out
}
