//! Shape of the hash-grid field (Müller et al., "Instant Neural Graphics Primitives", 2022).

use serde::{Deserialize, Serialize};

use crate::gpu::kernels::{FEATURES, FieldParams, Level, MAX_LEVELS, OUTPUTS};
use crate::{Error, Result};

/// From the MLP's first output to a density.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DensityActivation {
    /// `log(1 + eˣ)`.
    Softplus,
    /// `eˣ`, the argument clamped to ±15.
    TruncExp,
}

/// A field over [-1, 1]³: hash grid, one hidden layer, density and colour.
///
/// `density = activation(out₀ + blob_scale·(1 − |x|/blob_radius))`, `colour = sigmoid(out₁₋₃)` (linear rgb).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FieldConfig {
    /// Levels of the grid, 1 to 16.
    pub levels: u32,
    /// Vertices a side of the coarsest level.
    pub base_resolution: u32,
    /// Vertices a side of the finest level.
    pub finest_resolution: u32,
    /// A level has at most 2 to this entries; a level that needs more is hashed.
    pub log2_table: u32,
    /// Hidden width of the MLP: a multiple of 16 up to 128.
    pub hidden: u32,
    /// Density activation.
    pub activation: DensityActivation,
    /// Height of the initial blob's logit at the centre.
    pub blob_scale: f32,
    /// Distance from the centre at which the blob's logit is zero.
    pub blob_radius: f32,
    /// Levels that are on at step 0.
    pub start_levels: u32,
    /// One more level every so many steps; 0: all levels are on from the start.
    pub level_every: u32,
}

impl Default for FieldConfig {
    fn default() -> Self {
        Self {
            // Two more levels, 192 and 2^16 gain 0.4 dB on a 64-pixel scene and cost a quarter more time.
            levels: 10,
            base_resolution: 16,
            finest_resolution: 128,
            log2_table: 15,
            hidden: 32,
            activation: DensityActivation::Softplus,
            blob_scale: 10.0,
            blob_radius: 0.5,
            start_levels: 5,
            level_every: 0,
        }
    }
}

impl FieldConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let bad = |what: &str, reason: &str| Err(Error::invalid(format!("field.{what}"), reason));
        if !(1..=MAX_LEVELS as u32).contains(&self.levels) {
            return bad("levels", "must be 1 to 16");
        }
        if self.base_resolution < 2 || self.finest_resolution < self.base_resolution {
            return bad("finest_resolution", "needs 2 <= base_resolution <= finest_resolution");
        }
        if self.finest_resolution > 4096 {
            return bad("finest_resolution", "must be at most 4096");
        }
        if !(4..=22).contains(&self.log2_table) {
            return bad("log2_table", "must be 4 to 22");
        }
        if !(16..=128).contains(&self.hidden) || !self.hidden.is_multiple_of(16) {
            return bad("hidden", "must be a multiple of 16 from 16 to 128");
        }
        if self.blob_radius.is_nan() || self.blob_radius <= 0.0 || !self.blob_scale.is_finite() {
            return bad("blob_radius", "must be above 0, and blob_scale finite");
        }
        if self.level_every > 0 && !(1..=self.levels).contains(&self.start_levels) {
            return bad("start_levels", "must be 1 to levels");
        }
        Ok(())
    }

    /// The levels. Vertices a side are `⌈base·sˡ − 1⌉ + 1` with `s = (finest/base)^(1/(levels−1))`, and
    /// a level has `min(8·⌈vertices³/8⌉, 2^log2_table)` entries: tiny-cuda-nn's counts.
    pub fn table(&self) -> Vec<Level> {
        let ratio = f64::from(self.finest_resolution) / f64::from(self.base_resolution);
        let log_s = ratio.ln() / f64::from((self.levels - 1).max(1));
        let mut offset = 0;
        (0..self.levels)
            .map(|l| {
                let scale = f64::from(self.base_resolution) * (f64::from(l) * log_s).exp();
                // The last level is `finest` up to rounding; do not let that add a vertex.
                let vertices = (scale - 1.0 - 1e-6).ceil() as u32 + 1;
                // u64: vertices³ overflows u32 from 1626 on, and would look dense.
                let dense = u64::from(vertices).pow(3).next_multiple_of(8);
                let entries = dense.min(1 << self.log2_table) as u32;
                let level =
                    Level { vertices, offset, entries, hashed: u32::from(u64::from(entries) < dense) };
                offset += entries;
                level
            })
            .collect()
    }

    /// Parameters of the grid.
    pub fn grid_params(&self) -> usize {
        self.table().iter().map(|l| l.entries as usize * FEATURES).sum()
    }

    /// Parameters of the MLP (no biases).
    pub fn mlp_params(&self) -> usize {
        self.hidden as usize * (self.levels as usize * FEATURES + OUTPUTS)
    }

    /// Levels that are on at `step`.
    pub fn active_levels(&self, step: u32) -> u32 {
        match step.checked_div(self.level_every) {
            Some(more) => self.start_levels.saturating_add(more).min(self.levels),
            None => self.levels,
        }
    }

    /// The kernels' parameters for `points` points.
    pub(crate) fn params(&self, points: usize, active_levels: u32, keep_features: bool) -> FieldParams {
        let mut table = [Level { vertices: 0, offset: 0, entries: 0, hashed: 0 }; MAX_LEVELS];
        for (slot, level) in table.iter_mut().zip(self.table()) {
            *slot = level;
        }
        FieldParams {
            points: points as u32,
            levels: self.levels,
            active_levels,
            hidden: self.hidden,
            activation: match self.activation {
                DensityActivation::Softplus => 0,
                DensityActivation::TruncExp => 1,
            },
            keep_features: u32::from(keep_features),
            blob_scale: self.blob_scale,
            blob_radius: self.blob_radius,
            table,
        }
    }
}
