//! Rendered motion: things that turn and travel before a backdrop that moves.

use std::path::Path;

use glam::{Mat4, Quat, Vec3};
use rayon::prelude::*;

use super::backdrop::{Backdrop, small};
use super::sequences::{FRAMES, Sequences};
use crate::asset::recipe;
use crate::error::{Error, Result};
use crate::render::camera::Camera;
use crate::render::color::linear_to_srgb8;
use crate::render::light::Lighting;
use crate::render::raster::{Instance, PreparedAsset, render_scene};
use crate::rng::{Rng, Stream};
use crate::train::data::split::Split;

/// Looks of each recipe that are built.
const LOOKS: usize = 2;
/// Random numbers of a thing.
const DRAWS: u64 = 32;
/// Where the backdrop's random numbers start.
const BACKDROP: u64 = 1 << 10;
/// Vertical field of view, radians, and distance of the camera: a thing of size 1 fills two thirds.
const FOV_Y: f32 = 0.6;
const DISTANCE: f32 = 2.4;

/// The things that are shown.
pub(super) struct Cast(Vec<PreparedAsset>);

impl Cast {
    /// Looks of all recipes in `props` on a side of the split, and at most `most` recipes.
    pub(super) fn of(props: &Path, split: Split, most: usize) -> Result<Self> {
        let mut files: Vec<_> = std::fs::read_dir(props)
            .map_err(|e| Error::io(props, e))?
            .filter_map(|f| Some(f.ok()?.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "toml"))
            .collect();
        files.sort();
        let step = files.len().div_ceil(most.max(1)).max(1);
        let build = |file: &std::path::PathBuf| -> Result<Vec<PreparedAsset>> {
            let recipe = recipe::load(file)?;
            let looks = split.looks().take(LOOKS);
            looks.map(|look| Ok(PreparedAsset::with_texture_limit(&recipe.build(look)?, 128))).collect()
        };
        let files: Vec<_> = files.into_iter().step_by(step).collect();
        let all: Vec<Vec<PreparedAsset>> = files.par_iter().map(build).collect::<Result<_>>()?;
        let all: Vec<PreparedAsset> = all.into_iter().flatten().filter(|a| a.bounds().is_some()).collect();
        if all.is_empty() { Err(Error::file(props, "holds no recipe")) } else { Ok(Self(all)) }
    }

    /// Sequences `first..first + count` of `size` pixels a side; each is a pure function of (`seed`, its
    /// number).
    pub(super) fn sequences(
        &self,
        (first, count): (usize, usize),
        size: usize,
        seed: u64,
        mut progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<Sequences> {
        let mut out = Sequences::new(size);
        let numbers: Vec<usize> = (first..first + count).collect();
        for some in numbers.chunks(64) {
            let drawn: Vec<Vec<u8>> = some
                .par_iter()
                .map(|i| self.draw(&Rng::new(seed, Stream::Camera, *i as u32), size))
                .collect();
            drawn.iter().for_each(|d| out.push(d));
            progress(out.len())?;
        }
        Ok(out)
    }

    /// `[FRAMES, 3, size, size]`, sRGB.
    fn draw(&self, rng: &Rng, size: usize) -> Vec<u8> {
        let backdrop = Backdrop::new(rng, BACKDROP, size);
        let count = [1, 1, 2, 2, 3][rng.below(0, 5) as usize];
        let things: Vec<Thing<'_>> = (1..=count).map(|k| Thing::new(&self.0, rng, DRAWS * k)).collect();
        let camera = Camera::orbit(0.0, 0.0, DISTANCE, Vec3::ZERO, FOV_Y, size as u32);
        let mut light = Lighting::studio();
        let strength = 0.5 + 0.7 * rng.uniform(2);
        light.sky *= strength;
        light.ground *= strength;
        let mut out = Vec::with_capacity(FRAMES * 3 * size * size);
        for frame in 0..FRAMES {
            let time = frame as f32 / (FRAMES - 1) as f32;
            let instances: Vec<Instance<'_>> = things.iter().map(|t| t.at(time)).collect();
            let drawn = render_scene(&instances, &camera, &light, Vec3::ZERO, 2);
            let colours: Vec<Vec3> = drawn
                .rgb
                .iter()
                .zip(&drawn.opacity)
                .enumerate()
                .map(|(i, (rgb, opacity))| {
                    let (x, y) = ((i % size) as f32 + 0.5, (i / size) as f32 + 0.5);
                    // Drawn over black: its share is in the colour already.
                    *rgb + backdrop.at(x, y, size, time) * (1.0 - opacity)
                })
                .collect();
            for channel in 0..3 {
                out.extend(colours.iter().map(|c| linear_to_srgb8(c[channel].clamp(0.0, 1.0))));
            }
        }
        out
    }
}

/// A thing on its way.
struct Thing<'a> {
    asset: &'a PreparedAsset,
    /// Centred and of size 1.
    fit: Mat4,
    scale: f32,
    pose: Quat,
    axis: Vec3,
    /// Radians over the sequence.
    turn: f32,
    place: Vec3,
    /// World units over the sequence.
    travel: Vec3,
}

impl<'a> Thing<'a> {
    fn new(cast: &'a [PreparedAsset], rng: &Rng, base: u64) -> Self {
        let u = |k: u64| rng.uniform(base + k);
        let asset = &cast[rng.below(base, cast.len() as u32) as usize];
        let (low, high) = asset.bounds().unwrap_or((Vec3::ZERO, Vec3::ONE));
        let size = (high - low).max_element().max(1e-6);
        let fit = Mat4::from_scale(Vec3::splat(1.0 / size)) * Mat4::from_translation(-0.5 * (low + high));
        let axis = Vec3::new(u(1) - 0.5, u(2) + 0.5, u(3) - 0.5).normalize_or(Vec3::Y);
        // A fifth of the things stand still.
        let moving = if u(4) < 0.2 { 0.0 } else { 1.0 };
        Self {
            asset,
            fit,
            scale: 0.35 + 0.75 * u(5),
            pose: Quat::from_rotation_y(std::f32::consts::TAU * u(6)) * Quat::from_rotation_x(u(7) - 0.5),
            axis,
            turn: small(u(8), 0.6) * moving,
            place: Vec3::new(1.2 * u(9) - 0.6, 1.0 * u(10) - 0.5, 0.6 * u(11) - 0.3),
            travel: Vec3::new(small(u(12), 0.4), small(u(13), 0.3), small(u(14), 0.5)) * moving,
        }
    }

    fn at(&self, time: f32) -> Instance<'a> {
        let turn = Quat::from_axis_angle(self.axis, self.turn * (time - 0.5)) * self.pose;
        let place = self.place + self.travel * (time - 0.5);
        let pose = Mat4::from_scale_rotation_translation(Vec3::splat(self.scale), turn, place);
        Instance::new(self.asset, pose * self.fit)
    }
}
