//! World positions to homogeneous screen positions.

use glam::{Vec3, Vec4};
use rayon::prelude::*;

use super::PIXEL_CHUNK;
use crate::gpu::kernels::SurfaceParams;

fn row(cameras: &[f32], view: usize, row: usize) -> Vec4 {
    Vec4::from_slice(&cameras[12 * view + 4 * row..])
}

/// `clip = P·(position, 1)` in each view; see [`crate::gpu::kernels::Kernel::SurfaceTransform`].
pub fn surface_transform(p: &SurfaceParams, cameras: &[f32], positions: &[f32], clip: &mut [f32]) {
    let n = p.vertices as usize;
    if n == 0 {
        return;
    }
    for (view, clip) in clip[..3 * n * p.views as usize].chunks_exact_mut(3 * n).enumerate() {
        let rows = [0, 1, 2].map(|r| row(cameras, view, r));
        let pairs = clip.par_chunks_exact_mut(3).with_min_len(PIXEL_CHUNK);
        pairs.zip(&positions.as_chunks::<3>().0[..n]).for_each(|(out, position)| {
            for (out, row) in out.iter_mut().zip(rows) {
                *out = row.x * position[0] + row.y * position[1] + row.z * position[2] + row.w;
            }
        });
    }
}

/// Adds `Σ_views Pᵀ·clip_grad`; see [`crate::gpu::kernels::Kernel::SurfaceTransformBackward`].
pub fn surface_transform_backward(
    p: &SurfaceParams,
    cameras: &[f32],
    clip_grad: &[f32],
    position_grad: &mut [f32],
) {
    let n = p.vertices as usize;
    let vertices = position_grad[..3 * n].par_chunks_exact_mut(3).with_min_len(PIXEL_CHUNK);
    vertices.enumerate().for_each(|(vertex, out)| {
        let mut sum = Vec3::from_slice(out);
        for view in 0..p.views as usize {
            let grad = Vec3::from_slice(&clip_grad[3 * (view * n + vertex)..]);
            for (r, by) in grad.to_array().into_iter().enumerate() {
                sum += row(cameras, view, r).truncate() * by;
            }
        }
        out.copy_from_slice(&sum.to_array());
    });
}
