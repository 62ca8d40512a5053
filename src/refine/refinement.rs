//! A surface and its paint, from the border of the first stage to the end of a run.

use std::collections::BTreeMap;

use super::model::{Rates, SurfaceModel};
use super::stage::{Penalties, Shot, SurfaceStage};
use crate::config::RefineConfig;
use crate::field::AdamConfig;
use crate::gpu::backend::Device;
use crate::mesh::TriMesh;
use crate::render::surface::{SurfaceGrad, SurfaceOutput};
use crate::render::volume::VolumeRenderer;
use crate::{Error, Result};

/// Before the names of the surface's tensors, and of its paint's.
const SURFACE: &str = "surface.";
const PAINT: &str = "paint.";

/// The second stage of a run: a surface, and a copy of the first stage's field that paints it. The field itself
/// stays as it was.
pub struct Refinement {
    /// The surface.
    pub surface: SurfaceStage,
    /// Its colours: of this field, densities are of no more use.
    pub paint: VolumeRenderer,
    config: RefineConfig,
}

impl Refinement {
    /// Begins with `mesh`, the surface of `field`.
    ///
    /// # Errors
    /// As [`SurfaceModel::from_mesh`], and if the device has too little memory.
    pub fn begin(
        device: &Device,
        config: &RefineConfig,
        field: &VolumeRenderer,
        mesh: &TriMesh,
    ) -> Result<Self> {
        let model = SurfaceModel::from_mesh(config.resolution, config.extractor, mesh)?;
        Self::of(device, config, field, model)
    }

    /// Begins with any surface, painted by a copy of `field`.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn of(
        device: &Device,
        config: &RefineConfig,
        field: &VolumeRenderer,
        model: SurfaceModel,
    ) -> Result<Self> {
        let surface = SurfaceStage::new(device, model, config.regularize, config.supersample);
        Ok(Self { surface, paint: field.copy()?, config: config.clone() })
    }

    /// Goes on from [`Refinement::state`], bit for bit on the processor.
    ///
    /// # Errors
    /// If something is missing or does not fit.
    pub fn resume(
        device: &Device,
        config: &RefineConfig,
        field: &VolumeRenderer,
        state: &BTreeMap<String, Vec<f32>>,
    ) -> Result<Self> {
        let below = |prefix: &str| -> BTreeMap<String, Vec<f32>> {
            let cut = |(name, data): (&String, &Vec<f32>)| {
                Some((name.strip_prefix(prefix)?.to_owned(), data.clone()))
            };
            state.iter().filter_map(cut).collect()
        };
        let model = SurfaceModel::from_state(config.extractor, &below(SURFACE))?;
        if model.resolution() != config.resolution {
            return Err(Error::invalid("checkpoint", "its lattice has another refine.resolution"));
        }
        let surface = SurfaceStage::new(device, model, config.regularize, config.supersample);
        let mut paint = field.copy()?;
        paint.load_state(&below(PAINT))?;
        Ok(Self { surface, paint, config: config.clone() })
    }

    /// Surface and paint as named tensors.
    ///
    /// # Errors
    /// If the device fails.
    pub fn state(&self) -> Result<BTreeMap<String, Vec<f32>>> {
        let own = self.surface.model.state().into_iter().map(|(name, x)| (format!("{SURFACE}{name}"), x));
        let paint = self.paint.state()?.into_iter().map(|(name, x)| (format!("{PAINT}{name}"), x));
        Ok(own.chain(paint).collect())
    }

    /// Pictures of the painted surface.
    ///
    /// # Errors
    /// As [`SurfaceStage::render`].
    pub fn render(&mut self, shot: &Shot<'_>) -> Result<SurfaceOutput> {
        self.surface.render(&mut self.paint, shot)
    }

    /// Goes back through the last render; see [`SurfaceStage::backward`].
    ///
    /// # Errors
    /// As [`SurfaceStage::backward`].
    pub fn backward(&mut self, grad: &SurfaceGrad<'_>) -> Result<Penalties> {
        self.surface.backward(&mut self.paint, grad)
    }

    /// Moves surface and paint, each if it is to move, at `step` of the stage; `adam` gives Adam's settings but for
    /// the rates. Returns the factor on the learning rates.
    ///
    /// # Errors
    /// If the device fails.
    pub fn step(&mut self, adam: &AdamConfig, step: u32, [shape, colors]: [bool; 2]) -> Result<f32> {
        let (c, rate) = (&self.config, self.config.rate(step));
        let rates = Rates { sdf: c.lr_sdf * rate, deform: c.lr_deform * rate, weights: c.lr_weights * rate };
        if shape {
            self.surface.step(rates);
        }
        if !colors {
            self.paint.clear_gradient()?;
            return Ok(rate);
        }
        let paint =
            AdamConfig { lr_grid: c.lr_grid * rate, lr_mlp: c.lr_mlp * rate, lr_background: 0.0, ..*adam };
        self.paint.step(&paint)?;
        Ok(rate)
    }

    /// Forgets what a step has summed up so far.
    ///
    /// # Errors
    /// If the device fails.
    pub fn forget(&mut self) -> Result<()> {
        self.paint.clear_gradient()
    }

    /// The surface as a product, in the field's box.
    ///
    /// # Errors
    /// If nothing is left of it.
    pub fn mesh(&self) -> Result<TriMesh> {
        self.surface.model.mesh()
    }
}
