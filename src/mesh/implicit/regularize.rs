//! Penalties on surfaces and on signed distances, with exact gradients.

use glam::DVec3;

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

/// Undirected edges `(low, high, triangle)`, sorted: an inner edge is there twice.
fn edges(triangles: &[[u32; 3]]) -> Vec<(u32, u32, usize)> {
    let mut out: Vec<(u32, u32, usize)> = triangles
        .iter()
        .enumerate()
        .flat_map(|(t, &[a, b, c])| [(a, b), (b, c), (c, a)].map(|(i, j)| (i.min(j), i.max(j), t)))
        .collect();
    out.sort_unstable();
    out
}

/// Normal consistency: the mean over inner edges of 1 − cos of the angle between both triangles' normals.
pub fn normal_consistency(positions: &[DVec3], triangles: &[[u32; 3]]) -> Penalty<DVec3> {
    let areas: Vec<DVec3> = triangles
        .iter()
        .map(|t| {
            let [a, b, c] = t.map(|v| positions[v as usize]);
            (b - a).cross(c - a)
        })
        .collect();
    let normals: Vec<DVec3> =
        areas.iter().map(|a| if a.length() > FLAT { a.normalize() } else { DVec3::ZERO }).collect();
    let edges = edges(triangles);
    let inner: Vec<[usize; 2]> =
        edges.windows(2).filter(|w| (w[0].0, w[0].1) == (w[1].0, w[1].1)).map(|w| [w[0].2, w[1].2]).collect();
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
    let mut pairs: Vec<[usize; 2]> =
        edges(triangles).into_iter().map(|(a, b, _)| [a as usize, b as usize]).collect();
    pairs.dedup();
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

/// Lattice edges along the axes.
fn lattice_edges(lattice: Lattice) -> impl Iterator<Item = [usize; 2]> {
    let n = lattice.cells() + 1;
    (0..lattice.len()).flat_map(move |i| {
        let at = lattice.coordinates(i);
        (0..3).filter(move |&axis| at[axis] + 1 < n).map(move |axis| [i, i + n.pow(axis as u32)])
    })
}

/// Changes of sign (Munkberg et al., "Extracting Triangular 3D Models, Materials, and Lighting From
/// Images", 2022, eq. 2): the mean over the edges whose ends differ in sign of the cross-entropies of
/// each end's sigmoid with the other's sign. Removes floaters and inner walls.
pub fn sign_changes(lattice: Lattice, sdf: &[f64]) -> Penalty<f64> {
    let cut: Vec<[usize; 2]> =
        lattice_edges(lattice).filter(|&[a, b]| (sdf[a] > 0.0) != (sdf[b] > 0.0)).collect();
    let scale = 1.0 / cut.len().max(1) as f64;
    let mut out = Penalty { value: 0.0, gradient: vec![0.0; sdf.len()] };
    for [a, b] in cut {
        for (x, y) in [(a, b), (b, a)] {
            let (s, target) = (sdf[x], if sdf[y] > 0.0 { 1.0 } else { 0.0 });
            out.value += scale * (s.max(0.0) - s * target + (-s.abs()).exp().ln_1p());
            out.gradient[x] += scale * (1.0 / (1.0 + (-s).exp()) - target);
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
