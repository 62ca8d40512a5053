//! Marching cubes on a regular grid (Lorensen & Cline 1987) with a crack-free case table.

use glam::Vec3;

use super::table::{CASES, EDGES, Loop};
use super::{CHUNK, TriMesh};
use crate::Result;

/// Scalars at the points of a regular grid over a cube.
#[derive(Debug, Clone)]
pub struct Grid {
    /// Points per axis (cells + 1).
    pub points: usize,
    /// First point.
    pub origin: Vec3,
    /// Distance between neighbours.
    pub spacing: f32,
    /// Value of point `(x, y, z)` at `(z·points + y)·points + x`.
    pub values: Vec<f32>,
}

impl Grid {
    /// Samples `f` over [-1,1]³ with `cells` cells per axis, in chunks of 65,536 points.
    /// `progress` hears the finished fraction and may stop the work with an error.
    ///
    /// # Errors
    /// Only those of `progress`.
    pub fn sample(
        cells: usize,
        f: &(dyn Fn(&[Vec3]) -> Vec<f32> + Sync),
        mut progress: impl FnMut(f32) -> Result<()>,
    ) -> Result<Self> {
        let points = cells + 1;
        let total = points.pow(3);
        let mut grid = Self {
            points,
            origin: Vec3::NEG_ONE,
            spacing: 2.0 / cells as f32,
            values: Vec::with_capacity(total),
        };
        let mut chunk = Vec::with_capacity(CHUNK.min(total));
        for start in (0..total).step_by(CHUNK) {
            let end = (start + CHUNK).min(total);
            chunk.clear();
            chunk.extend((start..end).map(|i| grid.position(i)));
            grid.values.extend(f(&chunk));
            progress(end as f32 / total as f32)?;
        }
        Ok(grid)
    }

    /// World position of point `index`.
    pub fn position(&self, index: usize) -> Vec3 {
        let n = self.points;
        self.origin
            + self.spacing * Vec3::new((index % n) as f32, (index / n % n) as f32, (index / n / n) as f32)
    }

    /// True for points on the hull of the grid.
    pub fn on_hull(&self, index: usize) -> bool {
        let n = self.points;
        [index % n, index / n % n, index / n / n].iter().any(|&i| i == 0 || i == n - 1)
    }

    /// Lowers the points on the hull to at most `outside`, so that the surface closes in the box.
    pub fn close_hull(&mut self, outside: f32) {
        for index in 0..self.values.len() {
            if self.on_hull(index) {
                self.values[index] = self.values[index].min(outside);
            }
        }
    }
}

/// Vertices keep this share of a grid edge away from its ends, so that no two of them coincide
/// where a grid value equals the iso value (and no triangle has a zero area).
const MARGIN: f32 = 1e-3;

/// The surface `value = iso`, outward towards lower values, vertices by linear interpolation.
/// Closed (every edge has two triangles, every vertex one fan) wherever the hull of the grid is
/// below `iso`, see [`Grid::close_hull`]. NaN counts as outside.
pub fn extract(grid: &Grid, iso: f32) -> TriMesh {
    let n = grid.points;
    let mut march = March { grid, iso, layers: Layers::new(n), mesh: TriMesh::default() };
    if n < 2 {
        return march.mesh;
    }
    march.vertices_of_layer(0);
    for z in 0..n - 1 {
        march.vertices_of_columns(z);
        march.layers.swap();
        march.vertices_of_layer(z + 1);
        march.triangles_of_slab(z);
    }
    march.mesh
}

/// Vertex indices on the grid edges of one slab of cells.
struct Layers {
    x: [Vec<u32>; 2],
    y: [Vec<u32>; 2],
    z: Vec<u32>,
}

impl Layers {
    fn new(n: usize) -> Self {
        let layer = || vec![0; n * n];
        Self { x: [layer(), layer()], y: [layer(), layer()], z: layer() }
    }

    /// The upper layer of the last slab is the lower layer of the next one.
    fn swap(&mut self) {
        self.x.swap(0, 1);
        self.y.swap(0, 1);
    }

    /// The vertex on cell edge `edge` of the cell whose first corner is point `at` of the layer.
    fn vertex(&self, edge: u8, at: usize, n: usize) -> u32 {
        let corner = usize::from(EDGES[usize::from(edge)][0]);
        let index = at + (corner & 1) + (corner >> 1 & 1) * n;
        match edge / 4 {
            0 => self.x[corner >> 2][index],
            1 => self.y[corner >> 2][index],
            _ => self.z[index],
        }
    }
}

struct March<'a> {
    grid: &'a Grid,
    iso: f32,
    /// Index 1 holds the most recent layer, index 0 the one below.
    layers: Layers,
    mesh: TriMesh,
}

