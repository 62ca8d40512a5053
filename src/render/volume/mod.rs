//! Differentiable volume rendering of the hash-grid field.

mod backward;
pub(super) mod buffers;
mod config;
mod points;
mod query;
mod renderer;
mod state;
#[cfg(test)]
mod tests;

pub use config::{Background, Mode, RenderGrad, RenderOptions, RenderOutput, VolumeConfig};
pub use renderer::{MemoryEstimate, VolumeRenderer};
pub use state::State;
