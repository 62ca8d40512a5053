//! Pictures of an asset for people: from any camera, in any light, or of one of its properties.

mod skin;
mod stage;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use glam::{Mat4, Vec3};
use image::{Rgba, RgbaImage};

pub use stage::{Eye, Lens};

use super::camera::Camera;
use super::color::{linear_to_srgb8, srgb_to_linear};
use super::material::{Environment, Light, Tone, shade};
use super::raster::{Fragment, Frame, Instance, PreparedAsset, render_with};
use crate::asset::Asset;
use skin::Skins;

/// Half the width of a wireframe's lines, in pixels.
const LINE: f32 = 0.6;
/// Squares of the checkerboard along a side of the texture.
const CHECKS: f32 = 16.0;

/// What a picture shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum View {
    /// The materials in light
    #[default]
    Shaded,
    /// Base colours without light
    Albedo,
    /// Normals as the camera sees them, normal maps included: x to red, y to green, z to blue
    Normal,
    /// Depth within the model's bounding sphere: near is white
    Depth,
    /// Edges of the triangles
    Wireframe,
    /// Texture coordinates: u to red, v to green, under a checkerboard
    Uv,
}

/// Light of a shaded picture.
#[derive(Debug, Clone)]
pub enum Illumination {
    /// Surfaces in their own base colour.
    Flat,
    /// An environment, turned about the vertical axis by radians.
    Environment(Arc<Environment>, f64),
}

/// How pictures are made.
#[derive(Debug, Clone)]
pub struct Style {
    /// What they show.
    pub view: View,
    /// Light of shaded pictures.
    pub light: Illumination,
    /// Factor on it.
    pub exposure: f32,
    /// From light to the screen.
    pub tone: Tone,
    /// Linear RGB behind the model; `None` leaves it transparent.
    pub background: Option<Vec3>,
    /// Samples across a pixel, 1 … 8.
    pub samples: u32,
}

/// An asset ready to be shown; its bounding sphere has radius 1 around the origin.
pub struct Show {
    prepared: PreparedAsset,
    skins: Skins,
    to_unit: Mat4,
}

impl Show {
    /// Prepares an asset.
    pub fn new(asset: &Asset) -> Self {
        let (skins, asset) = Skins::new(asset);
        let (low, high) = asset.bounds().unwrap_or_default();
        let radius = (0.5 * (high - low).length()).max(f32::MIN_POSITIVE);
        let to_unit =
            Mat4::from_scale(Vec3::splat(1.0 / radius)) * Mat4::from_translation(-0.5 * (low + high));
        Self { prepared: PreparedAsset::new(&asset), skins, to_unit }
    }

    /// Bytes that drawing one picture takes, apart from the asset.
    pub fn memory(&self, width: u32, height: u32, samples: u32) -> u64 {
        let pixels = u64::from(width) * u64::from(height);
        // Sample buffers; pixels as they are summed and as a frame; projected triangles.
        pixels * (8 * u64::from(samples).pow(2) + 2 * 48)
            + 192 * self.prepared.triangle_count() as u64
            + 64 * self.skins.vertices() as u64
    }

    /// The picture from a camera, as sRGB with straight alpha.
    pub fn picture(&self, camera: &Camera, style: &Style) -> RgbaImage {
        let frame = self.frame(camera, style);
        let opaque = style.background.is_some();
        let pixel = |i: usize| {
            let alpha = frame.opacity[i];
            let color = if opaque { frame.rgb[i] } else { frame.rgb[i] / alpha.max(1e-6) };
            let [r, g, b] = color.to_array().map(linear_to_srgb8);
            Rgba([r, g, b, if opaque { 255 } else { (alpha * 255.0 + 0.5) as u8 }])
        };
        RgbaImage::from_fn(frame.width, frame.height, |x, y| pixel((y * frame.width + x) as usize))
    }

    /// The picture in linear light, tone mapped, over the background (black if there is none).
    pub fn frame(&self, camera: &Camera, style: &Style) -> Frame {
        let instance = Instance::new(&self.prepared, self.to_unit);
        let background = style.background.unwrap_or(Vec3::ZERO);
        let painter = Painter { skins: &self.skins, camera, style, light: light(style) };
        render_with(&[instance], camera, background, style.samples, &|f| painter.color(f))
    }
}

fn light(style: &Style) -> Option<Light<'_>> {
    match &style.light {
        Illumination::Flat => None,
        Illumination::Environment(environment, turn) => Some(Light {
            turn: *turn,
            strength: f64::from(style.exposure),
            ..Light::from(environment.as_ref())
        }),
    }
}

/// Decides what a sample shows.
struct Painter<'a> {
    skins: &'a Skins,
    camera: &'a Camera,
    style: &'a Style,
    light: Option<Light<'a>>,
}

impl Painter<'_> {
    fn color(&self, f: &Fragment) -> Vec3 {
        match self.style.view {
            View::Shaded => self.shaded(f),
            View::Albedo => f.base,
            View::Normal => self.normal(f),
            View::Depth => self.depth(f),
            View::Wireframe => self.wire(f),
            View::Uv => self.checked(f),
        }
    }

    fn shaded(&self, f: &Fragment) -> Vec3 {
        let Some(light) = &self.light else {
            return (f.base + self.skins.emissive(f)).clamp(Vec3::ZERO, Vec3::ONE);
        };
        let (look, occlusion) = self.skins.look(f);
        let reflected = glam::DVec3::from_array(shade(&look, light, f.to_eye.as_dvec3())).as_vec3();
        self.style.tone.map(reflected * occlusion + self.skins.emissive(f) * self.style.exposure)
    }

    fn normal(&self, f: &Fragment) -> Vec3 {
        let [right, up, back] =
            [self.camera.c2w.x_axis, self.camera.c2w.y_axis, self.camera.c2w.z_axis].map(|c| c.truncate());
        let n = self.skins.normal(f).as_vec3().normalize_or(f.normal);
        codes(0.5 * Vec3::new(n.dot(right), n.dot(up), n.dot(back)) + 0.5)
    }

    fn depth(&self, f: &Fragment) -> Vec3 {
        let center = self.camera.origin().dot(self.camera.c2w.z_axis.truncate());
        codes(Vec3::splat(0.5 - 0.5 * (f.depth - center)))
    }

    fn wire(&self, f: &Fragment) -> Vec3 {
        let ink = 1.0 - (f.edge - LINE + 0.5).clamp(0.0, 1.0);
        let clay = 0.35 + 0.5 * f.normal.dot(f.to_eye).max(0.0);
        codes(Vec3::splat(clay).lerp(Vec3::new(0.05, 0.09, 0.16), ink))
    }

    fn checked(&self, f: &Fragment) -> Vec3 {
        if !self.skins.has_uvs(f) {
            return codes(Vec3::splat(0.35));
        }
        let square = (f.uv * CHECKS).floor();
        let dark = (square.x + square.y).rem_euclid(2.0) < 0.5;
        let shade = if dark { 0.62 } else { 1.0 };
        codes(Vec3::new(f.uv.x - f.uv.x.floor(), f.uv.y - f.uv.y.floor(), 0.5) * shade)
    }
}

/// Light whose sRGB codes are these numbers.
fn codes(numbers: Vec3) -> Vec3 {
    Vec3::from_array(numbers.clamp(Vec3::ZERO, Vec3::ONE).to_array().map(srgb_to_linear))
}
