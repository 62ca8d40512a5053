//! Pictures of the field and of the mesh beside the ones they were made from, and how far they differ.

use glam::{Mat4, Vec3};
use image::{Rgb, RgbImage};

use super::Scene;
use super::dataset::View;
use super::rays;
use crate::Result;
use crate::asset::Asset;
use crate::generate::event::FitScore;
use crate::generate::{picture, preview};
use crate::refine::{Refinement, Shot};
use crate::render::color::linear_to_srgb;
use crate::render::raster::{Instance, Lighting, PreparedAsset, render_scene};
use crate::render::sheet::contact_sheet;
use crate::render::volume::{Background, Mode, RenderOptions, VolumeRenderer};

/// Behind everything that is compared.
const WHITE: Vec3 = Vec3::ONE;
/// Pictures beside each other.
const SHOWN: usize = 4;
/// Training pictures that are compared where none were held out.
const FALLBACK: usize = 8;
/// Samples across a pixel of the mesh's pictures.
const SUPERSAMPLE: u32 = 4;

/// The peak signal-to-noise ratio of a mean squared error of values in [0, 1], in dB; at most 100.
pub(super) fn psnr(mean_squared_error: f64) -> f64 {
    -10.0 * mean_squared_error.max(1e-10).log10()
}

/// The PSNR of linear colours in sRGB.
fn psnr_of(a: &[Vec3], b: &[Vec3]) -> f64 {
    let srgb = |v: f32| f64::from(linear_to_srgb(v.clamp(0.0, 1.0)));
    let difference = |(a, b): (&Vec3, &Vec3)| (0..3).map(|c| (srgb(a[c]) - srgb(b[c])).powi(2)).sum::<f64>();
    let sum: f64 = a.iter().zip(b).map(difference).sum();
    psnr(sum / (3 * a.len().max(1)) as f64)
}

/// The views that a result is judged by.
fn judges(scene: &Scene) -> &[View] {
    match &scene.data.test[..] {
        [] => &scene.data.train[..scene.data.train.len().min(FALLBACK)],
        test => test,
    }
}

/// What was seen and what the field shows, linear.
fn seen_and_field(
    scene: &Scene,
    renderer: &mut VolumeRenderer,
    view: &View,
    step: u32,
) -> Result<[Vec<Vec3>; 2]> {
    let batch = rays::whole(view, &scene.place, WHITE);
    let background = if scene.masked { Background::Solid(&batch.backgrounds) } else { Background::Mlp };
    let options = RenderOptions { step, mode: Mode::Eval, normals: false };
    let output = renderer.render(&batch.cameras, background, options)?;
    Ok([batch.colors, output.rgb.as_chunks::<3>().0.iter().map(|c| Vec3::from_array(*c)).collect()])
}

/// Some views above, the field below, no side longer than `size`.
pub(super) fn preview(
    scene: &Scene,
    renderer: &mut VolumeRenderer,
    step: u32,
    size: u32,
) -> Result<RgbImage> {
    let views = judges(scene);
    let mut rows = [Vec::new(), Vec::new()];
    for view in views.iter().step_by(views.len().div_ceil(SHOWN)) {
        let (w, h) = (view.lens.width, view.lens.height);
        let stride = w.max(h).div_ceil(size);
        let small =
            View { lens: view.lens.reduced(stride), picture: view.picture.reduced(stride), ..view.clone() };
        let pictures = seen_and_field(scene, renderer, &small, step)?;
        for (row, colors) in rows.iter_mut().zip(pictures) {
            row.push(image(&colors, small.lens.width, small.lens.height));
        }
    }
    Ok(sheet(rows.into()))
}

