//! The surface renderer on a sphere that fills the picture, with vertex colours.

use std::f32::consts::{PI, TAU};
use std::time::Instant;

use glam::Vec3;

use crate::Result;
use crate::gpu::backend::Device;
use crate::render::camera::Camera;
use crate::render::surface::{Paint, SurfaceGrad, SurfaceInput, SurfaceOptions, SurfaceRenderer, Topology};

/// A renderer with everything it is asked to draw.
pub struct Workload {
    renderer: SurfaceRenderer,
    positions: Vec<f32>,
    colors: Vec<f32>,
    camera: Camera,
    grad: Vec<f32>,
}

/// A sphere of radius ½ with at least `triangles` triangles of similar size: positions and corners.
fn sphere(triangles: usize) -> (Vec<f32>, Vec<[u32; 3]>) {
    // Rings × columns quads, twice as many columns as rings.
    let rings = ((triangles as f32 / 4.0).sqrt().ceil() as u32).max(3);
    let columns = 2 * rings;
    let at = |ring: u32, column: u32| ring * columns + column % columns;
    let positions = (0..=rings).flat_map(|ring| {
        let (s, c) = (PI * ring as f32 / rings as f32).sin_cos();
        (0..columns).flat_map(move |column| {
            let (sa, ca) = (TAU * column as f32 / columns as f32).sin_cos();
            [0.5 * s * sa, 0.5 * c, 0.5 * s * ca]
        })
    });
    let quads = (0..rings).flat_map(|ring| (0..columns).map(move |column| (ring, column)));
    let corners = quads.flat_map(|(r, c)| {
        let [a, b, d, e] = [at(r, c), at(r + 1, c), at(r + 1, c + 1), at(r, c + 1)];
        [[a, b, d], [a, d, e]]
    });
    (positions.collect(), corners.collect())
}

impl Workload {
    /// A picture of `size`² pixels of a sphere of about `triangles` triangles.
    ///
    /// # Errors
    /// If the device cannot hold it.
    pub fn new(device: &Device, triangles: usize, size: u32) -> Result<Self> {
        let (positions, corners) = sphere(triangles);
        let topology = Topology::new(positions.len() / 3, &corners)?;
        Ok(Self {
            renderer: SurfaceRenderer::new(device, &topology)?,
            colors: positions.iter().map(|x| x + 0.5).collect(),
            positions,
            // The sphere just touches the picture's border.
            camera: Camera::orbit(30.0, 20.0, 2.0, Vec3::ZERO, 2.0 * 0.25f32.asin(), size),
            grad: vec![1e-3; 3 * (size * size) as usize],
        })
    }

    /// Triangles of the mesh.
    pub fn triangles(&self) -> usize {
        self.renderer.topology().triangles().len()
    }

    /// Renders once; returns the share of the picture that is covered.
    ///
    /// # Errors
    /// Those of the device.
    pub fn forward(&mut self) -> Result<f32> {
        let input = SurfaceInput {
            positions: &self.positions,
            paint: Paint::Colors(&self.colors),
            cameras: &[self.camera],
            backgrounds: &[Vec3::ZERO],
        };
        let output = self.renderer.render(&input, &SurfaceOptions::default())?;
        Ok(output.mask.iter().sum::<f32>() / output.mask.len() as f32)
    }

    /// Pulls a constant gradient back into positions and colours; after a [`forward`](Self::forward).
    ///
    /// # Errors
    /// Those of the device.
    pub fn backward(&mut self) -> Result<()> {
        let grad = SurfaceGrad { rgb: Some(&self.grad), ..Default::default() };
        self.renderer.backward(&grad).map(|_| ())
    }

    /// Bytes that must at least go through memory, forward and backward: each kernel reads its inputs
    /// and writes its outputs once.
    pub fn traffic(&self) -> [u64; 2] {
        let (pixels, vertices) = (self.grad.len() as u64 / 3, self.positions.len() as u64 / 3);
        let triangles = self.triangles() as u64;
        // Forward: ids and raster (5) written, read by interpolation and pairs; values (3) written and
        // read; layers and blended (4 each) written and read; alphas and edges (4) written, half read.
        let forward = pixels * (5 + 5 + 5 + 6 + 8 + 8 + 4 + 2) + vertices * 12 + triangles * 3 * 3;
        // Backward: blended, layers, values gradients (4 + 4 + 3) written and read, alphas and edges
        // twice, layers, raster and its gradient (4 + 8), ids three times; the mesh as forward.
        let backward = pixels * (22 + 8 + 4 + 12 + 3) + vertices * 24 + triangles * 3 * 2;
        [4 * forward, 4 * backward]
    }
}

/// Bytes a second that one thread of this machine copies (read and written bytes together), the best
/// of several.
pub fn copy_bandwidth() -> f64 {
    let source = vec![1u32; 16 << 20];
    let mut target = vec![0u32; source.len()];
    let best = (0..5).map(|_| {
        let start = Instant::now();
        target.copy_from_slice(std::hint::black_box(&source));
        std::hint::black_box(&target);
        start.elapsed().as_secs_f64()
    });
    8.0 * source.len() as f64 / best.fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_triangles_at_1024_fit_and_cover_the_disc() {
        let mut work = Workload::new(&Device::cpu(), 1_000_000, 1024).unwrap();
        assert!(work.triangles() >= 1_000_000);
        let covered = work.forward().unwrap();
        // The disc that touches the border: π/4, less its own pixels' rounding.
        assert!((covered - PI / 4.0).abs() < 2e-3, "{covered}");
        work.backward().unwrap();
    }
}
