//! wgpu device, buffers, pipelines, shader assembly, and the Rust twin of each kernel.

pub mod backend;
mod cpu;
pub mod kernels;
pub mod twin;
