//! A dataset from a model: posed pictures all around it, and their transforms.

use std::f64::consts::{PI, TAU};
use std::io::Cursor;
use std::path::Path;

use glam::{DVec3, Mat4, Vec3};
use image::{ImageFormat, RgbaImage};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Up;
use crate::asset::{self, Asset};
use crate::render::camera::Camera;
use crate::render::color::linear_to_srgb8;
use crate::render::raster::{Frame, Instance, Lighting, PreparedAsset, render_scene};
use crate::{Error, Result};

/// Samples across a pixel.
const SUPERSAMPLE: u32 = 4;
/// Vertical field of view in degrees.
const FOV: f32 = 40.0;
/// One held-out picture for so many others.
const TEST_SHARE: u32 = 8;

/// How the pictures are taken.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pictures to learn from; an eighth more are held out.
    pub views: u32,
    /// Width and height in pixels.
    pub size: u32,
    /// Linear colour behind the model; `None` writes an alpha channel.
    pub background: Option<Vec3>,
    /// Light on the model.
    pub lighting: Lighting,
}

/// Writes `transforms.json` and `transforms_test.json` with their pictures in `train/` and `test/`.
/// The cameras stand on a sphere around the model (a Fibonacci lattice, so they see it from below, too);
/// the world has +Z up, as the layout's readers expect. Equal arguments give equal bytes.
///
/// # Errors
/// [`Error::Invalid`] if the folder holds something else or the model has no extent; [`Error::Io`].
pub fn write(asset: &Asset, folder: &Path, options: &Options) -> Result<()> {
    let (low, high) = asset.bounds().unwrap_or_default();
    let radius = 0.5 * (high - low).length();
    if !(radius > 0.0 && radius.is_finite()) {
        return Err(Error::invalid("the model", "has no extent").hint("is there anything in it?"));
    }
    prepare(folder)?;
    let center = 0.5 * (low + high);
    let scene = Scene { prepared: PreparedAsset::new(asset), center, radius, options };
    let held_out = options.views.div_ceil(TEST_SHARE);
    // The transforms come last: a folder that has them is complete.
    let test = scene.split(folder, "test", held_out, 0.5)?;
    let train = scene.split(folder, "train", options.views, 0.0)?;
    for (name, value) in [("transforms_test.json", test), ("transforms.json", train)] {
        let text = serde_json::to_string_pretty(&value).map_err(|e| Error::Failed(e.to_string()))?;
        asset::replace(&folder.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Makes the folders; what is not a dataset is not written into.
fn prepare(folder: &Path) -> Result<()> {
    let foreign = folder.is_dir()
        && !folder.join("transforms.json").is_file()
        && std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?.next().is_some();
    if foreign || folder.is_file() {
        return Err(Error::invalid(format!("--dataset {}", folder.display()), "exists and is no dataset")
            .hint("name a folder that does not exist yet"));
    }
    for split in ["train", "test"] {
        let path = folder.join(split);
        std::fs::create_dir_all(&path).map_err(|e| Error::io(&path, e))?;
    }
    Ok(())
}

/// Azimuth and elevation in degrees of view `i` of `n`: even in area over the whole sphere, turned by
/// `phase` of a golden step.
fn direction(i: u32, n: u32, phase: f64) -> (f32, f32) {
    let golden = PI * (3.0 - 5f64.sqrt());
    let height = 1.0 - (2.0 * f64::from(i) + 1.0) / f64::from(n);
    let azimuth = (golden * (f64::from(i) + phase)).rem_euclid(TAU);
    (azimuth.to_degrees() as f32, height.asin().to_degrees() as f32)
}

struct Scene<'a> {
    prepared: PreparedAsset,
    center: Vec3,
    radius: f32,
    options: &'a Options,
}

impl Scene<'_> {
    /// Writes the pictures of one split; returns its transforms.
    fn split(&self, folder: &Path, name: &str, count: u32, phase: f64) -> Result<Value> {
        let size = self.options.size;
        let distance = 1.02 / (0.5 * FOV.to_radians()).sin();
        let frames: Result<Vec<Value>> = (0..count)
            .into_par_iter()
            .map(|i| {
                let (azimuth, elevation) = direction(i, count, phase);
                let camera = Camera::orbit(azimuth, elevation, distance, Vec3::ZERO, FOV.to_radians(), size);
                let file = format!("{name}/{i:03}.png");
                asset::replace(&folder.join(&file), &self.picture(&camera)?)?;
                Ok(json!({ "file_path": file, "transform_matrix": self.matrix(&camera) }))
            })
            .collect();
        let focal = 0.5 * f64::from(size) / (0.5 * f64::from(FOV).to_radians()).tan();
        let half = 0.5 * f64::from(size);
        Ok(json!({
            "camera_angle_x": f64::from(FOV).to_radians(),
            "fl_x": focal, "fl_y": focal, "cx": half, "cy": half, "w": size, "h": size,
            "frames": frames?,
        }))
    }

    fn picture(&self, camera: &Camera) -> Result<Vec<u8>> {
        // The model is scaled to radius 1: the near plane knows no other size.
        let to_unit = Mat4::from_scale(Vec3::splat(1.0 / self.radius)) * Mat4::from_translation(-self.center);
        let instance = Instance::new(&self.prepared, to_unit);
        let background = self.options.background.unwrap_or(Vec3::ZERO);
        let frame = render_scene(&[instance], camera, &self.options.lighting, background, SUPERSAMPLE);
        let mut bytes = Cursor::new(Vec::new());
        let written = match self.options.background {
            Some(_) => frame.to_srgb8().write_to(&mut bytes, ImageFormat::Png),
            None => straight(&frame).write_to(&mut bytes, ImageFormat::Png),
        };
        written.map_err(|e| Error::Failed(format!("png: {e}")))?;
        Ok(bytes.into_inner())
    }

    /// The camera in the model's own size and place, rows of camera-to-world, +Z up.
    fn matrix(&self, camera: &Camera) -> Value {
        let to_z = Up::Z.to_y().transpose();
        let column = |v: glam::Vec4| to_z * v.truncate().as_dvec3();
        let [x, y, z] = [camera.c2w.x_axis, camera.c2w.y_axis, camera.c2w.z_axis].map(column);
        let at = camera.origin().as_dvec3() * f64::from(self.radius) + self.center.as_dvec3();
        let p: DVec3 = to_z * at;
        json!([[x.x, y.x, z.x, p.x], [x.y, y.y, z.y, p.y], [x.z, y.z, z.z, p.z], [0.0, 0.0, 0.0, 1.0]])
    }
}

/// A frame over black as straight RGBA.
fn straight(frame: &Frame) -> RgbaImage {
    let bytes = frame.rgb.iter().zip(&frame.opacity).flat_map(|(c, &a)| {
        let [r, g, b] = (*c / a.max(1e-6)).to_array().map(linear_to_srgb8);
        [r, g, b, (a * 255.0 + 0.5) as u8]
    });
    // A frame's vectors are as long as its size says, so the fallback is never taken.
    RgbaImage::from_raw(frame.width, frame.height, bytes.collect()).unwrap_or_default()
}
