//! Losses on the field itself, at points that no ray has to pass.

use glam::Vec3;

use super::buffers::read_f32;
use super::renderer::VolumeRenderer;
use crate::gpu::kernels::{FEATURES, Kernel, OUTPUTS};
use crate::{Error, Result};

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
}
