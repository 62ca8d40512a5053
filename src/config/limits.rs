//! What is a sensible value, and what a configuration costs in memory.

use std::fmt::Display;

use super::{Config, Latents, Method, RefineConfig, RefineStart};
use crate::distill::debias::Vocabulary;
use crate::mesh::implicit::MAX_CELLS;
use crate::refine::SurfaceStage;
use crate::render::volume::VolumeRenderer;
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
    c.field.validate()?;
    c.volume.validate()?;
    sds(c)?;
    for (key, value) in [
        ("regularize.opaque", c.regularize.opaque),
        ("regularize.sparsity", c.regularize.sparsity),
        ("regularize.z_variance", c.regularize.z_variance),
        ("regularize.orientation", c.regularize.orientation),
        ("regularize.smoothness", c.regularize.smoothness),
    ] {
        within(key, value, 0.0, 10_000.0)?;
    }
    within("regularize.orientation_ramp", c.regularize.orientation_ramp, 0.0, 1.0)?;
    within("regularize.opaque_from", c.regularize.opaque_from, 0.0, 1.0)?;
    within("optim.retries", c.optim.retries, 0, 10)?;
    optim(c)?;
    refine(&c.refine)?;
    c.mesh.validate()?;
    c.export.validate()?;
    within("texture.resolution", c.texture.resolution, 8, 256)?;
    within("texture.learning_rate", c.texture.learning_rate, 0.0, 10.0)?;
    within("output.sheet_size", c.output.sheet_size, 16, 2048)?;
    within("output.preview_size", c.output.preview_size, 16, 512)
}

fn camera(c: &Config) -> Result<()> {
    within("camera.views", c.camera.views, 1, 64)?;
    within("camera.size", c.camera.size, 16, 512)?;
    if c.camera.late_size > 0 {
        within("camera.late_size", c.camera.late_size, 16, 512)?;
    }
    within("camera.late_from", c.camera.late_from, 0.0, 1.0)?;
    within("camera.fov", c.camera.fov, 5.0, 120.0)?;
    within("camera.distance", c.camera.distance, 1.2, 10.0)?;
    within("camera.distance_jitter", c.camera.distance_jitter, 0.0, 0.5)?;
    let [low, high] = c.camera.elevation;
    within("camera.elevation", low, -90.0, 90.0)?;
    within("camera.elevation", high, low, 90.0)
}

fn sds(c: &Config) -> Result<()> {
    within("sds.guidance_scale", c.sds.guidance_scale, 0.0, 1000.0)?;
    within("sds.guidance_rescale", c.sds.guidance_rescale, 0.0, 1.0)?;
    within("sds.max_gradient_rms", c.sds.max_gradient_rms, 0.0, 1000.0)?;
    if c.sds.prior_size > 0 {
        within("sds.prior_size", c.sds.prior_size, 16, 1024)?;
    }
    within("sds.linear_until", c.sds.linear_until, 0.0, 1.0)?;
    if c.sds.latents == Latents::Linear && (c.sds.prior_size > 0 || c.sds.image_weight > 0.0) {
        let why = "linear latents go with neither sds.prior_size nor sds.image_weight";
        return Err(Error::invalid("sds.latents", why));
    }
    if c.sds.linear_until > 0.0 && c.sds.image_weight > 0.0 {
        return Err(Error::invalid(
            "sds.linear_until",
            "does not go with sds.image_weight, which decodes pictures",
        ));
    }
    for bound in c.sds.score_clip {
        // One bound of zero would be a gradient of zero.
        within("sds.score_clip", bound, if c.sds.score_clip == [0.0, 0.0] { 0.0 } else { 1e-6 }, 1000.0)?;
    }
    Vocabulary::with(&c.sds.view_words).map(drop)?;
    let s = &c.sketch;
    within("sketch.weight", s.weight, 0.0, 10_000.0)?;
    within("sketch.leniency", s.leniency, 0.001, 1.0)?;
    within("sketch.size", s.size, 0.1, 2.0)?;
    within("sketch.length", s.length, 0.01, 1.0)?;
    within("sketch.points", s.points, 1, 1_000_000)?;
    within("sds.image_weight", c.sds.image_weight, 0.0, 1000.0)?;
    within("sds.ism_steps", c.sds.ism_steps, 1, 100)?;
    within("sds.ism_interval", c.sds.ism_interval, 0.001, 0.999)?;
    particles(c)?;
    shading(c)?;
    c.sds.timesteps.check().map_err(|e| Error::invalid("sds.timesteps", e.to_string()))
}

fn particles(c: &Config) -> Result<()> {
    within("vsd.particles", c.vsd.particles, 1, 16)?;
    within("vsd.rank", c.vsd.rank, 1, 256)?;
    within("vsd.learning_rate", c.vsd.learning_rate, 0.0, 1.0)?;
    within("vsd.camera_dropout", c.vsd.camera_dropout, 0.0, 1.0)?;
    if c.vsd.particles > 1 && c.method != Method::Vsd {
        return Err(Error::invalid("vsd.particles", "more than one is only of use to `method = \"vsd\"`"));
    }
    if c.sds.perp_neg && !matches!(c.method, Method::Sds | Method::Sjc | Method::Vsd) {
        return Err(Error::invalid("sds.perp_neg", "goes with the methods sds, sjc and vsd"));
    }
    Ok(())
}

fn shading(c: &Config) -> Result<()> {
    let s = &c.shading;
    for (key, value) in [
        ("shading.from", s.from),
        ("shading.lambertian", s.lambertian),
        ("shading.textureless", s.textureless),
        ("shading.ambient", s.ambient),
        ("shading.diffuse", s.diffuse),
    ] {
        within(key, value, 0.0, 1.0)?;
    }
    let [near, far] = s.distance;
    within("shading.distance", near, 0.1, 10.0)?;
    within("shading.distance", far, near, 10.0)
}

