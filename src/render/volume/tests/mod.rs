//! Oracles of the volume renderer.

mod closed_forms;
mod gradients;
mod points;
mod reference;
mod training;

use glam::Vec3;

use super::{Mode, RenderOptions, State, VolumeConfig, VolumeRenderer};
use crate::field::{DensityActivation, FieldConfig};
use crate::gpu::backend::Device;
use crate::render::camera::Camera;
use crate::rng::{Rng, Stream};

/// Two dense levels and two hashed ones.
fn small_field(activation: DensityActivation) -> FieldConfig {
    FieldConfig {
        levels: 4,
        base_resolution: 4,
        finest_resolution: 24,
        log2_table: 9,
        hidden: 16,
        activation,
        blob_scale: 3.0,
        blob_radius: 0.6,
        ..Default::default()
    }
}

fn small_volume() -> VolumeConfig {
    VolumeConfig { bins: 40, occupancy_resolution: 8, normal_threshold: 1e-3, ..Default::default() }
}

fn cameras(n: u32, size: u32) -> Vec<Camera> {
    (0..n)
        .map(|i| {
            let turn = 360.0 * i as f32 / n as f32;
            Camera::orbit(turn + 10.0, 15.0, 2.4, Vec3::ZERO, 40f32.to_radians(), size)
        })
        .collect()
}

fn options(step: u32, normals: bool) -> RenderOptions {
    RenderOptions { step, mode: Mode::Train, normals }
}

/// A renderer with features large enough to matter, and every cell occupied.
fn rough(activation: DensityActivation) -> VolumeRenderer {
    let mut renderer =
        VolumeRenderer::new(&Device::cpu(), &small_field(activation), &small_volume(), 5).unwrap();
    let mut state = renderer.state().unwrap();
    roughen(&mut state, 0.5);
    renderer.load_state(&state).unwrap();
    renderer
}

fn roughen(state: &mut State, size: f32) {
    let rng = Rng::new(9, Stream::Probe, 0);
    for (i, x) in state.get_mut("field.grid").unwrap().iter_mut().enumerate() {
        *x = rng.range(i as u64, -size, size);
    }
    state.get_mut("occupancy.ema").unwrap().fill(1e6);
    // One cell below the mean: the bits are those above it.
    state.get_mut("occupancy.ema").unwrap()[0] = 0.0;
}
