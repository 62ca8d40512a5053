//! Pictures and gradients against the reference in f64 and its central differences.

use glam::{DVec3, Vec3};

use super::super::{
    Paint, Sampling, SurfaceGrad, SurfaceGradients, SurfaceInput, SurfaceOptions, SurfaceOutput,
    SurfaceRenderer, Topology, Wrap,
};
use super::reference::{self, Pixel, Scene};
use super::{cameras, cube, noise};
use crate::gpu::backend::Device;
use crate::render::camera::Camera;

const SIZE: u32 = 20;

fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// A dented cube; `textured` takes (u, v) instead of colours.
fn scene(textured: Option<(Sampling, Wrap)>) -> Scene {
    let (mut positions, triangles) = cube();
    positions.iter_mut().zip(noise(1, 24, 0.15)).for_each(|(x, d)| *x += d);
    let texture = textured.map(|(sampling, wrap)| reference::Texture {
        texels: f64s(&noise(2, 3 * 32 * 16, 1.0)),
        size: [32, 16],
        wrap: wrap as u32,
        trilinear: sampling == Sampling::Trilinear,
        levels: Vec::new(),
    });
    // Coordinates beyond the border, and enough of them that several levels are read.
    let attributes = if textured.is_some() { noise(3, 16, 0.9) } else { noise(4, 24, 1.0) };
    Scene {
        positions: f64s(&positions),
        triangles,
        attributes: f64s(&attributes),
        texture,
        shade: None,
        background: DVec3::new(0.25, 0.5, 0.75),
    }
}

struct Loss {
    rgb: Vec<f32>,
    mask: Vec<f32>,
    depth: Vec<f32>,
    normal: Vec<f32>,
}

impl Loss {
    fn new(pixels: usize) -> Self {
        let weights = |key, n| noise(key, n * pixels, 1.0);
        Self { rgb: weights(10, 3), mask: weights(11, 1), depth: weights(12, 1), normal: weights(13, 3) }
    }

    fn value(&self, pixels: &[Pixel]) -> f64 {
        let weight = |part: &[f32], at: usize| f64::from(part[at]);
        let each = pixels.iter().enumerate().map(|(i, p)| {
            let three = |part: &[f32], at: usize| -> f64 {
                (0..3).map(|c| weight(part, 3 * i + c) * p[at + c]).sum()
            };
            three(&self.rgb, 0)
                + three(&self.normal, 5)
                + weight(&self.mask, i) * p[3]
                + weight(&self.depth, i) * p[4]
        });
        each.sum()
    }
}

fn run(
    scene: &Scene,
    cameras: &[Camera],
    options: &SurfaceOptions,
    loss: &Loss,
) -> (SurfaceOutput, SurfaceGradients) {
    let f32s = |x: &[f64]| -> Vec<f32> { x.iter().map(|&x| x as f32).collect() };
    let topology = Topology::new(scene.positions.len() / 3, &scene.triangles).unwrap();
    let mut renderer = SurfaceRenderer::new(&Device::cpu(), &topology).unwrap();
    let (positions, attributes) = (f32s(&scene.positions), f32s(&scene.attributes));
    let texels = scene.texture.as_ref().map(|t| f32s(&t.texels));
    let paint = match (&scene.texture, &texels) {
        (Some(t), Some(texels)) => {
            Paint::Texture(&attributes, super::super::Texture { texels, width: t.size[0], height: t.size[1] })
        }
        _ => Paint::Colors(&attributes),
    };
    let backgrounds = vec![Vec3::new(0.25, 0.5, 0.75); cameras.len()];
    let input = SurfaceInput { positions: &positions, paint, cameras, backgrounds: &backgrounds };
    let output = renderer.render(&input, options).unwrap();
    let grad = SurfaceGrad {
        rgb: Some(&loss.rgb),
        mask: Some(&loss.mask),
        depth: Some(&loss.depth),
        normal: options.normals.then_some(&loss.normal),
    };
    (output, renderer.backward(&grad).unwrap())
}

