//! The picture of a scene: a random camera, light and background.

use glam::Vec3;

use super::{Dataset, Draw, Sample, Text, compose};
use crate::render::backdrop::background_color;
use crate::render::camera::Camera;
use crate::render::color::linear_to_srgb;
use crate::render::light::Lighting;
use crate::render::raster::{Instance, render_scene};

/// The camera rig: field of view, distance and its spread, elevations (degrees, world units).
pub(super) const FOV_Y: f32 = 40.0;
pub(super) const DISTANCE: f32 = 2.4;
const SPREAD: f32 = 0.1;
const ELEVATION: (f32, f32) = (-10.0, 50.0);

impl Dataset {
    /// Draws the scene from a random camera, under a random light, on a random background.
    pub(super) fn picture(&self, draw: &Draw, scene: &mut [Instance<'_>], yaw: f32, text: Text) -> Sample {
        compose::normalize(scene, yaw);
        let size = self.config.image_size;
        let azimuth = 360.0 * draw.uniform(32);
        let elevation = ELEVATION.0 + (ELEVATION.1 - ELEVATION.0) * draw.uniform(33);
        let distance = DISTANCE * (1.0 + SPREAD * (2.0 * draw.uniform(34) - 1.0));
        let camera = Camera::orbit(azimuth, elevation, distance, Vec3::ZERO, FOV_Y.to_radians(), size);
        let frame = render_scene(scene, &camera, &light(draw), background(draw), self.config.supersample);
        let pixels = (size * size) as usize;
        let mut rgb = vec![0.0; 3 * pixels];
        for (i, color) in frame.rgb.iter().enumerate() {
            for (c, v) in color.to_array().into_iter().enumerate() {
                rgb[c * pixels + i] = 2.0 * linear_to_srgb(v.clamp(0.0, 1.0)) - 1.0;
            }
        }
        let depth = frame.depth;
        Sample { rgb, depth, caption: text.caption, camera: camera.embedding(), fronted: text.fronted }
    }
}

/// Studio light, a little stronger or weaker and warmer or cooler.
fn light(draw: &Draw) -> Lighting {
    let mut light = Lighting::studio();
    let strength = 0.9 + 0.2 * draw.uniform(40);
    let warmth = 0.04 * (2.0 * draw.uniform(41) - 1.0);
    let tint = Vec3::new(1.0 + warmth, 1.0, 1.0 - warmth) * strength;
    light.sky *= tint;
    light.ground *= tint;
    for (_, color) in &mut light.lights {
        *color *= tint;
    }
    light
}

/// A plain background, linear RGB: mostly light and neutral, so that any object stands out.
fn background(draw: &Draw) -> Vec3 {
    background_color([draw.uniform(48), draw.uniform(49), draw.uniform(50), draw.uniform(51)])
}
