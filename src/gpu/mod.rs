//! wgpu device, buffers, pipelines, shader assembly, and the Rust twin of each kernel.
