//! Score distillation: gradients on latents from a noise predictor.
//!
//! [`Sds`] is the loss, [`TimestepRange`] says which noise it looks through, [`view`] which words a
//! camera's picture is compared with, and [`regularize`] holds the penalties on renders.

pub mod regularize;
mod sds;
mod timestep;
pub mod view;

#[cfg(test)]
mod tests;

pub use sds::{Sds, SdsConfig, SdsGradient, Threshold, Weighting};
pub use timestep::{Annealing, TimestepRange};