fn optim(c: &Config) -> Result<()> {
    let alone = c.refine.steps > 0 && c.refine.start == RefineStart::Ball;
    within("optim.steps", c.optim.steps, u32::from(!alone), 100_000)?;
    within("optim.warmup", c.optim.warmup, 0, 100_000)?;
    within("optim.final_rate", c.optim.final_rate, 0.0, 1.0)?;
    for (key, rate) in [
        ("adam.lr_grid", c.adam.lr_grid),
        ("adam.lr_mlp", c.adam.lr_mlp),
        ("adam.lr_background", c.adam.lr_background),
    ] {
        within(key, rate, 0.0, 1.0)?;
    }
    within("adam.beta1", c.adam.beta1, 0.0, 0.999_999)?;
    within("adam.beta2", c.adam.beta2, 0.0, 0.999_999)?;
    within("adam.eps", c.adam.eps, 1e-30, 1.0)
}

fn refine(r: &RefineConfig) -> Result<()> {
    within("refine.steps", r.steps, 0, 100_000)?;
    within("refine.resolution", r.resolution, 8, MAX_CELLS)?;
    within("refine.views", r.views, 1, 64)?;
    within("refine.size", r.size, 16, 1024)?;
    within("refine.supersample", r.supersample, 1, 4)?;
    if r.fov != 0.0 {
        within("refine.fov", r.fov, 5.0, 120.0)?;
    }
    if r.distance != 0.0 {
        within("refine.distance", r.distance, 1.2, 10.0)?;
    }
    within("refine.guidance_scale", r.guidance_scale, 0.0, 1000.0)?;
    within("refine.normals_scale", r.normals_scale, 0.0, 1000.0)?;
    r.timesteps.check().map_err(|e| Error::invalid("refine.timesteps", e.to_string()))?;
    for (key, rate) in [
        ("refine.lr_sdf", r.lr_sdf),
        ("refine.lr_deform", r.lr_deform),
        ("refine.lr_weights", r.lr_weights),
        ("refine.lr_grid", r.lr_grid),
        ("refine.lr_mlp", r.lr_mlp),
        ("refine.final_rate", r.final_rate),
    ] {
        within(key, rate, 0.0, 1.0)?;
    }
    within("refine.latents_until", r.latents_until, 0.0, 1.0)?;
    within("refine.normals_until", r.normals_until, 0.0, 1.0)?;
    if r.normals_until < r.latents_until {
        return Err(Error::invalid("refine.normals_until", "must not be below refine.latents_until"));
    }
    within("refine.shape_until", r.shape_until, 0.0, 1.0)?;
    within("refine.mask", r.mask, 0.0, 10_000.0)?;
    for (key, weight) in [
        ("refine.regularize.normal_consistency", r.regularize.normal_consistency),
        ("refine.regularize.laplacian", r.regularize.laplacian),
        ("refine.regularize.sign_changes", r.regularize.sign_changes),
        ("refine.regularize.deviation", r.regularize.deviation),
    ] {
        within(key, weight, 0.0, 100_000.0)?;
    }
    Ok(())
}

/// Upper bounds: the field, and the larger of the optimisation's and the mesher's working sets.
pub(super) fn memory_estimate(c: &Config) -> u64 {
    let rays = c.camera.views as usize * (c.camera.largest() as usize).pow(2);
    let renderer = VolumeRenderer::memory(&c.field, &c.volume, rays);
    // A third of the bins at most, as measured; the occupancy grid skips the others.
    let work = renderer.work_at_most / 3;
    let r = &c.refine;
    let surface = match r.steps {
        0 => 0,
        _ => SurfaceStage::memory(r.resolution, r.views as usize, r.size as usize, r.supersample as usize),
    };
    u64::from(c.vsd.particles) * renderer.parameters + work.max(c.mesh.memory_bytes() as u64).max(surface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_nan_is_not() {
        Config::default().validate().unwrap();
        let mut c = Config::default();
        c.sds.guidance_scale = f64::NAN;
        assert!(c.validate().unwrap_err().to_string().starts_with("sds.guidance_scale: NaN"));
    }

    #[test]
    fn absurd_sizes_are_refused_with_their_limits() {
        let mut c = Config::default();
        c.camera.size = 100_000;
        assert_eq!(c.validate().unwrap_err().to_string(), "camera.size: 100000 is outside 16 … 512");
        let mut c = Config::default();
        c.camera.elevation = [50.0, -10.0];
        assert_eq!(c.validate().unwrap_err().to_string(), "camera.elevation: -10 is outside 50 … 90");
    }

    #[test]
    fn latents_without_an_encoder_go_with_nothing_that_decodes() {
        let refused = |change: fn(&mut Config)| {
            let mut c = Config::default();
            change(&mut c);
            c.validate().err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert_eq!(refused(|c| c.sds.linear_until = 0.4), "");
        assert!(
            refused(|c| (c.sds.linear_until, c.sds.image_weight) = (0.4, 0.1))
                .starts_with("sds.linear_until: ")
        );
        assert!(
            refused(|c| (c.sds.latents, c.sds.prior_size) = (Latents::Linear, 64))
                .starts_with("sds.latents: ")
        );
    }

    #[test]
    fn default_memory_is_modest_and_grows_with_the_picture() {
        let mut c = Config::default();
        let base = c.memory_estimate();
        assert!(base < 1 << 30, "{base}");
        c.camera.size = 512;
        assert!(c.memory_estimate() > 8 * base);
    }
}
