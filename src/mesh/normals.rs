//! Smooth vertex normals.

use glam::Vec3;

use super::{CHUNK, DensityFn, TriMesh};

/// Unit vertex normals: the mean of the face normals weighted by the angle at the vertex
/// (Thürmer & Wüthrich 1998). A vertex without a usable triangle gets +Y.
pub fn angle_weighted(mesh: &TriMesh) -> Vec<Vec3> {
    let mut sums = vec![Vec3::ZERO; mesh.positions.len()];
    for t in 0..mesh.triangles.len() {
        let corners = mesh.corners(t);
        let normal = mesh.area_vector(t).normalize_or_zero();
        for i in 0..3 {
            let (to, from) = (corners[(i + 1) % 3] - corners[i], corners[(i + 2) % 3] - corners[i]);
            // The angle of a zero vector is NaN.
            let angle = if to.length() * from.length() > 0.0 { to.angle_between(from) } else { 0.0 };
            sums[mesh.triangles[t][i] as usize] += angle * normal;
        }
    }
    sums.into_iter().map(|n| n.try_normalize().unwrap_or(Vec3::Y)).collect()
}

/// Replaces normals by −∇σ/|∇σ| from central differences over `step` (world units), where it
/// is within 60 degrees of the given normal: the field knows detail that the mesh lost, but its
/// gradient is noise where the density is flat.
pub fn refine_by_density(mesh: &TriMesh, normals: &mut [Vec3], density: DensityFn<'_>, step: f32) {
    let axes = [Vec3::X, Vec3::Y, Vec3::Z];
    for (points, normals) in mesh.positions.chunks(CHUNK / 6).zip(normals.chunks_mut(CHUNK / 6)) {
        let probes: Vec<Vec3> = points
            .iter()
            .flat_map(|&p| axes.into_iter().flat_map(move |a| [p + step * a, p - step * a]))
            .collect();
        let densities = density(&probes);
        for (normal, d) in normals.iter_mut().zip(densities.chunks(6)) {
            let gradient = Vec3::new(d[1] - d[0], d[3] - d[2], d[5] - d[4]);
            if let Some(n) = gradient.try_normalize().filter(|n| n.dot(*normal) > 0.5) {
                *normal = n;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::simplify::simplify;
    use crate::mesh::testing::{cube, sphere};

    fn worst(mesh: &TriMesh, normals: &[Vec3]) -> f32 {
        mesh.positions.iter().zip(normals).map(|(p, n)| p.normalize().dot(*n)).fold(1.0, f32::min)
    }

    #[test]
    fn corners_of_a_cube_point_along_the_diagonals() {
        // Whatever the triangulation: that is what the weighting by angles is for.
        let normals = angle_weighted(&cube());
        for (p, n) in cube().positions.iter().zip(normals) {
            assert!((n - (*p - Vec3::splat(0.5)).normalize()).length() < 1e-5);
        }
    }

    #[test]
    fn the_gradient_corrects_the_normals_of_a_coarse_sphere() {
        let mut fine = sphere(32, 0.7);
        crate::mesh::clean::remove_slivers(&mut fine, 0.1 / 16.0);
        let mesh = simplify(&fine, 400);
        let mut normals = angle_weighted(&mesh);
        let before = worst(&mesh, &normals);
        assert!(before > 0.97, "{before}");
        let density = |p: &[Vec3]| p.iter().map(|p| 10.0 * (0.7 - p.length()).exp()).collect();
        refine_by_density(&mesh, &mut normals, &density, 0.02);
        // Central differences are exact up to step²; f32 cancellation leaves about 1e-4.
        assert!(worst(&mesh, &normals) > 1.0 - 1e-5);
        let flat = |p: &[Vec3]| vec![1.0; p.len()];
        let kept = normals.clone();
        refine_by_density(&mesh, &mut normals, &flat, 0.02);
        assert_eq!(kept, normals);
    }
}