impl March<'_> {
    /// The vertex between points `a` and `b`, if the surface passes there.
    fn cross(&mut self, a: usize, b: usize) -> Option<u32> {
        let (va, vb) = (self.grid.values[a], self.grid.values[b]);
        if (va > self.iso) == (vb > self.iso) {
            return None;
        }
        let t = (self.iso - va) / (vb - va);
        let t = if t.is_finite() { t.clamp(MARGIN, 1.0 - MARGIN) } else { 0.5 };
        let position = self.grid.position(a).lerp(self.grid.position(b), t);
        self.mesh.positions.push(position);
        Some(self.mesh.positions.len() as u32 - 1)
    }

    fn vertices_of_layer(&mut self, z: usize) {
        let n = self.grid.points;
        for at in 0..n * n {
            let point = z * n * n + at;
            if at % n + 1 < n
                && let Some(v) = self.cross(point, point + 1)
            {
                self.layers.x[1][at] = v;
            }
            if at / n + 1 < n
                && let Some(v) = self.cross(point, point + n)
            {
                self.layers.y[1][at] = v;
            }
        }
    }

    fn vertices_of_columns(&mut self, z: usize) {
        let n = self.grid.points;
        for at in 0..n * n {
            let point = z * n * n + at;
            if let Some(v) = self.cross(point, point + n * n) {
                self.layers.z[at] = v;
            }
        }
    }

    fn triangles_of_slab(&mut self, z: usize) {
        let n = self.grid.points;
        for at in 0..(n - 1) * n {
            if at % n + 1 == n {
                continue;
            }
            let case = self.case(z * n * n + at);
            for polygon in &CASES[case] {
                self.emit(polygon, at);
            }
        }
    }

    fn case(&self, point: usize) -> usize {
        let n = self.grid.points;
        (0..8).fold(0, |case, c| {
            let corner = point + (c & 1) + (c >> 1 & 1) * n + (c >> 2) * n * n;
            case | usize::from(self.grid.values[corner] > self.iso) << c
        })
    }

    fn emit(&mut self, polygon: &Loop, at: usize) {
        let n = self.grid.points;
        let vertex = |e: u8| self.layers.vertex(e, at, n);
        if !polygon.triangles.is_empty() {
            self.mesh.triangles.extend(polygon.triangles.iter().map(|t| t.map(vertex)));
            return;
        }
        let ring: Vec<u32> = polygon.edges.iter().map(|&e| vertex(e)).collect();
        let sum: Vec3 = ring.iter().map(|&v| self.mesh.positions[v as usize]).sum();
        let centre = self.mesh.positions.len() as u32;
        self.mesh.positions.push(sum / ring.len() as f32);
        for i in 0..ring.len() {
            self.mesh.triangles.push([centre, ring[i], ring[(i + 1) % ring.len()]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;
    use crate::mesh::testing::{grid_of, noise_grid, sphere};
    use crate::mesh::topology::{euler_characteristic, is_manifold, is_watertight, signed_volume};

    #[test]
    fn sphere_is_closed_and_its_volume_converges_with_second_order() {
        let radius = 0.7f64;
        let exact = 4.0 / 3.0 * PI * radius.powi(3);
        let errors: Vec<f64> = [16, 32, 64, 128]
            .iter()
            .map(|&cells| {
                let mesh = sphere(cells, radius as f32);
                assert!(is_watertight(&mesh) && is_manifold(&mesh));
                assert_eq!(euler_characteristic(&mesh), 2);
                let volume = signed_volume(&mesh);
                assert!(volume > 0.0, "normals point inwards");
                (volume - exact).abs()
            })
            .collect();
        for pair in errors.windows(2) {
            let order = (pair[0] / pair[1]).log2();
            // Halving h divides an O(h²) error by 4; sampling of the sphere by the grid wobbles it.
            assert!((1.7..2.4).contains(&order), "order {order}, errors {errors:?}");
        }
    }

    #[test]
    fn torus_has_euler_characteristic_zero() {
        let mesh = extract(&grid_of(48, |p| 0.25 - (p.truncate().length() - 0.6).hypot(p.z)), 0.0);
        assert!(is_watertight(&mesh) && is_manifold(&mesh));
        assert_eq!(euler_characteristic(&mesh), 0);
        // Pappus: 2π² R r².
        let exact = 2.0 * PI * PI * 0.6 * 0.25f64.powi(2);
        assert!((signed_volume(&mesh) / exact - 1.0).abs() < 0.02);
    }

    #[test]
    fn noise_gives_a_closed_oriented_manifold() {
        for seed in 0..6 {
            let mesh = extract(&noise_grid(14, seed), 0.0);
            assert!(mesh.triangles.len() > 5_000);
            assert!(is_watertight(&mesh), "seed {seed}");
            assert!(is_manifold(&mesh), "seed {seed}");
            assert_eq!(euler_characteristic(&mesh) % 2, 0);
            let smallest =
                (0..mesh.triangles.len()).map(|t| mesh.area_vector(t).length()).fold(1.0, f32::min);
            assert!(smallest > 0.0);
        }
    }

    #[test]
    fn values_equal_to_iso_and_non_finite_values_are_harmless() {
        // Integers on a lattice: most surface points sit exactly on grid values.
        let mut grid = grid_of(12, |p| 4.0 - (6.0 * p).abs().element_sum().round());
        let centre = grid.values.len() / 2;
        grid.values[centre] = f32::NAN;
        grid.values[centre + 1] = f32::INFINITY;
        let mesh = extract(&grid, 0.0);
        assert!(is_watertight(&mesh) && is_manifold(&mesh));
        assert!(mesh.positions.iter().all(|p| p.is_finite()));
        assert!((0..mesh.triangles.len()).all(|t| mesh.area_vector(t).length() > 0.0));
    }

    #[test]
    fn a_filled_box_closes_at_the_hull() {
        let mut grid = grid_of(8, |_| 1.0);
        grid.close_hull(0.0);
        let mesh = extract(&grid, 0.5);
        assert!(is_watertight(&mesh));
        assert_eq!(euler_characteristic(&mesh), 2);
        assert!(extract(&grid, 2.0).triangles.is_empty());
    }
}
