//! wgpu device, buffers, pipelines, shader assembly, and the Rust twin of each kernel.

pub mod adapter;
pub mod backend;
mod cpu;
mod device;
pub mod kernels;
mod pipeline;
pub mod shader;
pub mod twin;
mod vulkan;

#[cfg(test)]
mod agreement;

pub use backend::Device;
pub use device::Gpu;
pub use pipeline::sources;
pub use vulkan::{Vulkan, open};
