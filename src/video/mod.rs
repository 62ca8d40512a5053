//! Clips: reading, editing, judging and writing them.

pub mod batch;
mod detail;
pub mod diffusion;
pub mod edit;
pub mod editor;
pub mod fit;
pub mod interpolate;
pub mod io;
pub mod job;
mod mask;
pub mod metrics;
pub mod store;
pub mod ticket;
