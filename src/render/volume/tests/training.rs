//! Whole optimisations: a known scene, reproducibility, resuming, skipping.

use glam::Vec3;

use super::super::{Background, Mode, RenderGrad, RenderOptions, State, VolumeConfig, VolumeRenderer};
use super::{cameras, options, roughen, small_field};
use crate::field::{AdamConfig, DensityActivation, FieldConfig};
use crate::gpu::backend::Device;
use crate::render::camera::Camera;
use crate::rng::{Rng, Stream};

/// Two shaded spheres over a white background; linear rgb, row-major.
fn spheres(camera: &Camera) -> Vec<f32> {
    let balls = [
        (Vec3::new(-0.2, 0.0, 0.0), 0.35, Vec3::new(0.8, 0.2, 0.1)),
        (Vec3::new(0.3, 0.25, 0.1), 0.22, Vec3::new(0.1, 0.3, 0.9)),
    ];
    let mut picture = Vec::new();
    for pixel in 0..camera.width * camera.height {
        let (x, y) = ((pixel % camera.width) as f32 + 0.5, (pixel / camera.width) as f32 + 0.5);
        let (origin, direction) = (camera.origin(), camera.direction(x, y));
        let mut color = Vec3::ONE;
        let mut nearest = f32::MAX;
        for (center, radius, albedo) in balls {
            let b = (origin - center).dot(direction);
            let root = b * b - (origin - center).length_squared() + radius * radius;
            let t = -b - root.max(0.0).sqrt();
            if root > 0.0 && t < nearest {
                nearest = t;
                let normal = (origin + direction * t - center) / radius;
                color = albedo * (0.75 + 0.25 * normal.y);
            }
        }
        picture.extend(color.to_array());
    }
    picture
}

fn view(rng: Rng, index: u64, size: u32) -> Camera {
    let azimuth = rng.range(2 * index, 0.0, 360.0);
    let elevation = rng.range(2 * index + 1, -10.0, 50.0);
    Camera::orbit(azimuth, elevation, 2.4, Vec3::ZERO, 40f32.to_radians(), size)
}

fn fit(renderer: &mut VolumeRenderer, steps: std::ops::Range<u32>, size: u32) {
    let white = [Vec3::ONE; 2];
    for step in steps {
        let rng = Rng::new(3, Stream::Camera, step);
        let cameras = [view(rng, 0, size), view(rng, 1, size)];
        let want: Vec<f32> = cameras.iter().flat_map(spheres).collect();
        let output = renderer.render(&cameras, Background::Solid(&white), options(step, false)).unwrap();
        let scale = 2.0 / want.len() as f32;
        let grad: Vec<f32> = output.rgb.iter().zip(&want).map(|(x, y)| scale * (x - y)).collect();
        renderer.backward(&RenderGrad { rgb: Some(&grad), ..Default::default() }).unwrap();
        renderer.step(&AdamConfig::default()).unwrap();
        renderer.update_occupancy(step).unwrap();
    }
}

#[test]
fn a_known_scene_is_fitted_from_its_pictures() {
    let mut renderer =
        VolumeRenderer::new(&Device::cpu(), &FieldConfig::default(), &VolumeConfig::default(), 1).unwrap();
    fit(&mut renderer, 0..80, 64);
    // Views that were never trained on.
    let held_out: Vec<Camera> = (0..4).map(|i| view(Rng::new(4, Stream::Probe, 0), i, 64)).collect();
    let want: Vec<f32> = held_out.iter().flat_map(spheres).collect();
    let options = RenderOptions { step: 80, mode: Mode::Eval, normals: false };
    let output = renderer.render(&held_out, Background::Solid(&[Vec3::ONE; 4]), options).unwrap();
    let error: f64 = output.rgb.iter().zip(&want).map(|(x, y)| f64::from(x - y).powi(2)).sum();
    let psnr = -10.0 * (error / want.len() as f64).log10();
    let share = renderer.occupied_share().unwrap();
    eprintln!("psnr {psnr:.2} dB, occupied {share:.3}, samples {}", output.samples);
    assert!(psnr > 25.0, "{psnr}");
    assert!(share < 0.2, "{share}");
    // The centre of the big sphere is full, the corner of the box empty.
    let density = renderer.density(&[Vec3::new(-0.2, 0.0, 0.3), Vec3::splat(0.9)]).unwrap();
    assert!(density[0] > 5.0 && density[1] < 0.1, "{density:?}");
}

