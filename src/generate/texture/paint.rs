//! From the grid's numbers to materials, and from materials to colours in light, both ways.
//!
//! Numbers go through the logistic function: base colour σ(x), roughness from [`ROUGH`], metalness
//! σ(x − 2). Without metalness and roughness the light is that of the prior's training pictures (a
//! hemisphere and two lamps), of random strength and tint, turned at random: what stays the same under all of it is
//! the surface's own colour. With them it is a random environment.

use std::f64::consts::TAU;
use std::sync::Arc;

use glam::{DVec3, Vec3};
use rayon::prelude::*;

use crate::render::camera::Camera;
use crate::render::light::Lighting;
use crate::render::material::{Environment, Light, Look, Studio, shade, shade_with_gradient};
use crate::rng::{Rng, Stream};

/// Lowest roughness and its range.
const ROUGH: [f32; 2] = [0.15, 0.85];

/// Channels of a grid: base colour, and for all of it roughness and metalness.
pub(super) fn channels(pbr: bool) -> usize {
    if pbr { 5 } else { 3 }
}

fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Base colour, roughness and metalness (0.8 and 0 without channels of their own) of a point's numbers.
pub(super) fn material(numbers: &[f32]) -> (Vec3, f32, f32) {
    let base = Vec3::new(logistic(numbers[0]), logistic(numbers[1]), logistic(numbers[2]));
    match numbers {
        [_, _, _, rough, metal] => (base, ROUGH[0] + ROUGH[1] * logistic(rough + 0.7), logistic(metal - 2.0)),
        _ => (base, 0.8, 0.0),
    }
}

/// Slopes of base colour, roughness and metalness by their numbers.
fn slopes(numbers: &[f32]) -> [f32; 5] {
    let slope = |x: f32| {
        let y = logistic(x);
        y * (1.0 - y)
    };
    let [r, g, b] = [0, 1, 2].map(|c| slope(numbers[c]));
    match numbers {
        [_, _, _, rough, metal] => [r, g, b, ROUGH[1] * slope(rough + 0.7), slope(metal - 2.0)],
        _ => [r, g, b, 0.0, 0.0],
    }
}

/// Light of one step.
pub(super) enum Lit {
    /// The training pictures' light.
    Plain(Lighting),
    /// An environment, its turn about the vertical axis, and its strength.
    Around(Arc<Environment>, f64, f64),
}

impl Lit {
    /// The light of a step, at random.
    pub(super) fn random(pbr: bool, seed: u64, step: u32) -> Self {
        let rng = Rng::new(seed, Stream::Light, step);
        let turn = rng.range(0, 0.0, TAU as f32);
        let strength = rng.range(1, 0.9, 1.1);
        if pbr {
            let studio = if rng.uniform(2) < 0.5 { Studio::Softboxes } else { Studio::Overcast };
            return Self::Around(studio.environment(), f64::from(turn), f64::from(strength));
        }
        let warmth = rng.range(3, -0.04, 0.04);
        Self::Plain(turned(turn, Vec3::new(1.0 + warmth, 1.0, 1.0 - warmth) * strength))
    }

    /// The light of previews.
    pub(super) fn fixed(pbr: bool) -> Self {
        match pbr {
            true => Self::Around(Studio::Softboxes.environment(), 0.0, 1.0),
            false => Self::Plain(Lighting::studio()),
        }
    }

    /// Linear colours `[points, 3]` as `camera` sees them.
    pub(super) fn colors(&self, points: &Points<'_>, camera: &Camera) -> Vec<f32> {
        (0..points.positions.len())
            .into_par_iter()
            .flat_map_iter(|i| match self {
                Self::Plain(light) => {
                    let (base, ..) = material(points.numbers(i));
                    (base * irradiance(light, points.normals[i])).to_array()
                }
                Self::Around(environment, turn, strength) => {
                    let (look, v) = points.look(i, camera);
                    shade(&look, &around(environment, *turn, *strength), v).map(|x| x as f32)
                }
            })
            .collect()
    }

    /// The gradient by the points' numbers, from that by [`Self::colors`]' colours.
    pub(super) fn pull_back(&self, points: &Points<'_>, camera: &Camera, by_colors: &[f32]) -> Vec<f32> {
        (0..points.positions.len())
            .into_par_iter()
            .flat_map_iter(|i| {
                let by = Vec3::from_slice(&by_colors[3 * i..]);
                let mut out = slopes(points.numbers(i));
                let by_material = self.by_material(points, i, camera, by);
                out.iter_mut().zip(by_material).for_each(|(slope, by)| *slope *= by);
                out.into_iter().take(points.channels)
            })
            .collect()
    }

    /// The gradient by base colour, roughness and metalness.
    fn by_material(&self, points: &Points<'_>, i: usize, camera: &Camera, by: Vec3) -> [f32; 5] {
        if by == Vec3::ZERO {
            return [0.0; 5];
        }
        match self {
            Self::Plain(light) => {
                let [r, g, b] = (by * irradiance(light, points.normals[i])).to_array();
                [r, g, b, 0.0, 0.0]
            }
            Self::Around(environment, turn, strength) => {
                let (look, v) = points.look(i, camera);
                let light = around(environment, *turn, *strength);
                let (_, slope) = shade_with_gradient(&look, &light, v, |_| by.as_dvec3());
                let [r, g, b] = slope.base;
                [r, g, b, slope.roughness, slope.metallic].map(|x| x as f32)
            }
        }
    }
}

