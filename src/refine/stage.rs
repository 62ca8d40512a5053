//! From the model to pictures and back.

use glam::{DVec3, Vec3};

use super::model::{Extracted, Rates, SurfaceModel};
use super::settings::Weights;
use super::supersample;
use crate::gpu::backend::Device;
use crate::mesh::implicit::flexi::Gradient;
use crate::mesh::implicit::regularize::{self, Edges};
use crate::render::camera::Camera;
use crate::render::surface::{
    Paint, SurfaceGrad, SurfaceInput, SurfaceOptions, SurfaceOutput, SurfaceRenderer, Topology,
};
use crate::render::volume::VolumeRenderer;
use crate::{Error, Result};

/// What a surface is painted with: a colour for each point, and the way back. The seam for materials: they
/// would answer with lit colours.
pub trait Colors {
    /// Linear colours `[points, 3]` at points `[points, 3]` as `step` sees them.
    ///
    /// # Errors
    /// If the device fails.
    fn colors(&mut self, points: &[f32], step: u32) -> Result<Vec<f32>>;

    /// Takes the gradient by the last colours, keeps the one by what it has learned, and returns the one by the
    /// points.
    ///
    /// # Errors
    /// If there were no colours, the gradient is not finite, or the device fails.
    fn pull(&mut self, by_colors: &[f32]) -> Result<Vec<f32>>;
}

impl Colors for VolumeRenderer {
    fn colors(&mut self, points: &[f32], step: u32) -> Result<Vec<f32>> {
        Self::colors(self, points, step)
    }

    fn pull(&mut self, by_colors: &[f32]) -> Result<Vec<f32>> {
        self.colors_backward(by_colors)
    }
}

/// What to draw.
#[derive(Debug, Clone, Copy)]
pub struct Shot<'a> {
    /// One picture each; all of one size.
    pub cameras: &'a [Camera],
    /// Linear colour behind the surface, one a camera.
    pub backgrounds: &'a [Vec3],
    /// Also smooth normals.
    pub normals: bool,
    /// For the colours: how many levels of the field's grid are on.
    pub step: u32,
}

/// The regularisers of one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Penalties {
    /// Weighted sum.
    pub value: f64,
    /// The weighted terms that are not zero.
    pub terms: Vec<(&'static str, f64)>,
}

impl Penalties {
    fn add(&mut self, name: &'static str, value: f64) {
        self.value += value;
        self.terms.push((name, value));
    }
}

/// A model with a renderer around it. A step is [`render`](Self::render), [`backward`](Self::backward),
/// [`step`](Self::step).
pub struct SurfaceStage {
    /// What is optimised.
    pub model: SurfaceModel,
    device: Device,
    weights: Weights,
    samples: u32,
    renderer: Option<SurfaceRenderer>,
    /// The last render's surface, and its size in samples.
    drawn: Option<(Extracted, SurfaceOutput)>,
    gradient: Option<Gradient>,
}

impl SurfaceStage {
    /// `samples` across a pixel.
    pub fn new(device: &Device, model: SurfaceModel, weights: Weights, samples: u32) -> Self {
        let (device, samples) = (device.clone(), samples.max(1));
        Self { model, device, weights, samples, renderer: None, drawn: None, gradient: None }
    }

    /// Pictures of the surface as it is now.
    ///
    /// # Errors
    /// [`Error::Failed`] if nothing is left of it; as [`SurfaceRenderer::render`].
    pub fn render(&mut self, paint: &mut dyn Colors, shot: &Shot<'_>) -> Result<SurfaceOutput> {
        let surface = self.model.extract()?;
        let positions: Vec<f32> = surface.positions().iter().flat_map(|p| p.as_vec3().to_array()).collect();
        let topology = Topology::new(surface.positions().len(), surface.triangles())?;
        let renderer = match &mut self.renderer {
            Some(renderer) => {
                renderer.set_topology(topology)?;
                renderer
            }
            none => none.insert(SurfaceRenderer::new(&self.device, &topology)?),
        };
        let cameras = supersample::cameras(shot.cameras, self.samples);
        // The attributes are the positions: what is interpolated is where to ask for a colour.
        let input = SurfaceInput {
            positions: &positions,
            paint: Paint::Colors(&positions),
            cameras: &cameras,
            backgrounds: shot.backgrounds,
        };
        let options = SurfaceOptions { normals: shot.normals, ..SurfaceOptions::default() };
        let mut fine =
            renderer.render_shaded(&input, &options, &mut |points| paint.colors(points, shot.step))?;
        let samples = self.samples as usize;
        let out = SurfaceOutput {
            rgb: supersample::shrink(&fine.rgb, &fine, 3, samples),
            mask: supersample::shrink(&fine.mask, &fine, 1, samples),
            normal: fine.normal.as_ref().map(|n| supersample::shrink(n, &fine, 3, samples)),
            depth: Vec::new(),
            ids: if samples == 1 { std::mem::take(&mut fine.ids) } else { Vec::new() },
            width: fine.width / samples,
            height: fine.height / samples,
            ..fine
        };
        let SurfaceOutput { views, width, height, .. } = fine;
        self.drawn = Some((surface, SurfaceOutput { views, width, height, ..Default::default() }));
        Ok(out)
    }

