//! Rust twins of the kernels: same bindings, same arithmetic. They are the `cpu` device and the
//! oracle of the shaders' tests.
//!
//! Work is cut into chunks of fixed size and partial sums are added in chunk order, so the result
//! does not depend on the number of threads. Nothing is fused (no FMA contraction), so it does not
//! depend on the instruction set either.

mod adam;
mod background;
mod composite;
mod encoding;
mod field;
mod lanes;
mod march;
mod normal;
mod occupancy;
mod scan;
mod surface;

pub use adam::adam;
pub use background::{background_backward, background_forward};
pub use composite::{composite, composite_backward};
pub use encoding::{grid_backward, grid_positions_backward};
pub use field::{field_backward, field_forward};
pub use march::{march_count, march_write};
pub use normal::{normal_backward, normal_composite, normal_count, normal_points};
pub use occupancy::{occupancy_bits, occupancy_points, occupancy_update};
pub use scan::scan;
pub use surface::{
    silhouette_blend, silhouette_blend_backward, silhouette_move_backward, silhouette_pairs, surface_compose,
    surface_compose_backward, surface_footprint, surface_interpolate, surface_interpolate_backward,
    surface_rasterize, surface_rasterize_backward, surface_tile_count, surface_tile_write, surface_transform,
    surface_transform_backward, texture_mip, texture_mip_backward, texture_sample, texture_sample_backward,
};

/// Rays of one task.
const RAY_CHUNK: usize = 256;

/// Cuts `data` at `width · bounds[..]`: one slice for each pair of neighbours in `bounds`.
fn split_at_bounds<'a, T>(mut data: &'a mut [T], bounds: &[usize], width: usize) -> Vec<&'a mut [T]> {
    let mut parts = Vec::with_capacity(bounds.len());
    for pair in bounds.windows(2) {
        let (head, tail) = data.split_at_mut((pair[1] - pair[0]) * width);
        parts.push(head);
        data = tail;
    }
    parts
}

/// The sample offsets at the limits of the ray chunks, starting with `offsets[0] = 0`.
fn chunk_bounds(offsets: &[u32], rays: usize) -> Vec<usize> {
    (0..rays).step_by(RAY_CHUNK).chain([rays]).map(|r| offsets[r] as usize).collect()
}
