//! The tables of [`super::Config`]. Units and limits stand beside each key; `limits.rs` checks them.

use serde::{Deserialize, Serialize};

use crate::distill::{EstimatorConfig, Intervals, TimestepRange, Weighting};

/// How the prior's opinion becomes a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Score distillation sampling (DreamFusion, eq. 3).
    Sds,
    /// Score Jacobian chaining.
    Sjc,
    /// Variational score distillation (ProlificDreamer).
    Vsd,
    /// Classifier score distillation.
    Csd,
    /// Noise-free score distillation.
    Nfsd,
    /// Interval score matching (LucidDreamer).
    Ism,
}

/// How pictures become latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Latents {
    /// By the prior's encoder.
    Encoder,
    /// By the encoder's linear part, a pixel a latent: `camera.size` is the latents' size (Latent-NeRF).
    Linear,
}

/// Whether the tapes of the prior's networks are kept or computed again, piece by piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Computed again where they would take more than a gibibyte: by the sizes alone, so that the result does
    /// not depend on the machine.
    Auto,
    /// Kept: faster by a pass, and some gigabytes for Stable Diffusion at 512².
    Never,
    /// Computed again.
    Always,
}

/// The camera rig: cameras on a sphere around the origin, looking at it. It must be the rig that
/// the prior was trained with, or the prior judges views it has never seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CameraConfig {
    /// Views per step (1 … 64), their azimuths stratified over the circle.
    pub views: u32,
    /// Pixels along a side (16 … 512); the prior decides what is sensible.
    pub size: u32,
    /// Pixels along a side in the later part of the run (16 … 512); 0: as before.
    pub late_size: u32,
    /// Fraction of the run after which it is late (0 … 1).
    pub late_from: f64,
    /// Vertical field of view in degrees (5 … 120).
    pub fov: f32,
    /// Distance of the camera from the origin in world units (1.2 … 10).
    pub distance: f32,
    /// Relative half width of the distance's uniform distribution (0 … 0.5).
    pub distance_jitter: f32,
    /// Lowest and highest elevation in degrees (−90 … 90).
    pub elevation: [f32; 2],
}

impl Default for CameraConfig {
    fn default() -> Self {
        Self {
            views: 4,
            size: 64,
            late_size: 0,
            late_from: 1.0,
            fov: 40.0,
            distance: 2.4,
            distance_jitter: 0.1,
            elevation: [-10.0, 50.0],
        }
    }
}

impl CameraConfig {
    /// Pixels along a side at `progress` 0 … 1 of the run.
    pub fn size_at(&self, progress: f64) -> u32 {
        if self.late_size > 0 && progress >= self.late_from { self.late_size } else { self.size }
    }

    /// The most pixels along a side at any time.
    pub fn largest(&self) -> u32 {
        self.size.max(self.late_size)
    }
}

/// Score distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SdsConfig {
    /// Classifier-free guidance ε̂ = ε_∅ + s (ε_y − ε_∅) (0 … 1000).
    pub guidance_scale: f64,
    /// How far ε̂ is scaled back to the conditional answer's standard deviation (0 … 1).
    pub guidance_rescale: f64,
    /// What the unconditional branch reads.
    pub negative_prompt: String,
    /// The weight w(t).
    pub weighting: Weighting,
    /// Bound on the root mean square of a view's gradient (0 … 1000); 0 for none.
    pub max_gradient_rms: f64,
    /// How pictures become latents.
    pub latents: Latents,
    /// Fraction of the run (its first stage) that is spent as with [`Latents::Linear`], drawn at the latents' size;
    /// then come whole pictures (0 … 1; Latent-NeRF's refinement by colours).
    pub linear_until: f64,
    /// Pixels along a side that pictures are scaled to for the prior (16 … 1024); 0: as rendered.
    pub prior_size: u32,
    /// Whether the tapes of the encoder and of VSD's estimate are computed again instead of kept.
    pub recompute: Recompute,
    /// Bounds on the size of each number of a view's weighted gradient, at the start and at the end of the run
    /// (0 … 1000; score debiasing); zeros for none.
    pub score_clip: [f64; 2],
    /// Words of the prompt that contradict a view are left out for it (prompt debiasing); for priors that are
    /// not told the camera.
    pub debias_prompt: bool,
    /// Further words for it and the views that may show them, such as `"antlers: front side overhead"`; see
    /// [`crate::distill::debias`].
    pub view_words: Vec<String>,
    /// Push away from the views a camera does not see (Perp-Neg); for priors that are not told the camera.
    pub perp_neg: bool,
    /// SJC subtracts its own noise: less variance, the same mean.
    pub variance_reduced: bool,
    /// Weight of HiFA's loss on pictures, which decodes the prior's estimate (0 … 1000); 0: none.
    pub image_weight: f64,
    /// Inversion steps of ISM (1 … 100).
    pub ism_steps: usize,
    /// Fraction of the schedule between ISM's two predictions (0 … 1).
    pub ism_interval: f64,
    /// Which timesteps, and how that changes over the run.
    pub timesteps: TimestepRange,
}

