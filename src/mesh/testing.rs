//! Shapes that the tests of this room share.

use glam::Vec3;

use super::TriMesh;
use super::iso::{Grid, extract};
use crate::rng::{Rng, Stream};

pub(super) fn grid_of(cells: usize, f: impl Fn(Vec3) -> f32 + Sync) -> Grid {
    let sample = |p: &[Vec3]| p.iter().map(|p| f(*p)).collect();
    Grid::sample(cells, &sample, |_| Ok(())).expect("progress never stops it")
}

pub(crate) fn sphere(cells: usize, radius: f32) -> TriMesh {
    extract(&grid_of(cells, |p| radius - p.length()), 0.0)
}

/// White noise with an outside hull: every case of the table turns up.
pub(super) fn noise_grid(cells: usize, seed: u64) -> Grid {
    let mut grid = grid_of(cells, |_| 0.0);
    let n = grid.values.len();
    grid.values = Rng::new(seed, Stream::Probe, 0).normals(0, n);
    grid.close_hull(-1.0);
    grid
}

/// The unit cube [0,1]³.
pub(crate) fn cube() -> TriMesh {
    let positions = (0..8).map(|c| Vec3::new((c & 1) as f32, (c >> 1 & 1) as f32, (c >> 2) as f32)).collect();
    let quads = [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]];
    let triangles = quads.iter().flat_map(|&[a, b, c, d]| [[a, b, c], [a, c, d]]).collect();
    TriMesh { positions, triangles }
}

/// A solid box whose faces lie between grid points.
pub(super) fn cube_grid(cells: usize) -> Grid {
    grid_of(cells, |p| 0.51 - p.abs().max_element())
}
