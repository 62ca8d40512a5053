//! Pictures of meshes on the CPU: a supersampled z-buffer with deferred shading.
//!
//! One frame runs on one thread and is a pure function of its arguments; callers draw many frames
//! in parallel. `project` turns triangles into screen-space planes, `fill` keeps the nearest
//! triangle of every sample, `shade` lights what is visible and averages samples into pixels.

mod fill;
mod fragment;
mod prepare;
mod project;
mod shade;
#[cfg(test)]
mod tests;

use glam::{Mat4, Vec3};
use image::RgbImage;

pub use fragment::{Fragment, render_with};
pub use prepare::PreparedAsset;
pub(super) use prepare::{Codes, Texture};

pub use super::light::Lighting;
use super::{camera::Camera, color};
use crate::asset::Asset;

/// A drawn picture; every vector has `width * height` entries, row 0 on top.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Linear RGB, composited over the background.
    pub rgb: Vec<Vec3>,
    /// Covered share of the pixel, 0 … 1.
    pub opacity: Vec<f32>,
    /// Distance along the camera's viewing axis (not along the pixel's ray) in world units, mean
    /// over the covered part of the pixel; 0 where nothing is seen.
    pub depth: Vec<f32>,
    /// Unit world-space normal turned towards the camera; zero where nothing is seen.
    pub normal: Vec<Vec3>,
}

impl Frame {
    /// The picture as 8-bit sRGB.
    pub fn to_srgb8(&self) -> RgbImage {
        let bytes = self.rgb.iter().flat_map(|c| c.to_array().map(color::linear_to_srgb8)).collect();
        // A frame's vectors are as long as its size says, so the fallback is never taken.
        RgbImage::from_raw(self.width, self.height, bytes).unwrap_or_default()
    }
}

/// A change of an instance's materials, so that one asset can be drawn in many guises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Multiplied into the base colour (linear RGB).
    pub tint: Vec3,
    /// Replaces base colour, texture and vertex colours (linear RGB).
    pub repaint: Option<Vec3>,
    /// Replaces the roughness, 0 … 1.
    pub roughness: Option<f32>,
    /// Replaces the metalness, 0 … 1.
    pub metallic: Option<f32>,
}

impl Default for Look {
    fn default() -> Self {
        Self { tint: Vec3::ONE, repaint: None, roughness: None, metallic: None }
    }
}

/// An asset placed in a scene.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// What to draw.
    pub asset: &'a PreparedAsset,
    /// Asset to world; affine.
    pub transform: Mat4,
    /// How it differs from its own materials.
    pub look: Look,
}

impl<'a> Instance<'a> {
    /// `asset` at `transform` in its own materials.
    pub fn new(asset: &'a PreparedAsset, transform: Mat4) -> Self {
        Self { asset, transform, look: Look::default() }
    }
}

/// Draws one asset; see [`render_scene`]. Prepare an asset once to draw it many times.
pub fn render(
    asset: &Asset,
    camera: &Camera,
    lighting: &Lighting,
    background: Vec3,
    supersample: u32,
) -> Frame {
    let prepared = PreparedAsset::new(asset);
    render_scene(&[Instance::new(&prepared, Mat4::IDENTITY)], camera, lighting, background, supersample)
}

/// Draws a scene over a linear RGB `background` with `supersample`² samples a pixel (1 … 8).
///
/// Surfaces are seen from both sides. Transparency is screen-door: a surface of opacity α covers
/// the share α of the samples by a 4×4 Bayer pattern, so nothing needs sorting.
pub fn render_scene(
    instances: &[Instance<'_>],
    camera: &Camera,
    lighting: &Lighting,
    background: Vec3,
    supersample: u32,
) -> Frame {
    let supersample = supersample.clamp(1, 8);
    let scene = project::project(instances, camera, supersample);
    let samples = fill::fill(&scene);
    shade::resolve(&scene, &samples, camera, lighting, background, supersample)
}
