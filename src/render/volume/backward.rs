//! The renderer's backward pass and the optimiser's step.

use super::buffers::{Group, read_f32};
use super::config::RenderGrad;
use super::renderer::{NormalPass, Pass, VolumeRenderer};
use crate::field::AdamConfig;
use crate::gpu::backend::Buffer;
use crate::gpu::kernels::{AdamParams, BackgroundParams, CompositeParams, Kernel, OUTPUTS, PIXEL};
use crate::{Error, Result};

impl VolumeRenderer {
    /// Adds the gradient of a loss by all parameters, given its gradient by the last `Train` render.
    /// Uses up what that render kept: one backward a render. [`step`](Self::step) clears the sum.
    ///
    /// # Errors
    /// If there is no `Train` render to go back through, a gradient has the wrong length or is not
    /// finite, normals are differentiated that were not rendered, or the device fails.
    pub fn backward(&mut self, grad: &RenderGrad<'_>) -> Result<()> {
        let pass = self.pass.take().ok_or_else(|| {
            Error::invalid(
                "backward",
                "needs a render in Mode::Train before it, and only one backward follows it",
            )
        })?;
        let pixel_grad = self.upload_pixel_grad(grad, pass.rays)?;
        let weight_grad = self.normals_backward(grad, &pass)?;

        let (device, pool) = (&*self.device, &mut self.pool);
        let params = CompositeParams { use_weight_grad: u32::from(weight_grad.is_some()), ..pass.composite };
        let weight_grad = match weight_grad {
            Some(buffer) => buffer,
            None => pool.get(device, "weight_grad", 1)?,
        };
        let field_grad = pool.get(device, "field_grad", pass.samples * OUTPUTS)?;
        let bound = [
            &pass.offsets,
            &pass.intervals,
            &pass.field,
            &pass.background,
            &pass.pixels,
            &pixel_grad,
            &weight_grad,
            &field_grad,
        ];
        device.dispatch(Kernel::CompositeBackward, bytemuck::bytes_of(&params), pass.rays, &bound)?;
        let points = (pass.samples, pass.active_levels);
        self.network_backward(points, &pass.positions, &pass.field, &field_grad, &pass.features)?;
        if pass.mlp_background {
            let params = BackgroundParams { rays: pass.rays as u32, pad: [0; 3] };
            let bound = [
                &pass.ray_buffer,
                &self.background.params,
                &pass.background,
                &pass.pixels,
                &pixel_grad,
                &self.background.grad,
            ];
            self.device.dispatch(
                Kernel::BackgroundBackward,
                bytemuck::bytes_of(&params),
                pass.rays,
                &bound,
            )?;
        }
        self.check_gradient()
    }

    /// One step of Adam on all parameters; sets the gradients to zero.
    ///
    /// # Errors
    /// If the device fails.
    pub fn step(&mut self, adam: &AdamConfig) -> Result<()> {
        self.adam_steps += 1;
        let t = self.adam_steps as i32;
        let correction1 = 1.0 - f64::from(adam.beta1).powi(t);
        let correction2 = 1.0 - f64::from(adam.beta2).powi(t);
        let groups: [(&Group, f32); 3] =
            [(&self.grid, adam.lr_grid), (&self.mlp, adam.lr_mlp), (&self.background, adam.lr_background)];
        for (group, rate) in groups {
            let params = AdamParams {
                n: group.len as u32,
                rate: (f64::from(rate) / correction1) as f32,
                beta1: adam.beta1,
                beta2: adam.beta2,
                v_scale: correction2.sqrt().recip() as f32,
                eps: adam.eps,
                pad: [0; 2],
            };
            let bound = [&group.params, &group.grad, &group.m, &group.v];
            self.device.dispatch(Kernel::Adam, bytemuck::bytes_of(&params), group.len, &bound)?;
        }
        Ok(())
    }

    /// The accumulated gradient by parameter group, for inspection: grid, MLP, background MLP.
    ///
    /// # Errors
    /// If the device fails.
    pub fn gradient(&self) -> Result<[Vec<f32>; 3]> {
        let read = |group: &Group| read_f32(&*self.device, &group.grad, group.len);
        Ok([read(&self.grid)?, read(&self.mlp)?, read(&self.background)?])
    }

