//! What is optimised: the hash-grid field, its occupancy grid, parameters and Adam state.

mod config;
mod optimizer;

pub use config::{DensityActivation, FieldConfig};
pub use optimizer::AdamConfig;
