//! What a run tells whoever listens. The command line is one listener, the log file another.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::timing::Timing;
use crate::mesh::MeshReport;

/// The stages of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading the prior and encoding the prompt.
    Prior,
    /// Reading posed pictures (`gen3d fit`).
    Pictures,
    /// Optimising the field.
    Optimize,
    /// Optimising the surface.
    Refine,
    /// From field to textured triangles.
    Mesh,
    /// Writing the files.
    Export,
    /// Comparing the product with pictures it was not made from (`gen3d fit`).
    Compare,
}

impl Stage {
    /// A word or two for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Prior => "loading the prior",
            Self::Pictures => "reading the pictures",
            Self::Optimize => "optimising",
            Self::Refine => "refining",
            Self::Mesh => "meshing",
            Self::Export => "writing",
            Self::Compare => "comparing",
        }
    }
}

/// One optimisation step's numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Steps done so far, this one included.
    pub step: u32,
    /// Steps in all.
    pub steps: u32,
    /// Root mean square of the guidance's gradient on what it judged (latents, for a latent prior).
    pub guidance: f32,
    /// Mean diffusion timestep of the views.
    pub timestep: f32,
    /// Mean opacity over all pixels, 0 … 1.
    pub opacity: f32,
    /// Share of half transparent pixels (opacity between .1 and .9).
    pub haze: f32,
    /// Sum of the weighted regularisers.
    pub regularizer: f32,
    /// Each of them, weighted.
    pub terms: BTreeMap<&'static str, f32>,
    /// Norm of the gradient by the pictures, regularisers left out.
    pub gradient: f32,
    /// Loss of what the guide itself learns (VSD's estimate); 0 if it learns nothing.
    pub learned: f32,
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Wall time of this step in seconds.
    pub seconds: f64,
    /// Memory of the process in bytes; 0 where the system does not tell.
    pub memory: u64,
}

/// One step of `gen3d fit`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FitStep {
    /// Steps done so far, this one included.
    pub step: u32,
    /// Steps in all.
    pub steps: u32,
    /// Peak signal-to-noise ratio of the step's rays against their pictures in dB.
    pub psnr: f32,
    /// Mean opacity over all rays, 0 … 1.
    pub opacity: f32,
    /// Sum of the weighted regularisers.
    pub regularizer: f32,
    /// Each of them, weighted.
    pub terms: BTreeMap<&'static str, f32>,
    /// Norm of the gradient by the rays' colours, regularisers left out.
    pub gradient: f32,
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Wall time of this step in seconds.
    pub seconds: f64,
    /// Memory of the process in bytes; 0 where the system does not tell.
    pub memory: u64,
}

/// How well a product of `gen3d fit` agrees with its pictures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FitScore {
    /// The pictures were held out of the optimisation.
    pub held_out: bool,
    /// Number of pictures compared.
    pub pictures: usize,
    /// Mean PSNR of the field's pictures in dB (sRGB, before white).
    pub field_psnr: f64,
    /// Mean PSNR of the mesh's pictures; `None` if no lens is one that the rasteriser has.
    pub mesh_psnr: Option<f64>,
    /// Mean of both directions' mean distances to the true surface, as a share of its bounding box's
    /// diagonal.
    pub chamfer: Option<f64>,
}

/// The end of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The product.
    pub output: PathBuf,
    /// The folder with config, log, checkpoints and pictures.
    pub run_folder: PathBuf,
    /// What the mesher did.
    pub mesh: MeshReport,
    /// Size of the product in bytes.
    pub bytes: u64,
    /// Wall time of this process's part of the run in seconds.
    pub seconds: f64,
    /// The most memory the process held, in bytes; 0 where the system does not tell.
    pub peak_memory: u64,
    /// The other particles' assets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<PathBuf>,
    /// Where the time went; see [`super::timing::Timings`].
    pub timings: Vec<Timing>,
}

/// Something happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The device was chosen.
    Device {
        /// Its name.
        name: String,
        /// Why this one.
        reason: String,
    },
    /// The run's folder is there and its log begins, or goes on.
    Started {
        /// The prompt, or the folder of pictures.
        what: String,
        /// Name of the device.
        device: String,
        /// Steps in all.
        steps: u32,
        /// Seed of the random numbers.
        seed: u64,
    },
    /// What the run will take, estimated before it takes it; in bytes.
    Memory {
        /// Fields, renderer and mesher, on the device that renders.
        field: u64,
        /// Weights and work of the prior, where its networks run.
        prior: u64,
        /// Main memory that is free; nothing where the system does not tell.
        available: Option<u64>,
    },
    /// A stage begins.
    StageStarted {
        /// Which one.
        stage: Stage,
    },
    /// The run continues from a checkpoint.
    Resumed {
        /// Steps that were already done.
        step: u32,
    },
    /// The scene went nowhere; it is begun anew.
    Restarted {
        /// Steps that were done in vain.
        step: u32,
        /// Why.
        reason: String,
        /// The seed of the next attempt.
        seed: u64,
    },
    /// An optimisation step is done.
    Step(StepReport),
    /// A step of `gen3d fit` is done.
    FitStep(FitStep),
    /// The product of `gen3d fit` was compared.
    FitScore(FitScore),
    /// A preview picture was written.
    Preview {
        /// Where.
        path: PathBuf,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Where.
        path: PathBuf,
        /// Steps done.
        step: u32,
    },
    /// Something the user should know; the run goes on.
    Warning {
        /// What.
        message: String,
        /// What to do about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// The product is written.
    Finished(Summary),
}

impl Event {
    /// A warning without advice.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::Warning { message: message.into(), hint: None }
    }
}

/// A listener.
pub type Listener<'a> = dyn FnMut(&Event) + 'a;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_flat_json_objects_with_a_tag() {
        let json = serde_json::to_string(&Event::StageStarted { stage: Stage::Optimize }).unwrap();
        assert_eq!(json, r#"{"event":"stage_started","stage":"optimize"}"#);
        let json = serde_json::to_string(&Event::warning("w")).unwrap();
        assert_eq!(json, r#"{"event":"warning","message":"w"}"#);
        let step = StepReport {
            step: 3,
            steps: 9,
            guidance: 0.5,
            timestep: 500.0,
            opacity: 0.25,
            haze: 0.5,
            regularizer: 0.0,
            terms: BTreeMap::from([("sparsity", 0.5)]),
            gradient: 1.0,
            learned: 0.0,
            learning_rate: 0.01,
            seconds: 0.125,
            memory: 1,
        };
        let json = serde_json::to_value(Event::Step(step)).unwrap();
        assert_eq!((json["event"].as_str(), json["step"].as_u64()), (Some("step"), Some(3)));
    }
}
