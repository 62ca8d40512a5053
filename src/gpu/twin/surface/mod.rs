//! Differentiable rasterisation of triangle meshes.
//!
//! A vertex on the screen is homogeneous: `(x·w, y·w, w)` with x right and y down in pixels (centres
//! at +½) and w the distance along the viewing axis. Nothing is divided before a pixel asks, so a
//! triangle through the camera plane needs no clipping: its part behind gives negative w there.
//! Visibility has a gradient by the silhouette kernels alone.

mod attributes;
mod geometry;
mod rasterize;
mod silhouette;
mod texture;
mod tiles;
mod transform;

pub use attributes::{
    surface_compose, surface_compose_backward, surface_footprint, surface_interpolate,
    surface_interpolate_backward,
};
pub use rasterize::{surface_rasterize, surface_rasterize_backward};
pub use silhouette::{
    silhouette_blend, silhouette_blend_backward, silhouette_move_backward, silhouette_pairs,
};
pub use texture::{texture_mip, texture_mip_backward, texture_sample, texture_sample_backward};
pub use tiles::{surface_tile_count, surface_tile_write};
pub use transform::{surface_transform, surface_transform_backward};

/// Pixels of one task.
const PIXEL_CHUNK: usize = 4096;
