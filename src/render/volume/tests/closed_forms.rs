//! Known answers: compositing, homogeneous media, parameter counts, Adam.

use glam::Vec3;

use super::super::{Background, Mode, RenderOptions, VolumeConfig, VolumeRenderer};
use super::{cameras, options, rough, small_field};
use crate::field::{DensityActivation, FieldConfig};
use crate::gpu::backend::Device;
use crate::gpu::kernels::{AdamParams, CompositeParams, Kernel};
use crate::gpu::twin;

fn composite_params(rays: u32, early_stop: f32) -> CompositeParams {
    CompositeParams {
        rays,
        first_ray: 0,
        rays_per_background: rays,
        use_weight_grad: 0,
        early_stop,
        pad: [0; 3],
    }
}

fn weights(densities: &[f32], offsets: &[u32]) -> Vec<f32> {
    let rays = offsets.len() - 1;
    let field: Vec<f32> = densities.iter().flat_map(|&d| [d, 0.5, 0.5, 0.5]).collect();
    let intervals = [1.0, 1.0].repeat(densities.len());
    let (mut weights, mut pixels) = (vec![9.0; densities.len()], vec![9.0; rays * 6]);
    let p = composite_params(rays as u32, 0.0);
    twin::composite(&p, offsets, &intervals, &field, &[0.0; 3], &mut weights, &mut pixels);
    weights
}

#[test]
fn weights_are_nerfaccs() {
    // α → σ at δ = 1; the first sample is ray 0, ray 1 is empty, ray 2 has the rest.
    let alphas = [0.4f32, 0.3, 0.8, 0.8, 0.5];
    let densities: Vec<f32> = alphas.iter().map(|a| -(1.0 - a).ln()).collect();
    let got = weights(&densities, &[0, 1, 1, 5]);
    for (got, want) in got.iter().zip([0.4, 0.3, 0.56, 0.112, 0.014]) {
        assert!((got - want).abs() < 1e-6, "{got} {want}");
    }
    let got = weights(&[0.4, 0.8, 0.1, 0.8, 0.1], &[0, 1, 1, 5]);
    for (got, want) in got.iter().zip([0.3297, 0.5507, 0.0428, 0.2239, 0.0174]) {
        assert!((got - want).abs() < 5e-5, "{got} {want}");
    }
}

#[test]
fn gradient_of_the_summed_weights_is_nerfaccs() {
    let densities = [0.4f32, 0.8, 0.1, 0.8, 0.1];
    let offsets = [0, 1, 1, 5];
    let field: Vec<f32> = densities.iter().flat_map(|&d| [d, 0.5, 0.5, 0.5]).collect();
    let intervals = [1.0, 1.0].repeat(5);
    let (mut weights, mut pixels, mut grad) = (vec![0.0; 5], vec![0.0; 18], vec![9.0; 20]);
    let p = composite_params(3, 0.0);
    twin::composite(&p, &offsets, &intervals, &field, &[0.0; 3], &mut weights, &mut pixels);
    // Only the opacity is differentiated: d(Σw)/dσᵢ = δ·exp(−Σσδ) of the ray.
    let by_opacity = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0].repeat(3);
    twin::composite_backward(
        &p,
        &offsets,
        &intervals,
        &field,
        &[0.0; 3],
        &pixels,
        &by_opacity,
        &[0.0],
        &mut grad,
    );
    let rest = (-1.8f32).exp();
    for (i, want) in [0.6703, rest, rest, rest, rest].into_iter().enumerate() {
        assert!((grad[4 * i] - want).abs() < 5e-5, "{i}: {} {want}", grad[4 * i]);
        assert_eq!(grad[4 * i + 1..4 * i + 4], [0.0; 3]);
    }
    assert!((rest - 0.1653).abs() < 5e-5);
}