/// The same with the second stage's surface below, before white; only of the views that it can be seen from.
pub(super) fn preview_surface(scene: &Scene, refinement: &mut Refinement, size: u32) -> Result<RgbImage> {
    let views = judges(scene);
    let mut rows = [Vec::new(), Vec::new()];
    for view in views.iter().step_by(views.len().div_ceil(SHOWN)) {
        let stride = view.lens.width.max(view.lens.height).div_ceil(size);
        let small =
            View { lens: view.lens.reduced(stride), picture: view.picture.reduced(stride), ..view.clone() };
        let Some(camera) = rays::pinhole(&small, &scene.place) else { continue };
        let shot = Shot { cameras: &[camera], backgrounds: &[WHITE], normals: false, step: u32::MAX };
        let output = refinement.render(&shot)?;
        let found: Vec<Vec3> = output.rgb.as_chunks::<3>().0.iter().map(|c| Vec3::from_array(*c)).collect();
        let seen = rays::whole(&small, &scene.place, WHITE).colors;
        for (row, colors) in rows.iter_mut().zip([seen, found]) {
            row.push(image(&colors, small.lens.width, small.lens.height));
        }
    }
    Ok(sheet(rows.into()))
}

/// Everything that was compared.
pub(super) struct Compared {
    held_out: bool,
    field: Vec<f64>,
    mesh: Vec<f64>,
    /// Rows of pictures: seen, field, mesh.
    rows: Vec<Vec<RgbImage>>,
}

impl Compared {
    /// Renders field and mesh from the views that judge.
    pub(super) fn new(
        scene: &Scene,
        renderer: &mut VolumeRenderer,
        asset: &Asset,
        step: u32,
    ) -> Result<Self> {
        let prepared = PreparedAsset::new(asset);
        let views = judges(scene);
        let held_out = !scene.data.test.is_empty();
        let mut out = Self { held_out, field: Vec::new(), mesh: Vec::new(), rows: vec![Vec::new(); 3] };
        let shown = views.len().div_ceil(SHOWN);
        for (i, view) in views.iter().enumerate() {
            let [seen, field] = seen_and_field(scene, renderer, view, step)?;
            out.field.push(psnr_of(&seen, &field));
            let mesh = rasterize(scene, view, &prepared);
            // Only what is cut out can be compared with a mesh before white.
            if let Some(mesh) = mesh.as_ref().filter(|_| scene.masked) {
                out.mesh.push(psnr_of(&seen, mesh));
            }
            if i % shown == 0 {
                let all = [Some(seen), Some(field), mesh];
                for (row, colors) in out.rows.iter_mut().zip(all) {
                    row.extend(colors.map(|c| image(&c, view.lens.width, view.lens.height)));
                }
            }
        }
        Ok(out)
    }

    pub(super) fn score(&self, chamfer: Option<f64>) -> FitScore {
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len().max(1) as f64;
        FitScore {
            held_out: self.held_out,
            pictures: self.field.len(),
            field_psnr: mean(&self.field),
            mesh_psnr: (!self.mesh.is_empty()).then(|| mean(&self.mesh)),
            chamfer,
        }
    }

    /// The rows below each other, as PNG.
    pub(super) fn picture(&self) -> Result<Vec<u8>> {
        preview::png(&sheet(self.rows.clone()))
    }
}

/// The mesh in its own colours from a view, if the rasteriser has its lens.
fn rasterize(scene: &Scene, view: &View, asset: &PreparedAsset) -> Option<Vec<Vec3>> {
    let camera = rays::pinhole(view, &scene.place)?;
    let place = &scene.place;
    let to_field =
        Mat4::from_scale(Vec3::splat(place.scale as f32)) * Mat4::from_translation(-place.center.as_vec3());
    let instance = Instance::new(asset, to_field);
    Some(render_scene(&[instance], &camera, &Lighting::flat(), WHITE, SUPERSAMPLE).rgb)
}

fn image(colors: &[Vec3], width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let color = colors.get((y * width + x) as usize).copied().unwrap_or_default();
        Rgb(color.to_array().map(picture::to_srgb8))
    })
}

fn sheet(rows: Vec<Vec<RgbImage>>) -> RgbImage {
    let columns = rows.first().map_or(1, Vec::len);
    contact_sheet(&rows.concat(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psnr_of_known_errors() {
        assert!((psnr(1e-3) - 30.0).abs() < 1e-12 && psnr(0.0) == 100.0);
        let (black, white) = ([Vec3::ZERO; 4], [Vec3::ONE; 4]);
        // White is 1 up to the rounding of the transfer function.
        assert!(psnr_of(&black, &white).abs() < 1e-5);
        assert_eq!(psnr_of(&white, &[Vec3::splat(2.0); 4]), 100.0);
    }
}
