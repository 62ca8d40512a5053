//! Final placement in the game's world.

use glam::Vec3;

use super::TriMesh;

/// Scales the mesh so that its largest side is `side` metres, centres it in x and z, and puts
/// its lowest point on y = 0. The orientation stays (+Y up, front +Z).
pub fn rest_on_ground(mesh: &mut TriMesh, side: f32) {
    let Some(&first) = mesh.positions.first() else { return };
    let (low, high) = mesh.positions.iter().fold((first, first), |(l, h), p| (l.min(*p), h.max(*p)));
    let extent = (high - low).max_element();
    let scale = if extent > 0.0 { side / extent } else { 1.0 };
    let foot = low.midpoint(high).with_y(low.y);
    mesh.positions.iter_mut().for_each(|p| *p = scale * (*p - foot));
    debug_assert!(mesh.positions.iter().all(|p: &Vec3| p.y >= 0.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_centred_with_the_given_side() {
        let mut mesh = TriMesh {
            positions: vec![Vec3::new(-0.5, -0.3, 0.2), Vec3::new(0.1, 0.9, 0.4), Vec3::new(0.0, 0.0, 0.6)],
            triangles: vec![[0, 1, 2]],
        };
        rest_on_ground(&mut mesh, 2.0);
        let (low, high) =
            mesh.positions.iter().fold((Vec3::MAX, Vec3::MIN), |(l, h), p| (l.min(*p), h.max(*p)));
        assert_eq!(low.y, 0.0);
        assert!((high.y - 2.0).abs() < 1e-6);
        assert!((low + high).with_y(0.0).length() < 1e-6);
        rest_on_ground(&mut TriMesh::default(), 1.0);
    }
}