#[test]
fn a_homogeneous_medium_is_exact_at_any_step_count() {
    for bins in [3, 17, 96] {
        let field = FieldConfig { blob_scale: 0.0, ..small_field(DensityActivation::Softplus) };
        let volume = VolumeConfig { bins, early_stop: 0.0, occupancy_resolution: 8, ..Default::default() };
        let mut renderer = VolumeRenderer::new(&Device::cpu(), &field, &volume, 1).unwrap();
        let mut state = renderer.state().unwrap();
        state.get_mut("field.grid").unwrap().fill(0.0);
        state.get_mut("occupancy.ema").unwrap().fill(1.0);
        renderer.load_state(&state).unwrap();
        // Zero features: the density is log 2 everywhere, the colour 1/2.
        for mode in [Mode::Train, Mode::Eval] {
            let camera = cameras(3, 8);
            let black = [Vec3::ZERO; 3];
            let options = RenderOptions { step: 4, mode, normals: false };
            let output = renderer.render(&camera, Background::Solid(&black), options).unwrap();
            for (i, &opacity) in output.opacity.iter().enumerate() {
                let (view, pixel) = (i / 64, i % 64);
                let ray = camera[view].direction((pixel % 8) as f32 + 0.5, (pixel / 8) as f32 + 0.5);
                let length = chord(camera[view].origin(), ray);
                let want = 1.0 - (-std::f32::consts::LN_2 * length).exp();
                // A chord of 2 in f32 through up to 96 bins.
                assert!((opacity - want).abs() < 1e-5, "{bins} {i}: {opacity} {want}");
                assert!((output.rgb[3 * i] - 0.5 * want).abs() < 1e-5);
            }
        }
    }
}

/// Length of a ray inside [-1, 1]³.
fn chord(origin: Vec3, direction: Vec3) -> f32 {
    let (a, b) = ((-Vec3::ONE - origin) / direction, (Vec3::ONE - origin) / direction);
    (a.max(b).min_element() - a.min(b).max_element()).max(0.0)
}

#[test]
fn parameter_counts_are_tiny_cuda_nns() {
    // Instant-NGP's default for NeRF: 16 levels, 16 to 2048, T = 2^19.
    let field = FieldConfig {
        levels: 16,
        base_resolution: 16,
        finest_resolution: 2048,
        log2_table: 19,
        ..Default::default()
    };
    // Its resolutions by its own formula: 16 · (128^(1/15))^l, one vertex rounded up.
    let vertices = [16, 23, 31, 43, 59, 81, 112, 154, 213, 295, 407, 562, 777, 1073, 1483, 2048];
    let dense = |v: u64| (v * v * v).div_ceil(8) * 8;
    let want: u64 = vertices.iter().map(|&v| 2 * dense(v).min(1 << 19)).sum();
    assert_eq!(field.table().iter().map(|l| u64::from(l.vertices)).collect::<Vec<_>>(), vertices);
    assert_eq!(field.grid_params() as u64, want);
    assert!(field.table().iter().all(|l| (l.hashed == 1) == (l.vertices > 80)));
    assert_eq!(field.mlp_params(), 32 * 32 + 32 * 4);
}

#[test]
fn levels_switch_on_one_by_one() {
    let field = FieldConfig { start_levels: 2, level_every: 10, ..small_field(DensityActivation::Softplus) };
    assert_eq!([0, 9, 10, 25, 1000].map(|s| field.active_levels(s)), [2, 2, 3, 4, 4]);
    // A level that is off is seen by no point, and gets no gradient.
    let renderer = VolumeRenderer::new(&Device::cpu(), &field, &VolumeConfig::default(), 5).unwrap();
    let mut state = renderer.state().unwrap();
    let mut other = VolumeRenderer::new(&Device::cpu(), &field, &VolumeConfig::default(), 5).unwrap();
    let first_off = 2 * field.table()[2].offset as usize;
    state.get_mut("field.grid").unwrap()[first_off..].fill(7.0);
    other.load_state(&state).unwrap();
    let points = [Vec3::new(0.1, 0.2, -0.3), Vec3::new(-0.4, 0.0, 0.2)];
    assert_eq!(renderer.density(&points).unwrap(), other.density(&points).unwrap());
    state.get_mut("field.grid").unwrap()[..first_off].fill(1.0);
    other.load_state(&state).unwrap();
    assert_ne!(renderer.density(&points).unwrap(), other.density(&points).unwrap());
}

