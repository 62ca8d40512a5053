//! The backward pass.

use super::input::{SurfaceGrad, SurfaceGradients};
use super::normals::vertex_normals_backward;
use super::renderer::{LAYER, Pass, SurfaceRenderer, TexturePass, level_texels};
use super::shade::Shade;
use crate::gpu::backend::Buffer;
use crate::gpu::kernels::{Kernel, RASTER, SurfaceParams, TextureParams};
use crate::render::volume::buffers::read_f32;
use crate::{Error, Result};

/// Gradients that several paths add to.
struct Sums {
    clip: Buffer,
    raster: Buffer,
}

impl SurfaceRenderer {
    /// The gradient by positions, attributes and texels of the last render. May be called again with
    /// another gradient.
    ///
    /// # Errors
    /// If nothing was rendered, a length is wrong, or the device fails.
    pub fn backward(&mut self, grad: &SurfaceGrad<'_>) -> Result<SurfaceGradients> {
        self.back(grad, None)
    }

    pub(super) fn back(
        &mut self,
        grad: &SurfaceGrad<'_>,
        pull: Option<&mut Shade<'_>>,
    ) -> Result<SurfaceGradients> {
        let Some(pass) = self.pass.take() else {
            return Err(Error::Failed("backward: nothing was rendered before".to_owned()));
        };
        let result = self.through(&pass, grad, pull);
        self.pass = Some(pass);
        result
    }

    fn through(
        &mut self,
        pass: &Pass,
        grad: &SurfaceGrad<'_>,
        pull: Option<&mut Shade<'_>>,
    ) -> Result<SurfaceGradients> {
        let p = &pass.params;
        let pixels = (p.views * p.width * p.height) as usize;
        check(grad, pixels)?;
        if grad.normal.is_some() && pass.normals.is_none() {
            return Err(Error::invalid("gradient by normal", "the last render drew no normals"));
        }
        let sums = Sums {
            clip: self.zeros("clip_grad", (3 * p.views * p.vertices) as usize)?,
            raster: self.depth_grad(grad.depth, pixels)?,
        };
        let mut out = SurfaceGradients::default();
        let blended = layers(pixels, grad.rgb, grad.mask);
        let mut values = self.through_blend(pass, &pass.colors, &blended, &sums)?;
        if let Some(pull) = pull {
            values = self.each_seen("shaded_grad", pixels, &pass.ids, &values, pull)?;
        }
        self.through_paint(pass, &values, &sums, &mut out)?;
        let mut by_normals = None;
        if let (Some(grad), Some(normals)) = (grad.normal, &pass.normals) {
            let values =
                self.through_blend(pass, &normals.layers, &layers(pixels, Some(grad), None), &sums)?;
            let sum = self.zeros("normals_grad", 3 * self.topology.vertices)?;
            let indices = self.indices.clone();
            self.through_interpolation(pass, &normals.attributes, &indices, &values, &sum, &sums, 3)?;
            by_normals = Some(read_f32(&*self.device, &sum, 3 * self.topology.vertices)?);
        }
        let bound = [&self.indices, &pass.clip, &pass.ids, &sums.raster, &sums.clip];
        self.run(Kernel::SurfaceRasterizeBackward, p, pixels, &bound)?;
        let positions = self.zeros("positions_grad", 3 * self.topology.vertices)?;
        let bound = [&pass.projections, &sums.clip, &positions];
        self.run(Kernel::SurfaceTransformBackward, p, self.topology.vertices, &bound)?;
        out.positions = read_f32(&*self.device, &positions, 3 * self.topology.vertices)?;
        if let Some(grad) = by_normals {
            vertex_normals_backward(&pass.positions, &self.topology.triangles, &grad, &mut out.positions);
        }
        Ok(out)
    }

    /// The raster's gradient begins with that of the depth.
    fn depth_grad(&mut self, depth: Option<&[f32]>, pixels: usize) -> Result<Buffer> {
        match depth {
            None => self.zeros("raster_grad", RASTER * pixels),
            Some(depth) => {
                let words: Vec<f32> = depth.iter().flat_map(|&by_w| [0.0, 0.0, 0.0, by_w]).collect();
                self.upload("raster_grad", &words)
            }
        }
    }