impl Default for SdsConfig {
    /// For the embedded prior, which is told the camera: its answers agree between views by themselves,
    /// and little guidance keeps the colours it has learned. (Priors that are not told the camera want
    /// 7.5 to 100.)
    fn default() -> Self {
        Self {
            guidance_scale: 1.5,
            guidance_rescale: 0.0,
            negative_prompt: String::new(),
            weighting: Weighting::Sigma2,
            max_gradient_rms: 0.0,
            latents: Latents::Encoder,
            linear_until: 0.0,
            prior_size: 0,
            recompute: Recompute::Auto,
            score_clip: [0.0, 0.0],
            debias_prompt: false,
            view_words: Vec::new(),
            perp_neg: false,
            variance_reduced: true,
            image_weight: 0.0,
            ism_steps: Intervals::default().steps,
            ism_interval: Intervals::default().interval,
            timesteps: TimestepRange { max: [0.98, 0.3], ..TimestepRange::default() },
        }
    }
}

impl SdsConfig {
    /// The settings of the loss itself.
    pub fn loss(&self) -> crate::distill::SdsConfig {
        crate::distill::SdsConfig {
            timesteps: self.timesteps.clone(),
            weighting: self.weighting,
            max_gradient_rms: (self.max_gradient_rms > 0.0).then_some(self.max_gradient_rms),
            threshold: None,
            clip: (self.score_clip != [0.0, 0.0]).then_some(self.score_clip),
        }
    }
}

/// A rough mesh that the field keeps to (Latent-NeRF's sketch-shape).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SketchConfig {
    /// The mesh (.obj, .glb, .gltf); none if empty.
    pub file: String,
    /// Weight of its loss (0 … 10,000).
    pub weight: f64,
    /// Distance from its surface, in world units, within which it says little (0.001 … 1).
    pub leniency: f64,
    /// Its largest side in world units (0.1 … 2); the field's box has side 2.
    pub size: f64,
    /// Length of the stretch whose opacity is compared with its inside, in world units (0.01 … 1).
    pub length: f64,
    /// Points a step (1 … 1,000,000).
    pub points: u32,
}

impl Default for SketchConfig {
    /// Leniency, length and, in the mean over points, weight of the authors' code; half the leniency, as the box
    /// here is half as large.
    fn default() -> Self {
        Self { file: String::new(), weight: 1.0, leniency: 0.15, size: 1.2, length: 0.2, points: 4096 }
    }
}

/// Weights of the regularisers of [`crate::distill::regularize`] (each 0 … 10,000; 0 leaves a term
/// out). All are means over pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegularizeConfig {
    /// Binary cross-entropy of the opacity with itself: opaque or empty, nothing between.
    pub opaque: f64,
    /// √(opacity² + 0.01): no fog.
    pub sparsity: f64,
    /// Variance of the depth along a ray: surfaces instead of clouds.
    pub z_variance: f64,
    /// Normals of what is seen face the camera.
    pub orientation: f64,
    /// Square differences of neighbouring normals.
    pub smoothness: f64,
    /// Fraction of the run over which `orientation` rises linearly from a hundredth of itself (0 … 1).
    pub orientation_ramp: f64,
    /// Fraction of the run before which `opaque` is left out (0 … 1).
    pub opaque_from: f64,
}

impl RegularizeConfig {
    /// The weights at `progress` 0 … 1 of the run.
    pub fn at(&self, progress: f64) -> Self {
        let mut out = self.clone();
        if progress < self.orientation_ramp {
            out.orientation *= 0.01 + 0.99 * progress / self.orientation_ramp;
        }
        if progress < self.opaque_from {
            out.opaque = 0.0;
        }
        out
    }
}

