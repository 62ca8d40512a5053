//! Closed loops: what was drawn is found again from its pictures.

use glam::{Mat4, Quat, Vec3};

use super::super::{
    Paint, Sampling, SurfaceGrad, SurfaceInput, SurfaceOptions, SurfaceOutput, SurfaceRenderer, Texture,
    Topology,
};
use super::{cube, noise};
use crate::gpu::backend::Device;
use crate::render::camera::Camera;
use crate::rng::{Rng, Stream};

/// Adam over one vector.
struct Adam {
    m: Vec<f32>,
    v: Vec<f32>,
    steps: i32,
}

impl Adam {
    fn new(n: usize) -> Self {
        Self { m: vec![0.0; n], v: vec![0.0; n], steps: 0 }
    }

    fn step(&mut self, x: &mut [f32], grad: &[f32], rate: f32) {
        self.steps += 1;
        let unbias = [1.0 - 0.9f32.powi(self.steps), 1.0 - 0.99f32.powi(self.steps)];
        for (i, (x, g)) in x.iter_mut().zip(grad).enumerate() {
            self.m[i] = 0.9 * self.m[i] + 0.1 * g;
            self.v[i] = 0.99 * self.v[i] + 0.01 * g * g;
            *x -= rate * (self.m[i] / unbias[0]) / ((self.v[i] / unbias[1]).sqrt() + 1e-10);
        }
    }
}

/// Views from random directions, another set for each step.
fn views(step: u32, n: u64, size: u32) -> Vec<Camera> {
    let rng = Rng::new(5, Stream::Camera, step);
    let one = |i| {
        let (azimuth, height) = (rng.range(2 * i, 0.0, 360.0), rng.range(2 * i + 1, -0.95, 0.95));
        Camera::orbit(azimuth, height.asin().to_degrees(), 2.8, Vec3::ZERO, 40f32.to_radians(), size)
    };
    (0..n).map(one).collect()
}

/// Σ of squared colour differences over the number of pixels, and its gradient.
fn squared(found: &SurfaceOutput, wanted: &SurfaceOutput) -> (f32, Vec<f32>) {
    let scale = 1.0 / found.mask.len() as f32;
    let differences = found.rgb.iter().zip(&wanted.rgb).map(|(f, w)| f - w);
    (scale * differences.clone().map(|d| d * d).sum::<f32>(), differences.map(|d| 2.0 * scale * d).collect())
}

fn mean_distance(a: &[f32], b: &[f32]) -> f32 {
    let pairs = a.as_chunks::<3>().0.iter().zip(b.as_chunks::<3>().0);
    pairs.map(|(a, b)| Vec3::from_array(*a).distance(Vec3::from_array(*b))).sum::<f32>()
        / (a.len() / 3) as f32
}

#[test]
fn a_cube_is_found_from_pictures_of_16_pixels() {
    let (truth, triangles) = cube();
    let true_colors: Vec<f32> = truth.iter().map(|x| x + 0.5).collect();
    let mut positions: Vec<f32> = truth.iter().zip(noise(30, 24, 0.25)).map(|(x, d)| x + d).collect();
    let mut colors = vec![0.5; 24];
    let before = mean_distance(&positions, &truth);
    let topology = Topology::new(8, &triangles).unwrap();
    let mut renderer = SurfaceRenderer::new(&Device::cpu(), &topology).unwrap();
    let (mut move_by, mut paint_by) = (Adam::new(24), Adam::new(24));
    let steps = 500;
    for step in 0..steps {
        let cameras = views(step, 8, 16);
        let backgrounds = [Vec3::ONE; 8];
        let mut render = |positions: &[f32], colors: &[f32]| {
            let input = SurfaceInput {
                positions,
                paint: Paint::Colors(colors),
                cameras: &cameras,
                backgrounds: &backgrounds,
            };
            renderer.render(&input, &SurfaceOptions::default()).unwrap()
        };
        let wanted = render(&truth, &true_colors);
        let found = render(&positions, &colors);
        let (_, by_rgb) = squared(&found, &wanted);
        let grad = renderer.backward(&SurfaceGrad { rgb: Some(&by_rgb), ..Default::default() }).unwrap();
        let rate = 0.01 * 0.01f32.powf(step as f32 / steps as f32);
        move_by.step(&mut positions, &grad.positions, rate);
        paint_by.step(&mut colors, &grad.attributes, rate);
    }
    let (after, color) = (mean_distance(&positions, &truth), mean_distance(&colors, &true_colors));
    eprintln!("vertices off by {before:.4} before, {after:.4} after; colours by {color:.4}");
    assert!(before > 0.2 && after < 0.02 && color < 0.05, "{before} {after} {color}");
}

