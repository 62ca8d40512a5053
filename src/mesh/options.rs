//! Settings and report of [`super::build_asset`].

use serde::{Deserialize, Serialize};

use super::threshold::CHARACTERISTIC_LENGTH;
use crate::{Error, Result};

/// How to turn a field into an asset.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct MeshOptions {
    /// Grid cells per axis over [-1,1]³, 8..=512.
    pub resolution: usize,
    /// Density of the surface; `None` chooses it, see [`super::threshold`].
    pub threshold: Option<f32>,
    /// World units over which the first candidate of the automatic threshold is half opaque.
    pub characteristic_length: f32,
    /// Parts that enclose less than this share of the largest part's volume are dropped, 0..=1.
    pub keep_fraction: f64,
    /// Taubin iterations.
    pub smoothing: usize,
    /// Target number of triangles, 100..=50,000.
    pub triangles: usize,
    /// Side of the base-colour texture in texels, a power of two in 64..=8192.
    pub texture_size: u32,
    /// Empty texels around each chart (twice as many between charts), 2..=32.
    pub padding: u32,
    /// Samples per texel along the normal, 1..=64, see [`super::bake::BakeOptions::samples`].
    pub bake_samples: usize,
    /// Take vertex normals from the density's gradient instead of from the triangles.
    pub density_normals: bool,
    /// Bake the detail that simplification takes into a normal map.
    pub normal_map: bool,
    /// Largest side of the finished asset in metres.
    pub size: f32,
}

impl Default for MeshOptions {
    fn default() -> Self {
        Self {
            resolution: 128,
            threshold: None,
            characteristic_length: CHARACTERISTIC_LENGTH,
            keep_fraction: 0.02,
            smoothing: 3,
            triangles: 20_000,
            texture_size: 1024,
            padding: 4,
            bake_samples: 8,
            density_normals: false,
            normal_map: false,
            size: 1.0,
        }
    }
}

impl MeshOptions {
    /// Estimated peak memory of the room itself in bytes: two grids of densities, a marching mesh
    /// of about 15 triangles per squared cell with its edges, and the texture's working set.
    pub fn memory_bytes(&self) -> usize {
        let grid = 2 * 4 * (self.resolution + 1).pow(3);
        let surface = 15 * self.resolution.pow(2) * 220;
        let texture = 72 * (self.texture_size as usize).pow(2);
        grid + surface.max(texture)
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the first bad value.
    pub fn validate(&self) -> Result<()> {
        let positive = |x: f32| x.is_finite() && x > 0.0;
        let rules = [
            ("mesh.resolution", (8..=512).contains(&self.resolution), "must be 8 to 512 cells"),
            ("mesh.threshold", self.threshold.is_none_or(positive), "must be a positive density"),
            ("mesh.characteristic_length", positive(self.characteristic_length), "must be positive"),
            ("mesh.keep_fraction", (0.0..=1.0).contains(&self.keep_fraction), "must be 0 to 1"),
            ("mesh.smoothing", self.smoothing <= 100, "must be at most 100 iterations"),
            ("mesh.triangles", (100..=50_000).contains(&self.triangles), "must be 100 to 50000"),
            (
                "mesh.texture_size",
                (64..=8192).contains(&self.texture_size) && self.texture_size.is_power_of_two(),
                "must be a power of two from 64 to 8192",
            ),
            ("mesh.padding", (2..=32).contains(&self.padding), "must be 2 to 32 texels"),
            ("mesh.bake_samples", (1..=64).contains(&self.bake_samples), "must be 1 to 64"),
            ("mesh.size", positive(self.size), "must be a positive number of metres"),
        ];
        match rules.into_iter().find(|r| !r.1) {
            Some((what, _, reason)) => Err(Error::invalid(what, reason)),
            None => Ok(()),
        }
    }
}

/// A step of the way from field to asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Evaluating the density on the grid.
    Sample,
    /// Choosing the threshold.
    Threshold,
    /// Marching cubes.
    Extract,
    /// Components, slivers, smoothing.
    Clean,
    /// Fewer triangles.
    Simplify,
    /// UV charts.
    Unwrap,
    /// Base-colour texture.
    Bake,
}

/// Seconds spent in one stage.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StageTime {
    /// Which.
    pub stage: Stage,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// What [`super::build_asset`] did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MeshReport {
    /// Density of the surface.
    pub threshold: f32,
    /// Agreement of the solid's and the volume's silhouettes, 0..1; 1 if the threshold was given.
    pub silhouette_agreement: f32,
    /// The surface is cut off at the box.
    pub touches_box: bool,
    /// Triangles of the iso-surface.
    pub triangles_extracted: usize,
    /// Triangles of the asset.
    pub triangles: usize,
    /// Vertices of the asset, seam copies included.
    pub vertices: usize,
    /// Parts found and kept; walls of cavities dropped.
    pub components_found: usize,
    /// Parts in the asset.
    pub components_kept: usize,
    /// Inner walls that were dropped.
    pub cavities: usize,
    /// Every edge has two triangles with opposite directions (seam copies merged).
    pub watertight: bool,
    /// Every vertex has one fan of triangles.
    pub manifold: bool,
    /// V − E + F.
    pub euler_characteristic: i64,
    /// UV charts.
    pub charts: u32,
    /// Share of the texture that charts cover.
    pub utilization: f32,
    /// Where the time went.
    pub timings: Vec<StageTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_named() {
        assert!(MeshOptions::default().validate().is_ok());
        let bad = MeshOptions { texture_size: 1000, ..Default::default() };
        let error = bad.validate().unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("texture_size"), "{error}");
        let bad = MeshOptions { threshold: Some(f32::NAN), ..Default::default() };
        assert!(bad.validate().unwrap_err().to_string().contains("threshold"));
        assert!(MeshOptions { resolution: 100_000, ..Default::default() }.validate().is_err());
    }
}
