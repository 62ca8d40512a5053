//! Differentiable rendering of triangle meshes over the kernels of [`crate::gpu`].
//!
//! Coverage is a step function: it has a gradient only where silhouettes are blended with what lies
//! behind them (`silhouette_*` kernels). Everything inside a triangle (colours, texture coordinates,
//! depth, normals) has its exact gradient by vertex positions and attributes.

mod backward;
mod input;
mod normals;
mod projection;
mod renderer;
mod shade;
#[cfg(test)]
pub(crate) mod tests;
mod topology;

pub use input::{
    Paint, Sampling, SurfaceGrad, SurfaceGradients, SurfaceInput, SurfaceOptions, SurfaceOutput, Texture,
    Wrap,
};
pub use projection::projection;
pub use renderer::SurfaceRenderer;
pub use shade::Shade;
pub use topology::Topology;
