//! The volume renderer at the main job's size: four 64×64 views of the initial blob.

use glam::Vec3;

use crate::Result;
use crate::field::{AdamConfig, FieldConfig};
use crate::gpu::backend::{Buffer, Device};
use crate::render::camera::Camera;
use crate::render::volume::{Background, Mode, RenderGrad, RenderOptions, VolumeConfig, VolumeRenderer};

/// A renderer with everything it is asked to draw.
pub struct Workload {
    device: Device,
    probe: Buffer,
    renderer: VolumeRenderer,
    cameras: Vec<Camera>,
}

impl Workload {
    /// # Errors
    /// If the device cannot hold it.
    pub fn new(device: &Device) -> Result<Self> {
        let view = |i| Camera::orbit(90.0 * i as f32, 20.0, 2.4, Vec3::ZERO, 40f32.to_radians(), 64);
        Ok(Self {
            probe: device.create("probe", 1)?,
            renderer: VolumeRenderer::new(device, &FieldConfig::default(), &VolumeConfig::default(), 1)?,
            cameras: (0..4).map(view).collect(),
            device: device.clone(),
        })
    }

    /// Renders once; the samples along all rays.
    ///
    /// # Errors
    /// Those of the device, here and below.
    pub fn forward(&mut self, normals: bool) -> Result<u64> {
        let options = RenderOptions { step: 1, mode: Mode::Train, normals };
        let output = self.renderer.render(&self.cameras, Background::Solid(&[Vec3::ONE; 4]), options)?;
        Ok(output.samples as u64)
    }

    /// Renders once and pulls a constant gradient back into all parameters.
    ///
    /// # Errors
    /// Those of the device.
    pub fn forward_backward(&mut self, normals: bool) -> Result<()> {
        self.forward(normals)?;
        let pixels = self.cameras.len() * 64 * 64;
        let (rgb, opacity) = (vec![1e-3; 3 * pixels], vec![1e-3; pixels]);
        let grad = RenderGrad {
            rgb: Some(&rgb),
            opacity: Some(&opacity),
            normal: normals.then_some(&rgb[..]),
            ..Default::default()
        };
        self.renderer.backward(&grad)?;
        self.wait()
    }

    /// An optimiser step of rate zero: the same work each time.
    ///
    /// # Errors
    /// Those of the device.
    pub fn adam(&mut self) -> Result<()> {
        self.renderer.step(&AdamConfig { lr_grid: 0.0, lr_mlp: 0.0, ..Default::default() })?;
        self.wait()
    }

    /// An update of the occupancy grid.
    ///
    /// # Errors
    /// Those of the device.
    pub fn occupancy(&mut self) -> Result<()> {
        self.renderer.update_occupancy(0)?;
        self.wait()
    }

    /// Until the device has done all that was asked of it: reading back is the only command that waits.
    fn wait(&self) -> Result<()> {
        self.device.read(&self.probe, 0, &mut [0])
    }
}
