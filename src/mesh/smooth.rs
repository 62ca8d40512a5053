//! Taubin smoothing: low-pass without shrinking (Taubin 1995, "A signal processing approach").

use glam::Vec3;

use super::TriMesh;
use super::topology::edges;

/// Taubin's λ and μ: pass band 1/λ + 1/μ = 0.11, no shrinkage to first order.
const LAMBDA: f32 = 0.5;
const MU: f32 = -0.53;

/// `iterations` pairs of a smoothing and an inflating step with uniform weights. The
/// triangles stay, so the topology does.
pub fn taubin(mesh: &mut TriMesh, iterations: usize) {
    let pairs: Vec<(u32, u32)> = edges(mesh).into_iter().map(|e| (e.0, e.1)).collect();
    let mut degree = vec![0f32; mesh.positions.len()];
    for &(a, b) in &pairs {
        degree[a as usize] += 1.0;
        degree[b as usize] += 1.0;
    }
    let mut offset = vec![Vec3::ZERO; mesh.positions.len()];
    for factor in [LAMBDA, MU].into_iter().cycle().take(2 * iterations) {
        offset.fill(Vec3::ZERO);
        for &(a, b) in &pairs {
            let along = mesh.positions[b as usize] - mesh.positions[a as usize];
            offset[a as usize] += along;
            offset[b as usize] -= along;
        }
        for ((position, offset), degree) in mesh.positions.iter_mut().zip(&offset).zip(&degree) {
            *position += *offset * (factor / degree.max(1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::testing::sphere;
    use crate::mesh::topology::signed_volume;
    use crate::rng::{Rng, Stream};

    fn roughness(mesh: &TriMesh) -> f32 {
        let n = mesh.positions.len() as f32;
        (mesh.positions.iter().map(|p| (p.length() - 0.7).powi(2)).sum::<f32>() / n).sqrt()
    }

    #[test]
    fn noise_shrinks_and_volume_stays() {
        let mut mesh = sphere(40, 0.7);
        let exact = signed_volume(&mesh);
        let rng = Rng::new(3, Stream::Probe, 0);
        for (i, p) in mesh.positions.iter_mut().enumerate() {
            *p *= 1.0 + 0.01 * rng.normal(i as u64);
        }
        let before = roughness(&mesh);
        taubin(&mut mesh, 5);
        assert!(roughness(&mesh) < 0.5 * before, "{} {before}", roughness(&mesh));
        assert!((signed_volume(&mesh) / exact - 1.0).abs() < 5e-3);
    }
}