    fn upload_pixel_grad(&mut self, grad: &RenderGrad<'_>, rays: usize) -> Result<Buffer> {
        let mut data = vec![0.0; rays * PIXEL];
        scatter("rgb", grad.rgb, &mut data, PIXEL, 0, 3)?;
        scatter("opacity", grad.opacity, &mut data, PIXEL, 3, 1)?;
        scatter("depth", grad.depth, &mut data, PIXEL, 4, 1)?;
        scatter("z_variance", grad.z_variance, &mut data, PIXEL, 5, 1)?;
        let buffer = self.pool.get(&*self.device, "pixel_grad", data.len())?;
        self.device.write(&buffer, bytemuck::cast_slice(&data))?;
        Ok(buffer)
    }

    /// Backward through the normals; returns the gradient by the weights, if there is any.
    fn normals_backward(&mut self, grad: &RenderGrad<'_>, pass: &Pass) -> Result<Option<Buffer>> {
        if grad.normal.is_none() && grad.orientation.is_none() {
            return Ok(None);
        }
        let Some(normals) = &pass.normals else {
            return Err(Error::invalid("backward", "the gradient by normals needs a render with normals"));
        };
        let NormalPass { params, picked, offsets, selected, queries, field, features, .. } = normals;
        let mut data = vec![0.0; pass.rays * 4];
        scatter("normal", grad.normal, &mut data, 4, 0, 3)?;
        scatter("orientation", grad.orientation, &mut data, 4, 3, 1)?;
        let (device, pool) = (&*self.device, &mut self.pool);
        let normals_grad = pool.get(device, "normals_grad", data.len())?;
        device.write(&normals_grad, bytemuck::cast_slice(&data))?;
        let field_grad = pool.get(device, "query_field_grad", 4 * picked * OUTPUTS)?;
        let weight_grad = pool.get(device, "weight_grad", pass.samples)?;
        device.clear(&weight_grad)?;
        let bound = [
            &pass.ray_buffer,
            offsets,
            selected,
            &pass.weights,
            field,
            &normals_grad,
            &field_grad,
            &weight_grad,
        ];
        device.dispatch(Kernel::NormalBackward, bytemuck::bytes_of(params), pass.rays, &bound)?;
        self.network_backward((4 * picked, pass.active_levels), queries, field, &field_grad, features)?;
        Ok(Some(weight_grad))
    }

    pub(super) fn network_backward(
        &self,
        (points, active_levels): (usize, u32),
        positions: &Buffer,
        field: &Buffer,
        field_grad: &Buffer,
        features: &Buffer,
    ) -> Result<()> {
        let params = self.field.params(points, active_levels, true);
        let params = bytemuck::bytes_of(&params);
        let bound = [&self.mlp.params, field, field_grad, features, &self.mlp.grad];
        self.device.dispatch(Kernel::FieldBackward, params, points, &bound)?;
        let bound = [positions, features, &self.grid.grad];
        self.device.dispatch(Kernel::GridBackward, params, points * active_levels as usize, &bound)
    }

    /// The MLP's gradient is small and sums over all samples: any NaN of the pass shows in it.
    pub(super) fn check_gradient(&self) -> Result<()> {
        if read_f32(&*self.device, &self.mlp.grad, self.mlp.len)?.iter().all(|g| g.is_finite()) {
            return Ok(());
        }
        Err(Error::NotFinite("the gradient of the field is not finite".into()).hint(
            "lower the learning rate or the weight of the loss, or start again from an earlier checkpoint",
        ))
    }
}

/// Writes `[rays, channels]` into columns of `[rays, stride]`; checks length and finiteness.
fn scatter(
    what: &str,
    source: Option<&[f32]>,
    target: &mut [f32],
    stride: usize,
    at: usize,
    channels: usize,
) -> Result<()> {
    let Some(source) = source else { return Ok(()) };
    let rays = target.len() / stride;
    if source.len() != rays * channels {
        let reason = format!("{} numbers for {rays} pixels of {channels} channels", source.len());
        return Err(Error::invalid(format!("gradient by {what}"), reason));
    }
    if let Some(i) = source.iter().position(|g| !g.is_finite()) {
        return Err(Error::NotFinite(format!(
            "the gradient by {what} is not finite at pixel {}",
            i / channels
        ))
        .hint("the loss or the prior produced it; lower the guidance scale or the learning rate"));
    }
    for (row, values) in target.chunks_exact_mut(stride).zip(source.chunks_exact(channels)) {
        row[at..at + channels].copy_from_slice(values);
    }
    Ok(())
}
