//! The field at points, and the occupancy grid's update.

use glam::Vec3;

use super::buffers::read_f32;
use super::renderer::VolumeRenderer;
use crate::Result;
use crate::gpu::kernels::{Kernel, OUTPUTS, OccupancyParams};

/// Points of one pass.
const POINTS: usize = 1 << 18;

impl VolumeRenderer {
    /// Density at world points, per unit of length; zero outside of the rendered box.
    ///
    /// # Errors
    /// If the device fails.
    pub fn density(&self, points: &[Vec3]) -> Result<Vec<f32>> {
        let limit = self.volume.half_extent;
        let mut density = Vec::with_capacity(points.len());
        self.query(points, |point, [sigma, ..]| {
            density.push(if point.abs().max_element() <= limit { sigma } else { 0.0 });
        })?;
        Ok(density)
    }

    /// Linear colour at world points, in 0..1.
    ///
    /// # Errors
    /// If the device fails.
    pub fn color(&self, points: &[Vec3]) -> Result<Vec<Vec3>> {
        let mut colors = Vec::with_capacity(points.len());
        self.query(points, |_, [_, r, g, b]| colors.push(Vec3::new(r, g, b)))?;
        Ok(colors)
    }

    /// Every `occupancy_every` steps: samples each cell once, and skips from now on the cells whose
    /// density stays low. Returns whether it was the time.
    ///
    /// # Errors
    /// If the device fails.
    pub fn update_occupancy(&mut self, step: u32) -> Result<bool> {
        let due = step.is_multiple_of(self.volume.occupancy_every);
        if due {
            self.active_levels = self.field.active_levels(step);
            self.refresh_occupancy(step)?;
        }
        Ok(due)
    }

    /// Share of the occupancy grid's cells that are sampled.
    ///
    /// # Errors
    /// If the device fails.
    pub fn occupied_share(&self) -> Result<f32> {
        let mut words = vec![0u32; self.occupancy.words()];
        self.device.read(&self.occupancy, 0, &mut words)?;
        let set: u32 = words.iter().map(|w| w.count_ones()).sum();
        Ok(set as f32 / (32 * words.len()) as f32)
    }

    fn query(&self, points: &[Vec3], mut visit: impl FnMut(Vec3, [f32; OUTPUTS])) -> Result<()> {
        let device = &*self.device;
        let most = points.len().min(POINTS);
        let positions = device.create("query positions", 3 * most.max(1))?;
        let field = device.create("query field", OUTPUTS * most.max(1))?;
        let features = device.create("query features", 1)?;
        for points in points.chunks(POINTS) {
            device.write(&positions, bytemuck::cast_slice(points))?;
            let params = self.field.params(points.len(), self.active_levels, false);
            let bound = [&positions, &self.grid.params, &self.mlp.params, &field, &features];
            device.dispatch(Kernel::FieldForward, bytemuck::bytes_of(&params), points.len(), &bound)?;
            let values = read_f32(device, &field, OUTPUTS * points.len())?;
            for (point, value) in points.iter().zip(values.as_chunks::<OUTPUTS>().0) {
                visit(*point, *value);
            }
        }
        Ok(())
    }

    pub(super) fn refresh_occupancy(&mut self, step: u32) -> Result<()> {
        let cells = (self.volume.occupancy_resolution as usize).pow(3);
        let params = self.occupancy_params(step, 0.0);
        let params = bytemuck::bytes_of(&params);
        let (device, pool) = (&*self.device, &mut self.pool);
        // The buffers of the render are free between steps.
        let positions = pool.get(device, "positions", 3 * cells)?;
        let field = pool.get(device, "field", OUTPUTS * cells)?;
        let features = pool.get(device, "features", 1)?;
        device.dispatch(Kernel::OccupancyPoints, params, cells, &[&positions])?;
        let net = self.field.params(cells, self.active_levels, false);
        let bound = [&positions, &self.grid.params, &self.mlp.params, &field, &features];
        device.dispatch(Kernel::FieldForward, bytemuck::bytes_of(&net), cells, &bound)?;
        device.dispatch(Kernel::OccupancyUpdate, params, cells, &[&field, &self.ema])?;
        // They were: a backward through the last render is not possible any more.
        self.pass = None;
        self.set_occupancy_bits()
    }

    /// Bits from the cells' densities: above the threshold or the mean, whichever is lower, so
    /// that a field that is thin everywhere is not thrown away.
    pub(super) fn set_occupancy_bits(&mut self) -> Result<()> {
        let cells = (self.volume.occupancy_resolution as usize).pow(3);
        let ema = read_f32(&*self.device, &self.ema, cells)?;
        let mean = ema.iter().map(|&x| f64::from(x)).sum::<f64>() / cells as f64;
        let params = self.occupancy_params(0, self.volume.occupancy_threshold.min(mean as f32));
        let bound = [&self.ema, &self.occupancy];
        self.device.dispatch(Kernel::OccupancyBits, bytemuck::bytes_of(&params), cells / 32, &bound)
    }

    fn occupancy_params(&self, step: u32, threshold: f32) -> OccupancyParams {
        OccupancyParams {
            resolution: self.volume.occupancy_resolution,
            step,
            seed: [self.seed as u32, (self.seed >> 32) as u32],
            decay: self.volume.occupancy_decay,
            threshold,
            pad: [0; 2],
        }
    }
}
