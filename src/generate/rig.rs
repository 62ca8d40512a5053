//! The camera rig: where a step looks from, and before which backgrounds.

use glam::Vec3;

use crate::config::{CameraConfig, Config};
use crate::render::backdrop::background_color;
use crate::render::camera::Camera;
use crate::rng::{Rng, Stream};

/// Random numbers a view may use of each stream.
const DRAWS: u64 = 8;

/// The cameras of an optimisation step. Azimuths are stratified: one view in each n-th of the
/// circle, so that no step forgets a side; elevation and distance are uniform.
pub(super) fn cameras(config: &Config, step: u32) -> Vec<Camera> {
    let rig = &config.camera;
    let rng = Rng::new(config.seed, Stream::Camera, step);
    let turn = rng.range(u64::from(rig.views) * DRAWS, 0.0, 360.0);
    (0..rig.views)
        .map(|view| {
            let at = u64::from(view) * DRAWS;
            let azimuth = turn + 360.0 * (view as f32 + rng.uniform(at)) / rig.views as f32;
            let elevation = rng.range(at + 1, rig.elevation[0], rig.elevation[1]);
            let jitter = rng.range(at + 2, -rig.distance_jitter, rig.distance_jitter);
            orbit(rig, azimuth.rem_euclid(360.0), elevation, 1.0 + jitter, rig.size)
        })
        .collect()
}

/// `n` cameras evenly around the asset, the first in front of it, 15° above the horizon.
pub(super) fn turntable(rig: &CameraConfig, n: u32, size: u32) -> Vec<Camera> {
    (0..n).map(|i| orbit(rig, 360.0 * i as f32 / n as f32, 15.0, 1.0, size)).collect()
}

fn orbit(rig: &CameraConfig, azimuth: f32, elevation: f32, scale: f32, size: u32) -> Camera {
    Camera::orbit(azimuth, elevation, rig.distance * scale, Vec3::ZERO, rig.fov.to_radians(), size)
}

/// One linear background colour a view, distributed as in the prior's training pictures. Random, so
/// that no part of the field can hide by matching it.
pub(super) fn backgrounds(config: &Config, step: u32) -> Vec<Vec3> {
    let rng = Rng::new(config.seed, Stream::Background, step);
    (0..u64::from(config.camera.views))
        .map(|view| background_color([0, 1, 2, 3].map(|i| rng.uniform(view * DRAWS + i))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn azimuth(c: &Camera) -> f32 {
        let p = c.origin();
        p.x.atan2(p.z).to_degrees().rem_euclid(360.0)
    }

    #[test]
    fn views_stay_in_the_rig_and_cover_the_circle() {
        let config = Config { seed: 5, ..Config::default() };
        let mut sectors = [0u32; 8];
        for step in 0..500 {
            let views = cameras(&config, step);
            assert_eq!(views.len(), 4);
            for c in &views {
                let p = c.origin();
                let elevation = (p.y / p.length()).asin().to_degrees();
                assert!((2.16 - 1e-4..=2.64 + 1e-4).contains(&p.length()), "{}", p.length());
                assert!((-10.01..=50.01).contains(&elevation), "{elevation}");
                assert!((c.direction(32.0, 32.0) + p.normalize()).length() < 1e-4);
                sectors[(azimuth(c) / 45.0) as usize % 8] += 1;
            }
            // Stratified: sorted azimuths are never two quarters apart.
            let mut a: Vec<f32> = views.iter().map(azimuth).collect();
            a.sort_by(f32::total_cmp);
            let gap = (0..4).map(|i| (a[(i + 1) % 4] - a[i]).rem_euclid(360.0)).fold(0.0, f32::max);
            assert!(gap <= 180.01, "{gap}");
        }
        // 2000 views over 8 sectors: 250 each, 5 standard deviations of a binomial (less, stratified).
        assert!(sectors.iter().all(|n| n.abs_diff(250) < 75), "{sectors:?}");
    }

    #[test]
    fn backgrounds_are_colours_and_steps_differ() {
        let config = Config::default();
        let all: Vec<Vec3> = (0..250).flat_map(|s| backgrounds(&config, s)).collect();
        assert!(all.iter().all(|c| c.min_element() >= 0.0 && c.max_element() <= 1.0));
        assert_ne!(backgrounds(&config, 0), backgrounds(&config, 1));
        assert_ne!(cameras(&config, 0), cameras(&config, 1));
    }
}