    /// Goes back through the last render with the gradient by its pictures (not by their depth), and adds the
    /// regularisers. What is painted with keeps its own gradient.
    ///
    /// # Errors
    /// If nothing was rendered, a length is wrong, or a gradient is not finite ([`Error::NotFinite`]).
    pub fn backward(&mut self, paint: &mut dyn Colors, grad: &SurfaceGrad<'_>) -> Result<Penalties> {
        let (Some((surface, shape)), Some(renderer)) = (&self.drawn, &mut self.renderer) else {
            return Err(Error::Failed("backward: nothing was rendered before".to_owned()));
        };
        let spread = |part: Option<&[f32]>, channels| {
            part.map(|g| supersample::spread(g, shape, channels, self.samples as usize))
        };
        let (rgb, mask, normal) = (spread(grad.rgb, 3), spread(grad.mask, 1), spread(grad.normal, 3));
        let fine = SurfaceGrad {
            rgb: rgb.as_deref(),
            mask: mask.as_deref(),
            normal: normal.as_deref(),
            depth: None,
        };
        let found = renderer.backward_shaded(&fine, &mut |by| paint.pull(by))?;
        let rows = found.positions.as_chunks::<3>().0.iter().zip(found.attributes.as_chunks::<3>().0);
        let mut by_positions: Vec<DVec3> =
            rows.map(|(p, a)| Vec3::from_array(*p).as_dvec3() + Vec3::from_array(*a).as_dvec3()).collect();
        if !by_positions.iter().all(|g| g.is_finite()) {
            return Err(Error::NotFinite("the gradient of the surface is not finite".into()));
        }
        let mut penalties = Penalties::default();
        let cell = self.model.lattice.spacing();
        on_mesh(&self.weights, surface, cell, &mut by_positions, &mut penalties);
        let mut gradient = self.model.backward(surface, &by_positions)?;
        on_lattice(&self.weights, &self.model, surface, &mut gradient, &mut penalties)?;
        self.gradient = Some(gradient);
        Ok(penalties)
    }

    /// One step of Adam on the model along the last [`backward`](Self::backward); nothing without one.
    pub fn step(&mut self, rates: Rates) {
        if let (Some(mut gradient), Some((surface, _))) = (self.gradient.take(), self.drawn.take()) {
            self.model.step(&surface, &mut gradient, rates);
        }
    }

    /// The last gradient by the model's numbers, for inspection.
    pub fn gradient(&self) -> Option<&Gradient> {
        self.gradient.as_ref()
    }

    /// Bytes of pictures and surface of one step, before anything is allocated.
    pub fn memory(resolution: usize, views: usize, size: usize, samples: usize) -> u64 {
        let pixels = views * (size * samples).pow(2);
        // Ids, raster, alphas, edges, layers and values with their gradients: about 50 numbers a pixel; a closed
        // surface passes some six faces' worth of cells with four triangles each, seen by every view.
        let vertices = 12 * resolution.pow(2);
        SurfaceModel::memory(resolution) + 4 * (pixels * 60 + vertices * (6 * views + 60)) as u64
    }
}

/// The penalties on triangles.
fn on_mesh(
    weights: &Weights,
    surface: &Extracted,
    cell: f64,
    by_positions: &mut [DVec3],
    penalties: &mut Penalties,
) {
    if weights.normal_consistency == 0.0 && weights.laplacian == 0.0 {
        return;
    }
    let (positions, edges) = (surface.positions(), Edges::of(surface.triangles()));
    let mut add = |name, weight: f64, penalty: regularize::Penalty<DVec3>| {
        penalties.add(name, weight * penalty.value);
        by_positions.iter_mut().zip(penalty.gradient).for_each(|(b, g)| *b += weight * g);
    };
    if weights.normal_consistency > 0.0 {
        let penalty = regularize::normal_consistency_over(positions, surface.triangles(), &edges);
        add("normal_consistency", weights.normal_consistency, penalty);
    }
    if weights.laplacian > 0.0 {
        add("laplacian", weights.laplacian / (cell * cell), regularize::laplacian_over(positions, &edges));
    }
}

/// The penalties on the lattice's numbers.
fn on_lattice(
    weights: &Weights,
    model: &SurfaceModel,
    surface: &Extracted,
    gradient: &mut Gradient,
    penalties: &mut Penalties,
) -> Result<()> {
    let (lattice, p) = (model.lattice, &model.parameters);
    let cell = lattice.spacing();
    if weights.sign_changes > 0.0 {
        let penalty = regularize::sign_changes(lattice, &p.sdf, cell);
        penalties.add("sign_changes", weights.sign_changes * penalty.value);
        gradient.sdf.iter_mut().zip(penalty.gradient).for_each(|(s, g)| *s += weights.sign_changes * g);
    }
    if let (Extracted::Flexi(surface), true) = (surface, weights.deviation > 0.0) {
        let weight = weights.deviation / cell;
        let (value, more) = surface.deviation(lattice, p)?;
        penalties.add("deviation", weight * value);
        gradient.sdf.iter_mut().zip(more.sdf).for_each(|(s, g)| *s += weight * g);
        gradient.deform.iter_mut().zip(more.deform).for_each(|(s, g)| *s += weight * g);
        gradient.rows.iter_mut().zip(&more.rows).for_each(|(s, g)| s.add_scaled(g, weight));
    }
    Ok(())
}