#[test]
fn adam_is_the_papers() {
    let (mut x, mut m, mut v) = (vec![1.0f32, -2.0, 0.5], vec![0.0; 3], vec![0.0; 3]);
    let mut want = [1.0f64, -2.0, 0.5];
    let (mut wm, mut wv) = ([0.0f64; 3], [0.0f64; 3]);
    for t in 1..=20 {
        let grads = [0.3 * f64::from(t), -1e-3, (f64::from(t)).sin()];
        let (c1, c2) = (1.0 - 0.9f64.powi(t), 1.0 - 0.99f64.powi(t));
        let p = AdamParams {
            n: 3,
            rate: (0.01 / c1) as f32,
            beta1: 0.9,
            beta2: 0.99,
            v_scale: c2.sqrt().recip() as f32,
            eps: 1e-8,
            pad: [0; 2],
        };
        let mut g = grads.map(|g| g as f32);
        twin::adam(&p, &mut x, &mut g, &mut m, &mut v);
        assert_eq!(g, [0.0; 3]);
        for i in 0..3 {
            wm[i] = 0.9 * wm[i] + 0.1 * grads[i];
            wv[i] = 0.99 * wv[i] + 0.01 * grads[i] * grads[i];
            want[i] -= 0.01 * (wm[i] / c1) / ((wv[i] / c2).sqrt() + 1e-8);
            // Twenty steps of 0.01, each rounded: 20 · 6e-8 · 2.
            assert!((f64::from(x[i]) - want[i]).abs() < 3e-6, "{t} {i}: {} {}", x[i], want[i]);
        }
    }
}

#[test]
fn density_queries_agree_with_the_render_and_are_cut_at_the_box() {
    let renderer = rough(DensityActivation::Softplus);
    let points = [Vec3::new(0.2, 0.1, 0.0), Vec3::new(1.2, 0.0, 0.0)];
    let density = renderer.density(&points).unwrap();
    assert!(density[0] > 0.0 && density[1] == 0.0);
    assert!(renderer.color(&points).unwrap()[0].min_element() > 0.0);
    assert!(renderer.density(&[]).unwrap().is_empty());
}

#[test]
fn a_ray_that_misses_shows_the_background() {
    let mut renderer = rough(DensityActivation::Softplus);
    let mut camera = cameras(1, 4);
    camera[0].c2w.w_axis.x += 50.0;
    let color = [Vec3::new(0.2, 0.3, 0.4)];
    let output = renderer.render(&camera, Background::Solid(&color), options(0, true)).unwrap();
    assert_eq!(output.samples, 0);
    assert_eq!(output.rgb, [0.2, 0.3, 0.4].repeat(16));
    assert_eq!(output.opacity, [0.0; 16]);
    assert!(renderer.render(&[], Background::Mlp, options(0, false)).is_err());
    assert!(renderer.render(&camera, Background::Solid(&[]), options(0, false)).is_err());
}

#[test]
fn the_cpu_refuses_wrong_bindings() {
    let device = Device::cpu();
    let buffer = device.create("b", 4).unwrap();
    assert!(device.dispatch(Kernel::Scan, &[0; 16], 1, &[&buffer]).is_err());
    assert!(device.dispatch(Kernel::Scan, &[0; 16], 1, &[&buffer, &buffer]).is_err());
    let other = device.create("c", 4).unwrap();
    assert!(device.dispatch(Kernel::Scan, &[0; 8], 1, &[&buffer, &other]).is_err());
    assert!(device.dispatch(Kernel::Scan, &[0; 16], 1, &[&buffer, &other]).is_ok());
    assert!(device.write(&buffer, &[0; 5]).is_err());
    assert!(device.read(&buffer, 3, &mut [0; 2]).is_err());
}