/// The particles of VSD, and what estimates their score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VsdConfig {
    /// Assets of one run (1 … 16): each has a field and a file of its own, all share the estimate.
    pub particles: u32,
    /// Rank of the adapters (1 … 256).
    pub rank: usize,
    /// Their learning rate (0 … 1).
    pub learning_rate: f64,
    /// Share of the samples that are learned without the camera (0 … 1).
    pub camera_dropout: f64,
}

impl Default for VsdConfig {
    fn default() -> Self {
        let EstimatorConfig { rank, learning_rate, camera_dropout } = EstimatorConfig::default();
        Self { particles: 1, rank, learning_rate, camera_dropout }
    }
}

impl VsdConfig {
    /// The settings of the estimate.
    pub fn estimator(&self) -> EstimatorConfig {
        EstimatorConfig {
            rank: self.rank,
            learning_rate: self.learning_rate,
            camera_dropout: self.camera_dropout,
        }
    }
}

/// Shading by a random lamp, for priors to judge shapes by. The embedded prior was trained on pictures
/// with mild light of their own, and needs none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShadingConfig {
    /// Fraction of the run before which everything is shown in its own colours (0 … 1); 1: always.
    pub from: f64,
    /// Share of views that are lit afterwards (0 … 1).
    pub lambertian: f64,
    /// Share of the lit views that are shown without colours (0 … 1).
    pub textureless: f64,
    /// Light from everywhere (0 … 1).
    pub ambient: f64,
    /// Light of the lamp (0 … 1).
    pub diffuse: f64,
    /// Nearest and farthest the lamp stands from the origin (0.1 … 10).
    pub distance: [f32; 2],
}

impl Default for ShadingConfig {
    fn default() -> Self {
        Self {
            from: 1.0,
            lambertian: 0.75,
            textureless: 0.5,
            ambient: 0.1,
            diffuse: 0.9,
            distance: [0.8, 1.5],
        }
    }
}

impl Default for RegularizeConfig {
    fn default() -> Self {
        Self {
            opaque: 0.05,
            sparsity: 0.05,
            z_variance: 0.05,
            orientation: 0.0,
            smoothness: 0.0,
            orientation_ramp: 0.0,
            opaque_from: 0.0,
        }
    }
}

/// Steps, and how Adam's learning rates move over them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimConfig {
    /// Optimisation steps (1 … 100,000).
    pub steps: u32,
    /// Steps over which the learning rates rise from zero (0 … 100,000; at most half of `steps` are used).
    pub warmup: u32,
    /// Learning rates at the end as a fraction of the full ones, reached along a cosine (0 … 1).
    pub final_rate: f32,
    /// Fresh starts with another seed if the scene ends up empty or as fog (0 … 10).
    pub retries: u32,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self { steps: 1200, warmup: 20, final_rate: 0.1, retries: 2 }
    }
}

/// What `gen3d texture` optimises on a given surface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextureConfig {
    /// Metalness and roughness beside the base colour, lit by environments.
    pub pbr: bool,
    /// Cells of the finest grid of colours along a side of the box (8 … 256).
    pub resolution: u32,
    /// Adam's learning rate (0 … 10).
    pub learning_rate: f32,
    /// New texture coordinates even where the model's own are good.
    pub unwrap: bool,
}

impl Default for TextureConfig {
    fn default() -> Self {
        Self { pbr: false, resolution: 64, learning_rate: 0.03, unwrap: false }
    }
}

/// Previews and checkpoints; nothing here changes the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputConfig {
    /// Steps between previews; 0 for none.
    pub preview_every: u32,
    /// Steps between rows of `history.png`, which keeps how the preview came about; 0 for none. No more than 64
    /// rows are made.
    pub history_every: u32,
    /// Pixels along a side of one of the eight views of a preview (16 … 512).
    pub preview_size: u32,
    /// Pixels along a side of one of the eight views of the finished asset (16 … 2048).
    pub sheet_size: u32,
    /// Steps between checkpoints; 0 for none but the one at the end and on Ctrl-C.
    pub checkpoint_every: u32,
}

impl Default for OutputConfig {
    fn default() -> Self {
        Self {
            preview_every: 100,
            history_every: 200,
            preview_size: 96,
            sheet_size: 256,
            checkpoint_every: 50,
        }
    }
}
