//! The volume renderer as a whole: the same steps on the processor and on the test adapter.

use glam::Vec3;

use super::vulkan;
use crate::field::{AdamConfig, FieldConfig};
use crate::gpu::backend::Device;
use crate::gpu::pipeline::sources;
use crate::render::camera::Camera;
use crate::render::volume::{
    Background, Mode, RenderGrad, RenderOptions, RenderOutput, State, VolumeConfig, VolumeRenderer,
};
use crate::rng::{Rng, Stream};

/// What a few steps leave behind.
struct Trace {
    last: RenderOutput,
    gradient: [Vec<f32>; 3],
    state: State,
    density: Vec<f32>,
}

fn noise(key: u32, n: usize) -> Vec<f32> {
    let rng = Rng::new(5, Stream::Probe, key);
    (0..n as u64).map(|i| rng.range(i, -1.0, 1.0)).collect()
}

/// Two steps with solid and two with trained backgrounds, each with every loss there is.
fn steps(device: &Device) -> Trace {
    let field =
        FieldConfig { levels: 6, finest_resolution: 64, log2_table: 12, hidden: 32, ..Default::default() };
    let volume =
        VolumeConfig { bins: 48, occupancy_resolution: 16, occupancy_every: 2, ..Default::default() };
    let mut renderer = VolumeRenderer::new(device, &field, &volume, 3).unwrap();
    // ε far above the gradients' rounding errors: else Adam turns the sign of a rounding error into a full step.
    // The MLP's rate is pinned: the tolerances below were measured with it.
    let adam = AdamConfig { eps: 1e-2, lr_mlp: 1e-3, lr_background: 1e-2, ..Default::default() };
    let cameras: Vec<_> = [20.0, 140.0]
        .map(|azimuth| Camera::orbit(azimuth, 15.0, 2.4, Vec3::ZERO, 40f32.to_radians(), 24))
        .into();
    let colors = [Vec3::new(0.9, 0.8, 0.7), Vec3::ONE];
    let mut trace = None;
    for step in 0..4 {
        let background = if step < 2 { Background::Solid(&colors) } else { Background::Mlp };
        let options = RenderOptions { step, mode: Mode::Train, normals: step % 2 == 1 };
        let last = renderer.render(&cameras, background, options).unwrap();
        let pixels = last.opacity.len();
        let [rgb, normal] = [1, 2].map(|key| noise(8 * step + key, 3 * pixels));
        let [opacity, depth, variance, orientation] = [3, 4, 5, 6].map(|key| noise(8 * step + key, pixels));
        let grad = RenderGrad {
            rgb: Some(&rgb),
            opacity: Some(&opacity),
            depth: Some(&depth),
            z_variance: Some(&variance),
            normal: options.normals.then_some(&normal[..]),
            orientation: options.normals.then_some(&orientation[..]),
        };
        renderer.backward(&grad).unwrap();
        let gradient = renderer.gradient().unwrap();
        renderer.step(&adam).unwrap();
        renderer.update_occupancy(step).unwrap();
        trace = Some((last, gradient));
    }
    let (last, gradient) = trace.unwrap();
    let points: Vec<_> = noise(99, 300).as_chunks::<3>().0.iter().map(|p| Vec3::from_array(*p)).collect();
    Trace { last, gradient, state: renderer.state().unwrap(), density: renderer.density(&points).unwrap() }
}

/// Largest difference over the largest magnitude.
fn error(wanted: &[f32], found: &[f32]) -> f64 {
    assert_eq!(wanted.len(), found.len());
    let scale = wanted.iter().fold(1e-30f32, |m, v| m.max(v.abs()));
    let worst = wanted.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    assert!(found.iter().all(|v| v.is_finite()));
    f64::from(worst / scale)
}

fn compare(native_atomics: bool) {
    let Some(gpu) = vulkan(native_atomics, sources()) else { return };
    let (wanted, found) = (steps(&Device::cpu()), steps(&gpu));
    let mut rows = vec![
        ("rgb", error(&wanted.last.rgb, &found.last.rgb)),
        ("opacity", error(&wanted.last.opacity, &found.last.opacity)),
        ("depth", error(&wanted.last.depth, &found.last.depth)),
        ("z_variance", error(&wanted.last.z_variance, &found.last.z_variance)),
        ("density", error(&wanted.density, &found.density)),
    ];
    for (normal, other) in wanted.last.normal.iter().zip(&found.last.normal) {
        rows.push(("normal", error(normal, other)));
    }
    for (name, (a, b)) in
        ["d grid", "d mlp", "d background"].iter().zip(wanted.gradient.iter().zip(&found.gradient))
    {
        rows.push((name, error(a, b)));
    }
    for (name, values) in &wanted.state {
        rows.push((name.as_str(), error(values, &found.state[name])));
    }
    for (name, error) in &rows {
        eprintln!("  native atomics {native_atomics}: {name:24} {error:9.2e}");
        // Each kernel agrees to 1e-5 or better; four steps and a finite difference of densities over
        // twice 0.01 amplify that by some tens.
        assert!(*error < 1e-3, "{name}: {error}");
    }
}

#[test]
fn a_few_steps_agree_with_native_atomics() {
    compare(true);
}

#[test]
fn a_few_steps_agree_with_compare_exchange_atomics() {
    compare(false);
}

#[test]
fn a_checkpoint_moves_between_devices() {
    let Some(gpu) = vulkan(true, sources()) else { return };
    let (field, volume) = (FieldConfig::default(), VolumeConfig::default());
    let a = VolumeRenderer::new(&Device::cpu(), &field, &volume, 1).unwrap();
    let mut b = VolumeRenderer::new(&gpu, &field, &volume, 2).unwrap();
    let state = a.state().unwrap();
    b.load_state(&state).unwrap();
    for (name, values) in &b.state().unwrap() {
        assert_eq!(values, &state[name], "{name}");
    }
}
