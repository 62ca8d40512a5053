//! Attributes of vertices at the pixels, and the picture of coverage and background.

use glam::{Vec2, Vec3};
use rayon::prelude::*;

use super::PIXEL_CHUNK;
use super::geometry::{center, corners, edges, slope};
use crate::gpu::kernels::{RASTER, SurfaceParams};

fn pixels(p: &SurfaceParams) -> usize {
    (p.views * p.width * p.height) as usize
}

/// Where the triangle's three vertices have their attributes; `None` for an index beyond them.
#[inline(always)]
fn rows(p: &SurfaceParams, indices: &[u32], attributes: &[f32], id: u32) -> Option<[usize; 3]> {
    let (channels, first) = (p.channels as usize, 3 * (id as usize - 1));
    let rows: [usize; 3] = std::array::from_fn(|k| channels * indices[first + k] as usize);
    rows.iter().all(|row| row + channels <= attributes.len()).then_some(rows)
}

/// `value = Σ bₖ·attributeₖ`, zero where nothing is seen; see
/// [`crate::gpu::kernels::Kernel::SurfaceInterpolate`].
pub fn surface_interpolate(
    p: &SurfaceParams,
    ids: &[u32],
    raster: &[f32],
    attributes: &[f32],
    indices: &[u32],
    values: &mut [f32],
) {
    let channels = p.channels as usize;
    let out = values[..channels * pixels(p)].par_chunks_exact_mut(channels).with_min_len(PIXEL_CHUNK);
    out.enumerate().for_each(|(pixel, out)| {
        out.fill(0.0);
        let Some(id) = ids[pixel].checked_sub(1) else { return };
        let Some(rows) = rows(p, indices, attributes, id + 1) else { return };
        let b = Vec3::from_slice(&raster[RASTER * pixel..]);
        for (c, out) in out.iter_mut().enumerate() {
            *out =
                b.x * attributes[rows[0] + c] + b.y * attributes[rows[1] + c] + b.z * attributes[rows[2] + c];
        }
    });
}

/// Adds the gradient by the attributes and by the coordinates; see
/// [`crate::gpu::kernels::Kernel::SurfaceInterpolateBackward`].
#[expect(clippy::too_many_arguments, reason = "the kernel's bindings")]
pub fn surface_interpolate_backward(
    p: &SurfaceParams,
    ids: &[u32],
    raster: &[f32],
    attributes: &[f32],
    indices: &[u32],
    values_grad: &[f32],
    attributes_grad: &mut [f32],
    raster_grad: &mut [f32],
) {
    let channels = p.channels as usize;
    for (pixel, &id) in ids[..pixels(p)].iter().enumerate().filter(|(_, id)| **id != 0) {
        let grad = &values_grad[channels * pixel..channels * (pixel + 1)];
        let Some(rows) = rows(p, indices, attributes, id) else { continue };
        for (k, row) in rows.into_iter().enumerate() {
            let (b, mut by_b) = (raster[RASTER * pixel + k], 0.0);
            for (c, grad) in grad.iter().enumerate() {
                attributes_grad[row + c] += b * grad;
                by_b += attributes[row + c] * grad;
            }
            raster_grad[RASTER * pixel + k] += by_b;
        }
    }
}

/// Slopes of two-channel attributes by the pixel: ∂u/∂x, ∂u/∂y, ∂v/∂x, ∂v/∂y; see
/// [`crate::gpu::kernels::Kernel::SurfaceFootprint`].
pub fn surface_footprint(
    p: &SurfaceParams,
    ids: &[u32],
    indices: &[u32],
    clip: &[f32],
    uvs: &[f32],
    uv_indices: &[u32],
    footprint: &mut [f32],
) {
    let picture = (p.width * p.height) as usize;
    let two = SurfaceParams { channels: 2, ..*p };
    let out = footprint[..4 * pixels(p)].par_chunks_exact_mut(4).with_min_len(PIXEL_CHUNK);
    out.enumerate().for_each(|(pixel, out)| {
        out.fill(0.0);
        let Some(triangle) = (ids[pixel] as usize).checked_sub(1) else { return };
        let (view, local) = (pixel / picture, pixel % picture);
        let Some(c) = corners(p, indices, clip, view, triangle) else { return };
        let Some(rows) = rows(&two, uv_indices, uvs, ids[pixel]) else { return };
        let e = edges(c, center(p, local));
        let sum = e.x + e.y + e.z;
        let slopes = [slope(c[1], c[2]), slope(c[2], c[0]), slope(c[0], c[1])];
        let slope_of_sum = slopes[0] + slopes[1] + slopes[2];
        let (mut u, mut v) = (Vec2::ZERO, Vec2::ZERO);
        for k in 0..3 {
            let by_pixel = (slopes[k] - slope_of_sum * (e[k] / sum)) / sum;
            u += by_pixel * uvs[rows[k]];
            v += by_pixel * uvs[rows[k] + 1];
        }
        out.copy_from_slice(&[u.x, u.y, v.x, v.y]);
    });
}

/// `layers` = (colour, 1) where something is seen, else (background, 0); see
/// [`crate::gpu::kernels::Kernel::SurfaceCompose`].
pub fn surface_compose(
    p: &SurfaceParams,
    ids: &[u32],
    values: &[f32],
    background: &[f32],
    layers: &mut [f32],
) {
    let (channels, picture) = (p.channels as usize, (p.width * p.height) as usize);
    let out = layers[..(channels + 1) * pixels(p)].par_chunks_exact_mut(channels + 1);
    out.with_min_len(PIXEL_CHUNK).enumerate().for_each(|(pixel, out)| {
        let seen = ids[pixel] != 0;
        let (from, at) = if seen { (values, pixel) } else { (background, pixel / picture) };
        out[..channels].copy_from_slice(&from[channels * at..channels * (at + 1)]);
        out[channels] = f32::from(u8::from(seen));
    });
}

/// The colour's part of the gradient, where something is seen; see
/// [`crate::gpu::kernels::Kernel::SurfaceComposeBackward`].
pub fn surface_compose_backward(
    p: &SurfaceParams,
    ids: &[u32],
    layers_grad: &[f32],
    values_grad: &mut [f32],
) {
    let channels = p.channels as usize;
    let out = values_grad[..channels * pixels(p)].par_chunks_exact_mut(channels);
    out.with_min_len(PIXEL_CHUNK).enumerate().for_each(|(pixel, out)| {
        let from = (channels + 1) * pixel;
        if ids[pixel] == 0 {
            out.fill(0.0);
        } else {
            out.copy_from_slice(&layers_grad[from..from + channels]);
        }
    });
}
