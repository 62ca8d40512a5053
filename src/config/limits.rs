//! What is a sensible value, and what a configuration costs in memory.

use std::fmt::Display;

use super::{Config, Threshold};
use crate::{Error, Result};

fn within<T: PartialOrd + Display>(key: &str, value: T, low: T, high: T) -> Result<()> {
    // Written so that NaN fails.
    if value >= low && value <= high {
        return Ok(());
    }
    Err(Error::invalid(key, format!("{value} is outside {low} … {high}")))
}

pub(super) fn validate(c: &Config) -> Result<()> {
    within("seed", c.seed, 0, i64::MAX as u64)?;
    camera(c)?;
    field(c)?;
    within("volume.samples", c.volume.samples, 8, 1024)?;
    within("volume.occupancy", c.volume.occupancy, 8, 256)?;
    within("volume.occupancy_every", c.volume.occupancy_every, 1, 10_000)?;
    sds(c)?;
    for (key, value) in [
        ("regularize.opaque", c.regularize.opaque),
        ("regularize.sparsity", c.regularize.sparsity),
        ("regularize.orientation", c.regularize.orientation),
        ("regularize.z_variance", c.regularize.z_variance),
    ] {
        within(key, value, 0.0, 10_000.0)?;
    }
    optim(c)?;
    within("mesh.resolution", c.mesh.resolution, 16, 512)?;
    if let Threshold::Value(value) = c.mesh.threshold {
        within("mesh.threshold", value, 1e-6, 1e6)?;
    }
    within("mesh.max_triangles", c.mesh.max_triangles, 100, 1_000_000)?;
    within("mesh.texture", c.mesh.texture, 64, 8192)?;
    within("output.preview_size", c.output.preview_size, 16, 512)
}

fn camera(c: &Config) -> Result<()> {
    within("camera.views", c.camera.views, 1, 64)?;
    within("camera.size", c.camera.size, 16, 512)?;
    within("camera.fov", c.camera.fov, 5.0, 120.0)?;
    within("camera.distance", c.camera.distance, 1.2, 10.0)?;
    within("camera.distance_jitter", c.camera.distance_jitter, 0.0, 0.5)?;
    let [low, high] = c.camera.elevation;
    within("camera.elevation", low, -90.0, 90.0)?;
    within("camera.elevation", high, low, 90.0)?;
    within("camera.neutral_backgrounds", c.camera.neutral_backgrounds, 0.0, 1.0)
}

fn field(c: &Config) -> Result<()> {
    within("field.levels", c.field.levels, 1, 16)?;
    if ![1, 2, 4, 8].contains(&c.field.features) {
        return Err(Error::invalid("field.features", format!("{} is not 1, 2, 4 or 8", c.field.features)));
    }
    within("field.log2_table", c.field.log2_table, 8, 22)?;
    within("field.coarsest", c.field.coarsest, 2, 128)?;
    within("field.finest", c.field.finest, c.field.coarsest, 2048)?;
    within("field.hidden", c.field.hidden, 16, 128)?;
    if !c.field.hidden.is_multiple_of(16) {
        return Err(Error::invalid("field.hidden", format!("{} is not a multiple of 16", c.field.hidden)));
    }
    within("field.blob_density", c.field.blob_density, 0.0, 100.0)?;
    within("field.blob_radius", c.field.blob_radius, 0.05, 1.0)
}

fn sds(c: &Config) -> Result<()> {
    within("sds.guidance_scale", c.sds.guidance_scale, 0.0, 1000.0)?;
    within("sds.t_min", c.sds.t_min, 0.0, 1.0)?;
    within("sds.t_max", c.sds.t_max, c.sds.t_min, 1.0)?;
    within("sds.t_max_end", c.sds.t_max_end, c.sds.t_min, c.sds.t_max)
}

fn optim(c: &Config) -> Result<()> {
    within("optim.steps", c.optim.steps, 1, 100_000)?;
    within("optim.learning_rate", c.optim.learning_rate, 1e-9, 1.0)?;
    within("optim.warmup", c.optim.warmup, 0, c.optim.steps)?;
    within("optim.final_rate", c.optim.final_rate, 0.0, 1.0)?;
    for beta in c.optim.betas {
        within("optim.betas", beta, 0.0, 0.999_999)?;
    }
    within("optim.epsilon", c.optim.epsilon, 1e-30, 1.0)
}

/// Upper bounds, each buffer counted at its full size.
pub(super) fn memory_estimate(c: &Config) -> u64 {
    let table = 1u64 << c.field.log2_table;
    let grid = u64::from(c.field.levels) * table * u64::from(c.field.features);
    // Parameters, gradient, two moments, and one gradient more for the ordered reduction.
    let field = grid * 4 * 5;
    let rays = u64::from(c.camera.views) * u64::from(c.camera.size).pow(2);
    // Density, colour, normal, position, interval and weight of each sample, and their gradients.
    let samples = rays * u64::from(c.volume.samples) * 4 * 24;
    let occupancy = u64::from(c.volume.occupancy).pow(3) * 5;
    // Densities at the corners, and the surface before simplification (some 100 bytes a triangle).
    let corners = u64::from(c.mesh.resolution + 1).pow(3) * 4;
    let surface = u64::from(c.mesh.resolution).pow(2) * 12 * 100;
    let texture = u64::from(c.mesh.texture).pow(2) * 40;
    // The mesh stage begins when the samples are gone.
    field + occupancy + samples.max(corners + surface + texture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_nan_is_not() {
        Config::default().validate().unwrap();
        let mut c = Config::default();
        c.sds.guidance_scale = f32::NAN;
        assert!(c.validate().unwrap_err().to_string().starts_with("sds.guidance_scale: NaN"));
    }

    #[test]
    fn absurd_sizes_are_refused_with_their_limits() {
        let mut c = Config::default();
        c.camera.size = 100_000;
        assert_eq!(c.validate().unwrap_err().to_string(), "camera.size: 100000 is outside 16 … 512");
        let mut c = Config::default();
        c.optim.warmup = c.optim.steps + 1;
        assert!(c.validate().is_err());
    }

    #[test]
    fn default_memory_is_modest_and_grows_with_the_picture() {
        let mut c = Config::default();
        let base = c.memory_estimate();
        assert!(base < 512 << 20, "{base}");
        c.camera.size = 512;
        assert!(c.memory_estimate() > 8 * base);
    }
}
