//! Smooth vertex normals, weighted by the triangles' areas, and their gradient.

use glam::Vec3;

fn corner(positions: &[f32], index: u32) -> Vec3 {
    Vec3::from_slice(&positions[3 * index as usize..])
}

/// Sums of the triangles' area vectors at the vertices.
fn sums(positions: &[f32], triangles: &[[u32; 3]]) -> Vec<Vec3> {
    let mut sums = vec![Vec3::ZERO; positions.len() / 3];
    for triangle in triangles {
        let [a, b, c] = triangle.map(|i| corner(positions, i));
        let area = (b - a).cross(c - a);
        // One broken vertex must not blacken its neighbours.
        if area.is_finite() {
            triangle.iter().for_each(|&i| sums[i as usize] += area);
        }
    }
    sums
}

/// Unit normals `[vertices, 3]`; zero where the triangles around a vertex have no area.
pub(super) fn vertex_normals(positions: &[f32], triangles: &[[u32; 3]]) -> Vec<f32> {
    sums(positions, triangles).iter().flat_map(|s| s.normalize_or_zero().to_array()).collect()
}

/// Adds the normals' gradient to the positions'.
pub(super) fn vertex_normals_backward(
    positions: &[f32],
    triangles: &[[u32; 3]],
    normals_grad: &[f32],
    positions_grad: &mut [f32],
) {
    let by_sum: Vec<Vec3> = sums(positions, triangles)
        .into_iter()
        .zip(normals_grad.as_chunks::<3>().0)
        .map(|(sum, grad)| {
            let (n, grad) = (sum.normalize_or_zero(), Vec3::from_array(*grad));
            // ∂n/∂s = (1 − n nᵀ)/|s|.
            if n == Vec3::ZERO { Vec3::ZERO } else { (grad - n * n.dot(grad)) / sum.length() }
        })
        .collect();
    for triangle in triangles {
        let [a, b, c] = triangle.map(|i| corner(positions, i));
        if !(b - a).cross(c - a).is_finite() {
            continue;
        }
        let by_area: Vec3 = triangle.iter().map(|&i| by_sum[i as usize]).sum();
        // area = u × v: ∂/∂u = v × g, ∂/∂v = g × u.
        let (by_u, by_v) = ((c - a).cross(by_area), by_area.cross(b - a));
        for (&i, by) in triangle.iter().zip([-by_u - by_v, by_u, by_v]) {
            for (out, by) in positions_grad[3 * i as usize..].iter_mut().zip(by.to_array()) {
                *out += by;
            }
        }
    }
}
