//! Colours that are asked for point by point: deferred shading.
//!
//! The interpolated attributes of the pixels that see the surface (positions, say) go to a function of the
//! caller's, and what it answers is composed and antialiased as any colour is. On the way back the caller
//! turns the gradient by its colours into the one by the attributes.

use super::input::{SurfaceGrad, SurfaceGradients, SurfaceInput, SurfaceOptions, SurfaceOutput};
use super::renderer::SurfaceRenderer;
use crate::gpu::backend::Buffer;
use crate::render::volume::buffers::read_f32;
use crate::{Error, Result};

/// From one row of three numbers a seen pixel to another.
pub type Shade<'a> = dyn FnMut(&[f32]) -> Result<Vec<f32>> + 'a;

impl SurfaceRenderer {
    /// [`render`](Self::render) with `shade` between the interpolated attributes of
    /// [`Paint::Colors`](super::Paint::Colors), which need not be colours, and the picture.
    ///
    /// # Errors
    /// As [`render`](Self::render), and those of `shade`.
    pub fn render_shaded(
        &mut self,
        input: &SurfaceInput<'_>,
        options: &SurfaceOptions,
        shade: &mut Shade<'_>,
    ) -> Result<SurfaceOutput> {
        self.draw(input, options, Some(shade))
    }

    /// [`backward`](Self::backward) after [`render_shaded`](Self::render_shaded): `pull` turns the gradient by the
    /// colours of the seen pixels into the one by their attributes.
    ///
    /// # Errors
    /// As [`backward`](Self::backward), and those of `pull`.
    pub fn backward_shaded(
        &mut self,
        grad: &SurfaceGrad<'_>,
        pull: &mut Shade<'_>,
    ) -> Result<SurfaceGradients> {
        self.back(grad, Some(pull))
    }

    /// The rows of `values` `[pixels, 3]` where something is seen, through `shade`; zero elsewhere.
    pub(super) fn each_seen(
        &mut self,
        name: &'static str,
        pixels: usize,
        ids: &Buffer,
        values: &Buffer,
        shade: &mut Shade<'_>,
    ) -> Result<Buffer> {
        let mut seen = vec![0u32; pixels];
        self.device.read(ids, 0, &mut seen)?;
        let all = read_f32(&*self.device, values, 3 * pixels)?;
        let rows = all.as_chunks::<3>().0;
        let asked: Vec<f32> =
            seen.iter().zip(rows).filter(|(id, _)| **id != 0).flat_map(|(_, row)| *row).collect();
        let answer = shade(&asked)?;
        if answer.len() != asked.len() {
            return Err(Error::Failed(format!("{} shaded numbers for {}", answer.len(), asked.len())));
        }
        let mut answer = answer.as_chunks::<3>().0.iter();
        let out: Vec<f32> = seen
            .iter()
            .flat_map(|id| if *id == 0 { [0.0; 3] } else { answer.next().copied().unwrap_or_default() })
            .collect();
        self.upload(name, &out)
    }
}
