//! The field at points that no ray has to pass: losses on its density, and its colour and the way back, which is
//! what a surface is painted with.

use glam::Vec3;

use super::buffers::read_f32;
use super::renderer::VolumeRenderer;
use crate::gpu::backend::Buffer;
use crate::gpu::kernels::{FEATURES, Kernel, OUTPUTS};
use crate::{Error, Result};

/// What the way back needs.
pub(super) struct PointPass {
    points: usize,
    active_levels: u32,
    positions: Buffer,
    field: Buffer,
    features: Buffer,
}

impl VolumeRenderer {
    /// Adds the gradient by the field's parameters of a loss on the densities at world `points`, to what
    /// [`backward`](Self::backward) has summed up: `loss` is told the densities and gives its gradient by each.
    /// Comes after the backward of a step, before [`step`](Self::step).
    ///
    /// # Errors
    /// If the gradient has another length or is not finite, or the device fails.
    pub fn density_backward(&mut self, points: &[Vec3], loss: impl FnOnce(&[f32]) -> Vec<f32>) -> Result<()> {
        let n = points.len();
        if n == 0 {
            return Ok(());
        }
        let (device, pool) = (&*self.device, &mut self.pool);
        let positions = pool.get(device, "point_positions", 3 * n)?;
        let field = pool.get(device, "point_field", OUTPUTS * n)?;
        let features = pool.get(device, "point_features", self.field.levels as usize * FEATURES * n)?;
        let by_field = pool.get(device, "point_field_grad", OUTPUTS * n)?;
        device.write(&positions, bytemuck::cast_slice(points))?;
        let params = self.field.params(n, self.active_levels, true);
        let bound = [&positions, &self.grid.params, &self.mlp.params, &field, &features];
        device.dispatch(Kernel::FieldForward, bytemuck::bytes_of(&params), n, &bound)?;
        let values = read_f32(device, &field, OUTPUTS * n)?;
        let density: Vec<f32> = values.iter().step_by(OUTPUTS).copied().collect();
        let gradient = loss(&density);
        if gradient.len() != n {
            let why = format!("{} numbers for {n} points", gradient.len());
            return Err(Error::invalid("gradient by density", why));
        }
        if gradient.iter().any(|g| !g.is_finite()) {
            return Err(Error::NotFinite("the gradient by density is not finite".into()));
        }
        let mut data = vec![0f32; OUTPUTS * n];
        data.iter_mut().step_by(OUTPUTS).zip(gradient).for_each(|(to, g)| *to = g);
        device.write(&by_field, bytemuck::cast_slice(&data))?;
        self.network_backward((n, self.active_levels), &positions, &field, &by_field, &features)?;
        self.check_gradient()
    }

    /// Linear colours `[points, 3]` at world points `[points, 3]`, kept for [`VolumeRenderer::colors_backward`].
    /// `step` decides how many levels of the grid are on.
    ///
    /// # Errors
    /// If the device fails.
    pub fn colors(&mut self, points: &[f32], step: u32) -> Result<Vec<f32>> {
        let n = points.len() / 3;
        self.active_levels = self.field.active_levels(step);
        let (device, pool) = (&*self.device, &mut self.pool);
        let positions = pool.get(device, "point positions", 3 * n)?;
        device.write(&positions, bytemuck::cast_slice(&points[..3 * n]))?;
        let field = pool.get(device, "point field", OUTPUTS * n)?;
        let features = pool.get(device, "point features", n * self.field.levels as usize * FEATURES)?;
        let params = self.field.params(n, self.active_levels, true);
        if n > 0 {
            let bound = [&positions, &self.grid.params, &self.mlp.params, &field, &features];
            device.dispatch(Kernel::FieldForward, bytemuck::bytes_of(&params), n, &bound)?;
        }
        let values = read_f32(device, &field, OUTPUTS * n)?;
        let active_levels = self.active_levels;
        self.point_pass = Some(PointPass { points: n, active_levels, positions, field, features });
        Ok(values.as_chunks::<OUTPUTS>().0.iter().flat_map(|v| [v[1], v[2], v[3]]).collect())
    }

    /// Adds the gradient of a loss by all parameters, given its gradient by the last [`VolumeRenderer::colors`],
    /// and returns the one by the points `[points, 3]`. Uses up what was kept.
    ///
    /// # Errors
    /// If there were no points, the length is wrong, the gradient is not finite, or the device fails.
    pub fn colors_backward(&mut self, grad: &[f32]) -> Result<Vec<f32>> {
        let Some(pass) = self.point_pass.take() else {
            return Err(Error::invalid("colors_backward", "needs a call of colors before it"));
        };
        let n = pass.points;
        if grad.len() != 3 * n {
            let reason = format!("{} numbers for {n} points", grad.len());
            return Err(Error::invalid("gradient by colours", reason));
        }
        if n == 0 {
            return Ok(Vec::new());
        }
        let rows: Vec<f32> = grad.as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [0.0, r, g, b]).collect();
        let field_grad = self.pool.get(&*self.device, "point field_grad", rows.len())?;
        self.device.write(&field_grad, bytemuck::cast_slice(&rows))?;
        let shape = (n, pass.active_levels);
        self.network_backward(shape, &pass.positions, &pass.field, &field_grad, &pass.features)?;
        let by_points = self.pool.get(&*self.device, "point grad", 3 * n)?;
        let params = self.field.params(n, pass.active_levels, true);
        let bound = [&pass.positions, &self.grid.params, &pass.features, &by_points];
        self.device.dispatch(Kernel::GridPositionsBackward, bytemuck::bytes_of(&params), n, &bound)?;
        self.check_gradient()?;
        read_f32(&*self.device, &by_points, 3 * n)
    }

    /// Forgets the sum of gradients since the last [`step`](Self::step).
    ///
    /// # Errors
    /// If the device fails.
    pub fn clear_gradient(&mut self) -> Result<()> {
        for group in [&self.grid, &self.mlp, &self.background] {
            self.device.clear(&group.grad)?;
        }
        Ok(())
    }
}