    /// From a blended layer's gradient to that of the values in it; adds the silhouettes' part.
    fn through_blend(&mut self, pass: &Pass, layers: &Buffer, grad: &[f32], sums: &Sums) -> Result<Buffer> {
        let pixels = grad.len() / LAYER;
        let blended = self.upload("blended_grad", grad)?;
        let params = SurfaceParams { channels: LAYER as u32, ..pass.params };
        let bound = [&pass.alphas, &pass.edges, layers, &blended, &self.indices, &pass.clip, &sums.clip];
        self.run(Kernel::SilhouetteMoveBackward, &params, pixels, &bound)?;
        let by_layers = self.get("layers_grad", LAYER * pixels)?;
        let bound = [&pass.alphas, &blended, &by_layers];
        self.run(Kernel::SilhouetteBlendBackward, &params, pixels, &bound)?;
        let values = self.get("values_grad", 3 * pixels)?;
        let bound = [&pass.ids, &by_layers, &values];
        self.run(Kernel::SurfaceComposeBackward, &pass.params, pixels, &bound)?;
        Ok(values)
    }

    fn through_paint(
        &mut self,
        pass: &Pass,
        values: &Buffer,
        sums: &Sums,
        out: &mut SurfaceGradients,
    ) -> Result<()> {
        let uv;
        let (values, channels) = match &pass.texture {
            None => (values, 3),
            Some(texture) => {
                uv = self.through_texture(pass, texture, values, out)?;
                (&uv, 2)
            }
        };
        let words = channels as usize * self.topology.attributes;
        let sum = self.zeros("attributes_grad", words)?;
        let indices = self.attribute_indices.clone();
        self.through_interpolation(pass, &pass.attributes, &indices, values, &sum, sums, channels)?;
        out.attributes = read_f32(&*self.device, &sum, words)?;
        Ok(())
    }

    /// Returns the gradient by the coordinates.
    fn through_texture(
        &mut self,
        pass: &Pass,
        texture: &TexturePass,
        values: &Buffer,
        out: &mut SurfaceGradients,
    ) -> Result<Buffer> {
        let pixels = texture.params.pixels as usize;
        let texels = self.zeros("texels_grad", texture.words)?;
        let uv = self.get("uv_grad", 2 * pixels)?;
        let bound = [&pass.ids, &texture.uv, &texture.footprint, &texture.texels, values, &texels, &uv];
        let bytes = bytemuck::bytes_of(&texture.params);
        self.device.dispatch(Kernel::TextureSampleBackward, bytes, pixels, &bound)?;
        for level in (1..texture.params.levels).rev() {
            let params = TextureParams { level, ..texture.params };
            let items = level_texels(&params, level - 1);
            self.device.dispatch(
                Kernel::TextureMipBackward,
                bytemuck::bytes_of(&params),
                items,
                &[&texels],
            )?;
        }
        out.texels = read_f32(&*self.device, &texels, 3 * level_texels(&texture.params, 0))?;
        Ok(uv)
    }

    #[expect(clippy::too_many_arguments, reason = "the kernel's bindings")]
    fn through_interpolation(
        &self,
        pass: &Pass,
        attributes: &Buffer,
        indices: &Buffer,
        values: &Buffer,
        sum: &Buffer,
        sums: &Sums,
        channels: u32,
    ) -> Result<()> {
        let params = SurfaceParams { channels, ..pass.params };
        let pixels = (params.views * params.width * params.height) as usize;
        let bound = [&pass.ids, &pass.raster, attributes, indices, values, sum, &sums.raster];
        self.run(Kernel::SurfaceInterpolateBackward, &params, pixels, &bound)
    }
}

fn check(grad: &SurfaceGrad<'_>, pixels: usize) -> Result<()> {
    let parts =
        [("rgb", grad.rgb, 3), ("mask", grad.mask, 1), ("depth", grad.depth, 1), ("normal", grad.normal, 3)];
    for (name, part, channels) in parts {
        if part.is_some_and(|part| part.len() != channels * pixels) {
            let reason = format!("{} numbers for {pixels} pixels", part.map_or(0, <[f32]>::len));
            return Err(Error::invalid(format!("gradient by {name}"), reason));
        }
    }
    Ok(())
}

/// Gradient of a layer of three channels and coverage.
fn layers(pixels: usize, three: Option<&[f32]>, mask: Option<&[f32]>) -> Vec<f32> {
    let mut out = vec![0.0; LAYER * pixels];
    for (i, out) in out.chunks_exact_mut(LAYER).enumerate() {
        if let Some(three) = three {
            out[..3].copy_from_slice(&three[3 * i..3 * i + 3]);
        }
        if let Some(mask) = mask {
            out[3] = mask[i];
        }
    }
    out
}