fn small() -> VolumeRenderer {
    let volume = VolumeConfig { occupancy_resolution: 16, occupancy_every: 4, ..Default::default() };
    VolumeRenderer::new(&Device::cpu(), &small_field(DensityActivation::Softplus), &volume, 7).unwrap()
}

#[test]
fn threads_do_not_change_a_byte() {
    let run = |threads| -> State {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut renderer = small();
            fit(&mut renderer, 0..6, 32);
            renderer.state().unwrap()
        })
    };
    assert!(run(1) == run(3));
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    let mut whole = small();
    fit(&mut whole, 0..5, 24);
    let saved = whole.state().unwrap();
    fit(&mut whole, 5..10, 24);
    let mut resumed = small();
    fit(&mut resumed, 0..2, 24);
    resumed.load_state(&saved).unwrap();
    fit(&mut resumed, 5..10, 24);
    assert!(whole.state().unwrap() == resumed.state().unwrap());
    assert!(saved != whole.state().unwrap());
}

#[test]
fn a_wrong_state_is_refused_and_changes_nothing() {
    let mut renderer = small();
    let before = renderer.state().unwrap();
    let mut bad = before.clone();
    bad.get_mut("field.grid").unwrap().fill(1.0);
    bad.remove("field.mlp.adam_v");
    assert!(renderer.load_state(&bad).unwrap_err().to_string().contains("field.mlp.adam_v"));
    let mut bad = before.clone();
    bad.get_mut("field.mlp").unwrap()[3] = f32::NAN;
    assert!(renderer.load_state(&bad).is_err());
    bad.get_mut("field.mlp").unwrap().pop();
    assert!(renderer.load_state(&bad).is_err());
    assert!(renderer.state().unwrap() == before);
}

#[test]
fn skipping_empty_cells_changes_no_more_than_their_density() {
    let field =
        FieldConfig { blob_scale: 10.0, blob_radius: 0.5, ..small_field(DensityActivation::Softplus) };
    let volume = VolumeConfig { occupancy_resolution: 16, occupancy_every: 4, ..Default::default() };
    let mut renderer = VolumeRenderer::new(&Device::cpu(), &field, &volume, 7).unwrap();
    let mut state = renderer.state().unwrap();
    roughen(&mut state, 1e-4);
    renderer.load_state(&state).unwrap();
    let cameras = cameras(2, 24);
    let black = [Vec3::ZERO; 2];
    let options = RenderOptions { step: 0, mode: Mode::Eval, normals: false };
    let full = renderer.render(&cameras, Background::Solid(&black), options).unwrap();
    // Several samples a cell, so that a cell that the blob only grazes is found.
    state.get_mut("occupancy.ema").unwrap().fill(0.0);
    renderer.load_state(&state).unwrap();
    for step in (0..64).step_by(4) {
        renderer.update_occupancy(step).unwrap();
    }
    let skipped = renderer.render(&cameras, Background::Solid(&black), options).unwrap();
    assert!(skipped.samples * 2 < full.samples, "{} {}", skipped.samples, full.samples);
    let threshold = renderer.volume_config().occupancy_threshold;
    for (a, b) in skipped.opacity.iter().zip(&full.opacity) {
        // A ray is in skipped cells for at most the box's diagonal, at no more than the threshold
        // (twice: a cell's maximum is above its random samples).
        assert!(a <= b && b - a < 2.0 * threshold * 2.0 * 3f32.sqrt(), "{a} {b}");
    }
}

#[test]
fn the_memory_estimate_covers_the_parameters() {
    let (field, volume) = (FieldConfig::default(), VolumeConfig::default());
    let memory = VolumeRenderer::memory(&field, &volume, 4 * 64 * 64);
    let params = (field.grid_params() + field.mlp_params()) as u64;
    assert!(memory.parameters > 16 * params && memory.parameters < 16 * params + (2 << 20));
    // 16 k rays, 96 bins, 40 words a sample.
    assert!((150 << 20..600 << 20).contains(&memory.work_at_most), "{memory:?}");
}
