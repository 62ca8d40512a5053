//! Differentiable renderers over fields and plain pictures of meshes.

pub mod backdrop;
pub mod camera;
pub mod color;
pub mod light;
pub mod material;
pub mod raster;
pub mod sheet;
pub mod show;
pub mod surface;
pub mod volume;
