//! Score distillation: gradients on latents from a noise predictor.
//!
//! [`Sds`] is the loss, and carries what its relatives share: [`Sds::variational`] (VSD),
//! [`Sds::jacobian`] (SJC), [`Sds::classifier`] (CSD), [`Sds::noise_free`] (NFSD), [`Sds::interval`] (ISM);
//! [`image`] is HiFA's loss on pictures.
//! [`TimestepRange`] says which noise it looks through, [`view`] which words a
//! camera's picture is compared with, [`debias`] which words of a prompt contradict a view, and [`regularize`] holds the penalties on renders.

mod classifier;
pub mod debias;
mod estimator;
pub mod image;
mod interval;
mod jacobian;
pub mod regularize;
mod sds;
mod timestep;
mod variational;
pub mod view;

#[cfg(test)]
mod estimator_tests;
#[cfg(test)]
mod family_tests;
#[cfg(test)]
mod particle_tests;
#[cfg(test)]
mod tests;

pub use estimator::{Estimator, EstimatorConfig, Learned};
pub use interval::Intervals;
pub use sds::{At, Noised, Sds, SdsConfig, SdsGradient, Threshold, Weighting};
pub use timestep::{Annealing, TimestepRange};