#[test]
fn a_pose_is_found_from_one_view() {
    let (cube, triangles) = cube();
    let colors: Vec<f32> = cube.iter().map(|x| x + 0.5).collect();
    let topology = Topology::new(8, &triangles).unwrap();
    let mut renderer = SurfaceRenderer::new(&Device::cpu(), &topology).unwrap();
    let cameras = [Camera::orbit(20.0, 25.0, 2.8, Vec3::ZERO, 40f32.to_radians(), 48)];
    let turned = |q: Quat| -> Vec<f32> {
        let turn = Mat4::from_quat(q);
        cube.as_chunks::<3>()
            .0
            .iter()
            .flat_map(|p| turn.transform_vector3(Vec3::from_array(*p)).to_array())
            .collect()
    };
    let truth = Quat::from_euler(glam::EulerRot::XYZ, 0.3, -0.2, 0.4);
    let mut pose = truth * Quat::from_axis_angle(Vec3::new(2.0, -1.0, 1.5).normalize(), 0.5);
    let angle = |pose: Quat| pose.angle_between(truth).to_degrees();
    let before = angle(pose);
    let mut adam = Adam::new(3);
    let render = |renderer: &mut SurfaceRenderer, q: Quat| {
        let positions = turned(q);
        let input = SurfaceInput {
            positions: &positions,
            paint: Paint::Colors(&colors),
            cameras: &cameras,
            backgrounds: &[Vec3::ONE],
        };
        (renderer.render(&input, &SurfaceOptions::default()).unwrap(), positions)
    };
    let (wanted, _) = render(&mut renderer, truth);
    for step in 0..200 {
        let (found, positions) = render(&mut renderer, pose);
        let (_, by_rgb) = squared(&found, &wanted);
        let grad = renderer.backward(&SurfaceGrad { rgb: Some(&by_rgb), ..Default::default() }).unwrap();
        // Turned by a small vector ω, p moves by ω × p, so ∂L/∂ω = Σ p × ∂L/∂p.
        let pairs = positions.as_chunks::<3>().0.iter().zip(grad.positions.as_chunks::<3>().0);
        let torque: Vec3 = pairs.map(|(p, g)| Vec3::from_array(*p).cross(Vec3::from_array(*g))).sum();
        let mut turn = [0.0; 3];
        adam.step(&mut turn, &torque.to_array(), 0.03 * 0.02f32.powf(step as f32 / 200.0));
        pose = (Quat::from_scaled_axis(Vec3::from_array(turn)) * pose).normalize();
    }
    let after = angle(pose);
    eprintln!("{before:.2}° before, {after:.3}° after");
    assert!(before > 20.0 && after < 0.5, "{before} {after}");
}

#[test]
fn a_texture_is_found_from_its_pictures() {
    // Each face of the cube has a square of the texture of its own, with a gap of nothing between.
    let (positions, triangles) = cube();
    let mut uvs = Vec::new();
    let mut uv_triangles = Vec::new();
    for face in 0..6u32 {
        let corner = [(face % 3) as f32 / 4.0, (face / 3) as f32 / 2.0];
        for [u, v] in [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]] {
            uvs.extend([corner[0] + (0.04 + 0.9 * u) / 4.0, corner[1] + (0.04 + 0.9 * v) / 2.0]);
        }
        uv_triangles.extend([[4 * face, 4 * face + 1, 4 * face + 2], [4 * face, 4 * face + 2, 4 * face + 3]]);
    }
    let (width, height) = (32, 16);
    let rng = Rng::new(8, Stream::Probe, 1);
    let truth: Vec<f32> = (0..3 * width * height).map(|i| rng.uniform(i as u64)).collect();
    let mut texels = vec![0.5; truth.len()];
    let topology = Topology::with_seams(8, &triangles, 24, &uv_triangles).unwrap();
    let mut renderer = SurfaceRenderer::new(&Device::cpu(), &topology).unwrap();
    let mut adam = Adam::new(texels.len());
    let (mut first, mut last) = (0.0, 0.0);
    let steps = 150;
    for step in 0..=steps {
        // The last step looks from where no step before has looked.
        let cameras = views(1000 + step, 4, 40);
        let options = SurfaceOptions { sampling: Sampling::Trilinear, ..Default::default() };
        let mut render = |texels: &[f32]| {
            let paint = Paint::Texture(&uvs, Texture { texels, width, height });
            let input = SurfaceInput {
                positions: &positions,
                paint,
                cameras: &cameras,
                backgrounds: &[Vec3::ZERO; 4],
            };
            renderer.render(&input, &options).unwrap()
        };
        let wanted = render(&truth);
        let found = render(&texels);
        let (loss, by_rgb) = squared(&found, &wanted);
        last = -10.0 * (loss / 3.0).log10();
        if step == 0 {
            first = last;
        }
        let grad = renderer.backward(&SurfaceGrad { rgb: Some(&by_rgb), ..Default::default() }).unwrap();
        adam.step(&mut texels, &grad.texels, 0.05 * 0.1f32.powf(step as f32 / steps as f32));
    }
    eprintln!("PSNR {first:.1} dB before, {last:.1} dB after");
    assert!(first < 20.0 && last > 35.0, "{first} {last}");
}