fn around(environment: &Environment, turn: f64, strength: f64) -> Light<'_> {
    Light { turn, strength, ..Light::from(environment) }
}

/// Studio light turned about the vertical axis by radians and tinted.
fn turned(turn: f32, tint: Vec3) -> Lighting {
    let mut light = Lighting::studio();
    light.sky *= tint;
    light.ground *= tint;
    for (direction, color) in &mut light.lights {
        *direction = glam::Quat::from_rotation_y(turn) * *direction;
        *color *= tint;
    }
    light
}

/// Light on a matte surface, as the training pictures' rasteriser has it.
fn irradiance(light: &Lighting, normal: Vec3) -> Vec3 {
    let lamps = light.lights.iter().map(|(direction, color)| *color * normal.dot(*direction).max(0.0));
    light.hemisphere(normal.y) + lamps.sum::<Vec3>()
}

/// The points that are coloured.
pub(super) struct Points<'a> {
    pub(super) positions: &'a [Vec3],
    /// Unit.
    pub(super) normals: &'a [Vec3],
    /// `[points, channels]`.
    pub(super) numbers: &'a [f32],
    pub(super) channels: usize,
}

impl Points<'_> {
    fn numbers(&self, i: usize) -> &[f32] {
        &self.numbers[self.channels * i..self.channels * (i + 1)]
    }

    /// The look of a point, its normal turned towards the camera, and the direction towards it.
    fn look(&self, i: usize, camera: &Camera) -> (Look, DVec3) {
        let (base, roughness, metallic) = material(self.numbers(i));
        let v = (camera.origin() - self.positions[i]).normalize_or(Vec3::Y).as_dvec3();
        let normal = self.normals[i].as_dvec3();
        let normal = if normal.dot(v) < 0.0 { -normal } else { normal };
        let look = Look {
            base: base.as_dvec3().to_array(),
            metallic: f64::from(metallic),
            roughness: f64::from(roughness),
            normal: normal.to_array(),
        };
        (look, v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points<'a>(place: (&'a [Vec3], &'a [Vec3]), numbers: &'a [f32], channels: usize) -> Points<'a> {
        Points { positions: place.0, normals: place.1, numbers, channels }
    }

    #[test]
    fn gradients_agree_with_finite_differences_with_and_without_metal() {
        let rng = Rng::new(9, Stream::Probe, 4);
        let unit = |i: u64| {
            Vec3::from_array([0, 1, 2].map(|k| rng.range(8 * i + k, -1.0, 1.0))).normalize_or(Vec3::Y)
        };
        let camera = Camera::orbit(30.0, 20.0, 2.4, Vec3::ZERO, 0.7, 64);
        let toward = camera.origin().normalize();
        // Seen neither from behind nor edge-on, where highlights bend too fast for a finite step.
        let normals: Vec<Vec3> = (0..12).map(|i| (unit(i) * 0.8 + toward).normalize()).collect();
        let positions: Vec<Vec3> = (0..12).map(|i| unit(100 + i) * 0.5).collect();
        for pbr in [false, true] {
            let n = channels(pbr);
            let numbers: Vec<f32> = (0..12 * n as u64).map(|i| rng.range(5000 + i, -1.5, 1.5)).collect();
            let weights: Vec<f32> = (0..36).map(|i| rng.range(9000 + i, -1.0, 1.0)).collect();
            let lit = Lit::random(pbr, 3, 7);
            let place = (&positions[..], &normals[..]);
            let exact = lit.pull_back(&points(place, &numbers, n), &camera, &weights);
            assert_eq!(exact.len(), numbers.len());
            let loss = |numbers: &[f32]| -> f64 {
                let colors = lit.colors(&points(place, numbers, n), &camera);
                colors.iter().zip(&weights).map(|(c, w)| f64::from(*c) * f64::from(*w)).sum()
            };
            for i in 0..numbers.len() {
                let moved = |by: f32| {
                    let mut x = numbers.clone();
                    x[i] += by;
                    loss(&x)
                };
                // Small, since the split sum's tables are linear between their roughnesses: a step across one of
                // those sees two slopes.
                let h = 5e-4;
                let numeric = (moved(h) - moved(-h)) / f64::from(2.0 * h);
                let error = (numeric - f64::from(exact[i])).abs();
                assert!(error < 2e-2 * numeric.abs().max(0.02), "{pbr} {i}: {numeric} {}", exact[i]);
            }
        }
    }

    #[test]
    fn light_is_random_but_known_and_nearly_as_bright_as_the_studio() {
        let up = |lit: &Lit| match lit {
            Lit::Plain(light) => irradiance(light, Vec3::Y),
            Lit::Around(e, ..) => e.radiance(DVec3::Y).as_vec3(),
        };
        assert_eq!(up(&Lit::random(false, 1, 2)), up(&Lit::random(false, 1, 2)));
        assert_ne!(up(&Lit::random(false, 1, 2)), up(&Lit::random(false, 1, 3)));
        let studio = up(&Lit::fixed(false));
        for step in 0..20 {
            let ratio = up(&Lit::random(false, 1, step)) / studio;
            assert!(ratio.min_element() > 0.85 && ratio.max_element() < 1.15, "{ratio}");
        }
    }
}
