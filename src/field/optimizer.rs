//! Adam's settings for the field's parameter groups.

use serde::{Deserialize, Serialize};

/// Adam (Kingma & Ba, 2015) with one learning rate a parameter group.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamConfig {
    /// Learning rate of the hash grid.
    pub lr_grid: f32,
    /// Learning rate of the field's MLP.
    pub lr_mlp: f32,
    /// Learning rate of the background's MLP.
    pub lr_background: f32,
    /// Decay of the mean gradient.
    pub beta1: f32,
    /// Decay of the mean squared gradient.
    pub beta2: f32,
    /// Added to the root of the mean squared gradient.
    pub eps: f32,
}

impl Default for AdamConfig {
    fn default() -> Self {
        // threestudio's rate for the grid, and Instant-NGP's ε for rarely touched entries. The MLP's is
        // five times threestudio's: 3 dB more after 150 steps on a scene of known pictures.
        Self { lr_grid: 1e-2, lr_mlp: 5e-3, lr_background: 1e-3, beta1: 0.9, beta2: 0.99, eps: 1e-15 }
    }
}
