//! Normals by finite differences of the density at the corners of a tetrahedron, for the samples
//! that matter, with the exact gradient through the queries.

use glam::Vec3;
use rayon::prelude::*;

use super::{RAY_CHUNK, chunk_bounds, split_at_bounds};
use crate::gpu::kernels::{NormalParams, OUTPUTS};

/// Corners of the tetrahedron: `Σ eₖ eₖᵀ = 4·1`, `Σ eₖ = 0`.
const CORNERS: [Vec3; 4] =
    [Vec3::new(1.0, -1.0, -1.0), Vec3::new(-1.0, -1.0, 1.0), Vec3::new(-1.0, 1.0, -1.0), Vec3::ONE];

/// Samples of each ray above the threshold; see [`crate::gpu::kernels::Kernel::NormalCount`].
pub fn normal_count(p: &NormalParams, offsets: &[u32], weights: &[f32], counts: &mut [u32]) {
    for (count, pair) in counts.iter_mut().zip(offsets[..=p.rays as usize].windows(2)) {
        let weights = &weights[pair[0] as usize..pair[1] as usize];
        *count = weights.iter().filter(|&&w| w > p.threshold).count() as u32;
    }
}

/// Their indices and query points; see [`crate::gpu::kernels::Kernel::NormalPoints`].
pub fn normal_points(
    p: &NormalParams,
    offsets: &[u32],
    weights: &[f32],
    positions: &[f32],
    normal_offsets: &[u32],
    selected: &mut [u32],
    queries: &mut [f32],
) {
    let n = p.rays as usize;
    let picked = normal_offsets[n] as usize;
    let picks = (offsets[0]..offsets[n]).filter(|&i| weights[i as usize] > p.threshold);
    for (slot, index) in selected[..picked].iter_mut().zip(picks) {
        *slot = index;
    }
    let chunks = queries[..picked * 12].par_chunks_mut(12).with_min_len(1024);
    chunks.zip(&selected[..picked]).for_each(|(query, &index)| {
        let center = Vec3::from_slice(&positions[3 * index as usize..]);
        for (out, corner) in query.chunks_exact_mut(3).zip(CORNERS) {
            out.copy_from_slice(&(center + corner * p.epsilon).to_array());
        }
    });
}

/// Pixels' normals and orientation penalty; see [`crate::gpu::kernels::Kernel::NormalComposite`].
pub fn normal_composite(
    p: &NormalParams,
    rays: &[f32],
    normal_offsets: &[u32],
    selected: &[u32],
    weights: &[f32],
    query_field: &[f32],
    normals: &mut [f32],
) {
    let n = p.rays as usize;
    normals[..4 * n].par_chunks_mut(4).with_min_len(RAY_CHUNK).enumerate().for_each(|(r, out)| {
        let direction = Vec3::from_slice(&rays[8 * r + 4..]);
        let (mut sum, mut penalty) = (Vec3::ZERO, 0.0);
        for i in normal_offsets[r] as usize..normal_offsets[r + 1] as usize {
            let weight = weights[selected[i] as usize];
            let (normal, _) = normal(p, &query_field[4 * OUTPUTS * i..]);
            sum += normal * weight;
            penalty += weight * normal.dot(direction).max(0.0).powi(2);
        }
        out.copy_from_slice(&sum.extend(penalty).to_array());
    });
}

/// Gradient by the queried densities and by the weights (the latter without the orientation
/// penalty's part, which is cut); see [`crate::gpu::kernels::Kernel::NormalBackward`].
#[expect(clippy::too_many_arguments, reason = "the kernel's bindings")]
pub fn normal_backward(
    p: &NormalParams,
    rays: &[f32],
    normal_offsets: &[u32],
    selected: &[u32],
    weights: &[f32],
    query_field: &[f32],
    normals_grad: &[f32],
    query_field_grad: &mut [f32],
    weight_grad: &mut [f32],
) {
    // `weight_grad` arrives as zeros: most samples are not selected.
    let n = p.rays as usize;
    let bounds = chunk_bounds(normal_offsets, n);
    let parts = split_at_bounds(query_field_grad, &bounds, 4 * OUTPUTS);
    let by_weight: Vec<Vec<f32>> = (parts.into_par_iter().enumerate())
        .map(|(chunk, out)| {
            let mut by_weight = Vec::with_capacity(bounds[chunk + 1] - bounds[chunk]);
            let mut out = out.chunks_exact_mut(4 * OUTPUTS);
            for r in chunk * RAY_CHUNK..n.min((chunk + 1) * RAY_CHUNK) {
                let direction = Vec3::from_slice(&rays[8 * r + 4..]);
                let grad = Vec3::from_slice(&normals_grad[4 * r..]);
                for i in normal_offsets[r] as usize..normal_offsets[r + 1] as usize {
                    let (normal, length) = normal(p, &query_field[4 * OUTPUTS * i..]);
                    let facing_away = normal.dot(direction).max(0.0);
                    let weight = weights[selected[i] as usize];
                    let by_normal =
                        (grad + direction * (2.0 * facing_away * normals_grad[4 * r + 3])) * weight;
                    // n = −g/s, s = √(|g|² + floor²): ∂n/∂g = −(1 − n nᵀ)/s.
                    let by_gradient = (normal * normal.dot(by_normal) - by_normal) / length;
                    by_weight.push(grad.dot(normal));
                    if let Some(out) = out.next() {
                        for (out, corner) in out.chunks_exact_mut(OUTPUTS).zip(CORNERS) {
                            let by_density = corner.dot(by_gradient) / (4.0 * p.epsilon);
                            out.copy_from_slice(&[by_density, 0.0, 0.0, 0.0]);
                        }
                    }
                }
            }
            by_weight
        })
        .collect();
    for (&index, grad) in selected.iter().zip(by_weight.iter().flatten()) {
        weight_grad[index as usize] = *grad;
    }
}

/// The normal and the regularised length of the density's gradient.
#[inline(always)]
fn normal(p: &NormalParams, query: &[f32]) -> (Vec3, f32) {
    let mut gradient = Vec3::ZERO;
    for (k, corner) in CORNERS.into_iter().enumerate() {
        gradient += corner * query[OUTPUTS * k];
    }
    gradient /= 4.0 * p.epsilon;
    let length = (gradient.length_squared() + p.floor * p.floor).sqrt();
    (-gradient / length, length)
}