/// Largest difference from central differences, as a part of the largest derivative.
fn check(what: &str, found: &[f32], x: &[f64], mut value: impl FnMut(&[f64]) -> f64, tolerance: f64) {
    // Bilinear interpolation has a kink at each texel: steps far shorter than a texel.
    let h = 1e-7;
    let mut moved = x.to_vec();
    let wanted: Vec<f64> = (0..x.len())
        .map(|i| {
            moved[i] = x[i] + h;
            let up = value(&moved);
            moved[i] = x[i] - h;
            let down = value(&moved);
            moved[i] = x[i];
            (up - down) / (2.0 * h)
        })
        .collect();
    let scale = wanted.iter().fold(0.0, |m: f64, w| m.max(w.abs()));
    let error = wanted.iter().zip(found).fold(0.0, |m: f64, (w, f)| m.max((w - f64::from(*f)).abs()));
    eprintln!("{what}: {:.1e} of {scale:.2}, tolerance {tolerance:.0e}", error / scale);
    assert!(found.len() == x.len() && scale > 0.1, "{what}: nothing to compare");
    assert!(error <= tolerance * scale, "{what}: {error:e} of {scale}");
}

fn agree(textured: Option<(Sampling, Wrap)>) {
    let (mut scene, cameras) = (scene(textured), cameras(2, SIZE));
    let (sampling, wrap) = textured.unwrap_or_default();
    let options = SurfaceOptions { normals: true, sampling, wrap, ..Default::default() };
    let loss = Loss::new(2 * (SIZE * SIZE) as usize);
    let (output, grad) = run(&scene, &cameras, &options, &loss);
    scene.set_levels(&cameras, &output.ids);
    let ids = &output.ids;
    let pictures = scene.render(&cameras, ids);
    let normal = output.normal.as_deref().unwrap();
    for (i, wanted) in pictures.iter().enumerate() {
        let found =
            [&output.rgb[3 * i..3 * i + 3], &[output.mask[i], output.depth[i]], &normal[3 * i..3 * i + 3]];
        for (f, w) in found.concat().into_iter().zip(wanted) {
            assert!((f64::from(f) - w).abs() < 5e-5, "pixel {i}: {found:?}, {wanted:?}");
        }
    }
    let blended = output.mask.iter().filter(|m| **m > 0.01 && **m < 0.99).count();
    assert!(blended > 30, "{blended} pixels on silhouettes");
    let value = |scene: &Scene| loss.value(&scene.render(&cameras, ids));
    check(
        "positions",
        &grad.positions,
        &scene.positions,
        |x| value(&Scene { positions: x.to_vec(), ..scene.clone() }),
        2e-5,
    );
    check(
        "attributes",
        &grad.attributes,
        &scene.attributes,
        |x| value(&Scene { attributes: x.to_vec(), ..scene.clone() }),
        2e-5,
    );
    if let Some(texture) = &scene.texture {
        // Every 13th number: each costs two pictures of the reference.
        let some = |all: &[f64]| all.iter().copied().step_by(13).collect::<Vec<_>>();
        let value = |x: &[f64]| {
            let mut texels = texture.texels.clone();
            texels.iter_mut().step_by(13).zip(x).for_each(|(texel, x)| *texel = *x);
            let texture = reference::Texture { texels, ..texture.clone() };
            value(&Scene { texture: Some(texture), ..scene.clone() })
        };
        let found: Vec<f32> = grad.texels.iter().copied().step_by(13).collect();
        check("texels", &found, &some(&texture.texels), value, 2e-5);
        if texture.trilinear {
            let deep = texture.levels.iter().filter(|l| **l > 1.0).count();
            assert!(deep > 20, "{deep} pixels read beyond level 1");
        }
    }
}

#[test]
fn vertex_colors_agree_with_the_reference_and_its_differences() {
    agree(None);
}

#[test]
fn bilinear_textures_agree_with_the_reference_and_its_differences() {
    agree(Some((Sampling::Bilinear, Wrap::Repeat)));
}

#[test]
fn trilinear_textures_agree_with_the_reference_and_its_differences() {
    agree(Some((Sampling::Trilinear, Wrap::Mirror)));
    agree(Some((Sampling::Trilinear, Wrap::Clamp)));
}
