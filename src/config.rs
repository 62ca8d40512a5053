//! Run configuration: one struct is both the TOML file and the flags.
//!
//! Layers, later wins: the defaults written in this file < the preset (`scenes/*.toml`, included in
//! the binary) < a `--scene` file < flags. Every key can be set from the command line
//! (`--set optim.steps=500`); the common ones have a flag of their own. The resolved configuration
//! is written beside every output as `config.toml` and reads back to the same value.

pub mod layers;
mod limits;
pub mod methods;
pub mod presets;
mod refine;
mod tables;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::asset::ExportOptions;
use crate::field::{AdamConfig, FieldConfig};
use crate::mesh::MeshOptions;
use crate::render::volume::VolumeConfig;
pub use crate::suggest::nearest;
pub use refine::{RefineConfig, RefineStart};
pub use tables::{
    CameraConfig, Latents, Method, OptimConfig, OutputConfig, Recompute, RegularizeConfig, SdsConfig,
    ShadingConfig, SketchConfig, TextureConfig, VsdConfig,
};

/// Everything that decides what a run computes, and how often it reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seed of every random number of the run (0 … 2⁶³ − 1, the range of a TOML integer).
    pub seed: u64,
    /// `mini` (the embedded prior) or a folder in the diffusers layout.
    pub prior: String,
    /// `auto`, `cpu`, `vulkan` or a part of an adapter's name.
    pub device: String,
    /// How the prior's opinion becomes a gradient.
    pub method: Method,
    /// The camera rig.
    pub camera: CameraConfig,
    /// What is optimised.
    pub field: FieldConfig,
    /// How it is rendered.
    pub volume: VolumeConfig,
    /// Score distillation.
    pub sds: SdsConfig,
    /// Particles of VSD.
    pub vsd: VsdConfig,
    /// A guiding mesh.
    pub sketch: SketchConfig,
    /// Light.
    pub shading: ShadingConfig,
    /// Weights of the regularisers.
    pub regularize: RegularizeConfig,
    /// Steps and the course of the learning rates.
    pub optim: OptimConfig,
    /// Adam.
    pub adam: AdamConfig,
    /// The second stage.
    pub refine: RefineConfig,
    /// From field to triangles.
    pub mesh: MeshOptions,
    /// What is made beside the asset.
    pub export: ExportOptions,
    /// Materials for a given model (`gen3d texture`).
    pub texture: TextureConfig,
    /// Previews and checkpoints.
    pub output: OutputConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            prior: "mini".into(),
            device: "auto".into(),
            method: Method::Sds,
            camera: CameraConfig::default(),
            field: FieldConfig::default(),
            volume: VolumeConfig::default(),
            sds: SdsConfig::default(),
            vsd: VsdConfig::default(),
            sketch: SketchConfig::default(),
            shading: ShadingConfig::default(),
            regularize: RegularizeConfig::default(),
            optim: OptimConfig::default(),
            adam: AdamConfig::default(),
            refine: RefineConfig::default(),
            mesh: MeshOptions::default(),
            export: ExportOptions::default(),
            texture: TextureConfig::default(),
            output: OutputConfig::default(),
        }
    }
}

impl Config {
    /// Parses a resolved configuration (as [`Config::to_toml`] writes it) over the defaults.
    ///
    /// # Errors
    /// Bad TOML, unknown keys, wrong types and values out of range, each naming its key.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self> {
        layers::resolve(&[layers::Layer::parse(text, origin)?])
    }

    /// The resolved configuration as TOML.
    ///
    /// # Errors
    /// Only if a value has no TOML form (a seed past 2⁶³ − 1).
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| crate::Error::invalid("config", e.to_string()))
    }

    /// Checks every value against its limits.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the key, the value and the limits.
    pub fn validate(&self) -> Result<()> {
        limits::validate(self)
    }

    /// Steps of both stages.
    pub fn steps(&self) -> u32 {
        self.optim.steps + self.refine.steps
    }

    /// Main memory the run needs, in bytes, apart from the prior's weights and activations.
    pub fn memory_estimate(&self) -> u64 {
        limits::memory_estimate(self)
    }

    /// Dotted keys, in alphabetical order, that decide the optimisation and on which two
    /// configurations differ. `mesh` and `export` come after it, `output` and
    /// `device` do not decide it.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (a, b) = (layers::flatten(self), layers::flatten(other));
        // Both, for the optional keys that only one of them has.
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        let differs = |key: &&&String| decides(key) && a.get(**key) != b.get(**key);
        keys.iter().filter(differs).map(|key| (*key).clone()).collect()
    }
}

fn decides(key: &str) -> bool {
    key != "device" && !["output.", "mesh.", "export."].iter().any(|table| key.starts_with(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolved_config_reads_back_to_the_same_value() {
        let mut config = Config { seed: 11, prior: "a \"quoted\" folder".into(), ..Config::default() };
        config.sds.guidance_scale = 7.3;
        config.mesh.threshold = Some(4.25);
        let text = config.to_toml().unwrap();
        assert!(text.contains("guidance_scale = 7.3\n"), "{text}");
        assert_eq!(Config::from_toml(&text, "test").unwrap(), config);
    }

    #[test]
    fn differences_are_those_that_decide_the_optimisation() {
        let base = Config::default();
        let mut same = Config { device: "cpu".into(), ..base.clone() };
        same.output.preview_every = 0;
        same.mesh.texture_size = 256;
        assert!(base.differences(&same).is_empty());
        let mut other = base.clone();
        other.optim.steps += 1;
        assert_eq!(base.differences(&other), ["optim.steps"]);
    }
}
