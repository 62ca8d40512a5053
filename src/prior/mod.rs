//! The diffusion prior: differentiable layers, text encoder, VAE, U-Net, schedule, loading.

pub mod nn;
pub mod schedule;
