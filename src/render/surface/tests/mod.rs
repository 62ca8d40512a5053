//! Oracles of the surface renderer.

mod closed_forms;
mod gradients;
pub(crate) mod reference;
mod training;

use glam::Vec3;

use super::{Paint, SurfaceInput, SurfaceOptions, SurfaceOutput, SurfaceRenderer, Topology};
use crate::gpu::backend::Device;
use crate::render::camera::Camera;
use crate::rng::{Rng, Stream};

/// `n` numbers in [-size, size), another series for each `key`.
fn noise(key: u32, n: usize, size: f32) -> Vec<f32> {
    let rng = Rng::new(77, Stream::Probe, key);
    (0..n as u64).map(|i| rng.range(i, -size, size)).collect()
}

/// Corners of [-½, ½]³, and its triangles counter-clockwise as seen from outside.
fn cube() -> (Vec<f32>, Vec<[u32; 3]>) {
    let positions = (0..8).flat_map(|i| [0, 1, 2].map(|axis| ((i >> axis & 1) as f32) - 0.5)).collect();
    let quads = [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]];
    (positions, quads.into_iter().flat_map(|[a, b, c, d]| [[a, b, c], [a, c, d]]).collect())
}

fn cameras(n: u32, size: u32) -> Vec<Camera> {
    (0..n)
        .map(|i| {
            let turn = 360.0 * i as f32 / n as f32 + 17.0;
            Camera::orbit(turn, 25.0, 2.6, Vec3::new(0.03, 0.02, 0.01), 40f32.to_radians(), size)
        })
        .collect()
}

/// Draws with vertex colours.
fn draw(
    positions: &[f32],
    triangles: &[[u32; 3]],
    colors: &[f32],
    cameras: &[Camera],
    options: &SurfaceOptions,
) -> SurfaceOutput {
    let topology = Topology::new(positions.len() / 3, triangles).unwrap();
    let mut renderer = SurfaceRenderer::new(&Device::cpu(), &topology).unwrap();
    let backgrounds = vec![Vec3::new(0.1, 0.2, 0.3); cameras.len()];
    let input = SurfaceInput { positions, paint: Paint::Colors(colors), cameras, backgrounds: &backgrounds };
    renderer.render(&input, options).unwrap()
}
