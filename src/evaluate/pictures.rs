//! Pictures for the evaluator to judge: views of assets, and samples of the data engine with their truth.

use std::collections::HashSet;

use glam::{Mat4, Vec3};
use image::RgbImage;
use rayon::prelude::*;

use crate::asset::Asset;
use crate::error::{Error, Result};
use crate::render::backdrop::background_color;
use crate::render::camera::Camera;
use crate::render::light::Lighting;
use crate::render::raster::{Frame, Instance, PreparedAsset, render_scene};
use crate::train::data::{DISTANCE, Dataset, FOV_Y, LARGEST_SIDE, Sample};

/// Degrees above the horizon from which assets are seen.
const ELEVATION: f32 = 15.0;
/// Samples across a pixel.
const SUPERSAMPLE: u32 = 4;

/// [`frames`] as pictures.
pub fn views(asset: &Asset, count: u32, size: u32) -> Vec<RgbImage> {
    frames(asset, count, size).iter().map(Frame::to_srgb8).collect()
}

/// An asset seen from `count` equal steps of azimuth, the first from the front, as the training
/// pictures show things: bounds centred, the largest side of the same length, same distance and field of
/// view; studio light, a light grey behind.
pub fn frames(asset: &Asset, count: u32, size: u32) -> Vec<Frame> {
    let (low, high) = asset.bounds().unwrap_or_default();
    let extent = (high - low).max_element().max(f32::MIN_POSITIVE);
    let fit =
        Mat4::from_scale(Vec3::splat(LARGEST_SIDE / extent)) * Mat4::from_translation(-0.5 * (low + high));
    // Finer textures would only flicker at this size.
    let prepared = PreparedAsset::with_texture_limit(asset, size * SUPERSAMPLE);
    let (light, background) = (Lighting::studio(), background_color([0.0, 0.6, 0.5, 0.5]));
    let view = |i: u32| {
        let azimuth = 360.0 * i as f32 / count as f32;
        let camera = Camera::orbit(azimuth, ELEVATION, DISTANCE, Vec3::ZERO, FOV_Y.to_radians(), size);
        render_scene(&[Instance::new(&prepared, fit)], &camera, &light, background, SUPERSAMPLE)
    };
    (0..count).into_par_iter().map(view).collect()
}

/// The first samples of `data` that have `count` different captions, one each.
///
/// # Errors
/// As [`Dataset::sample`]; [`Error::Failed`] if there are not so many captions.
pub fn truth(data: &Dataset, count: usize) -> Result<Vec<Sample>> {
    const CHUNK: u64 = 64;
    let (mut known, mut out) = (HashSet::new(), Vec::new());
    for start in (0..40 * count as u64 + 10 * CHUNK).step_by(CHUNK as usize) {
        let drawn: Vec<Sample> =
            (start..start + CHUNK).into_par_iter().map(|i| data.sample(i)).collect::<Result<_>>()?;
        out.extend(drawn.into_iter().filter(|s| known.insert(s.caption.clone())));
        if out.len() >= count {
            out.truncate(count);
            return Ok(out);
        }
    }
    Err(Error::Failed(format!("only {} different captions were drawn", out.len()))
        .hint("ask for fewer with --truth"))
}

/// The azimuth in radians from which a sample is seen; `None` if what it shows has no front.
pub fn azimuth(sample: &Sample) -> Option<f32> {
    sample.fronted.then(|| sample.camera[2].atan2(sample.camera[10]))
}

/// The median of |predicted − true| in degrees over the samples that have a front.
pub fn median_azimuth_error(samples: &[Sample], predicted: &[[f32; 2]]) -> Option<f32> {
    let off = |(s, p): (&Sample, &[f32; 2])| {
        Some(super::consistency::wrapped(p[1].atan2(p[0]) - azimuth(s)?).abs().to_degrees())
    };
    let mut all: Vec<f32> = samples.iter().zip(predicted).filter_map(off).collect();
    all.sort_by(f32::total_cmp);
    all.get(all.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::train::data::DataConfig;

    #[test]
    fn assets_are_drawn_as_in_training() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let asset = crate::asset::load(&root.join("scenes/props/blue_jay.toml")).unwrap();
        let pictures = views(&asset, 8, 32);
        assert_eq!(pictures.len(), 8);
        let grey = pictures[0].get_pixel(0, 0).0;
        for picture in &pictures {
            assert_eq!(picture.get_pixel(31, 0).0, grey);
            let ink = picture.pixels().filter(|p| p.0.iter().zip(grey).any(|(a, b)| a.abs_diff(b) > 20));
            let share = ink.count() as f32 / 1024.0;
            assert!((0.04..0.6).contains(&share), "{share}");
        }
        assert_ne!(pictures[0], pictures[4]);
        // The size of the file's units does not matter.
        let mut large = asset.clone();
        large.meshes.iter_mut().flat_map(|m| &mut m.positions).for_each(|p| *p *= 100.0);
        let off = |a: &RgbImage, b: &RgbImage| {
            a.pixels().zip(b.pixels()).filter(|(p, q)| p.0[0].abs_diff(q.0[0]) > 8).count()
        };
        assert!(off(&views(&large, 8, 32)[3], &pictures[3]) < 20);
    }

    #[test]
    fn truth_is_distinct_and_knows_its_side() {
        let props = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props");
        let config = DataConfig { image_size: 8, supersample: 1, ..DataConfig::default() };
        let data = Dataset::open(None, &props, config, 2).unwrap();
        let samples = truth(&data, 70).unwrap();
        let captions: HashSet<_> = samples.iter().map(|s| &s.caption).collect();
        assert_eq!(captions.len(), 70);
        let exact: Vec<[f32; 2]> =
            samples.iter().map(|s| azimuth(s).map_or([0.3, 0.1], |a| [a.cos(), a.sin()])).collect();
        assert!(median_azimuth_error(&samples, &exact).unwrap() < 0.1);
        let opposite: Vec<[f32; 2]> = exact.iter().map(|p| [-p[0], -p[1]]).collect();
        assert!(median_azimuth_error(&samples, &opposite).unwrap() > 179.0);
    }
}
