//! Size and position of whole assets, and several made one.

use glam::{Mat3, Mat4};

use super::Asset;

/// Centres `asset`'s bounding box at the origin and scales it so that its largest side is
/// `largest_side` world units. Assets without extent are only centred.
pub fn normalize(asset: &mut Asset, largest_side: f32) {
    let Some((low, high)) = asset.bounds() else { return };
    let extent = (high - low).max_element();
    let scale = if extent > 0.0 { largest_side / extent } else { 1.0 };
    let centre = 0.5 * (low + high);
    for position in asset.meshes.iter_mut().flat_map(|m| &mut m.positions) {
        *position = (*position - centre) * scale;
    }
}

impl Asset {
    /// Adds all of `other`, moved by the affine `transform`.
    pub fn append(&mut self, other: Self, transform: Mat4) {
        let (to_normals, materials) =
            (Mat3::from_mat4(transform).inverse().transpose(), self.materials.len());
        for mut mesh in other.meshes {
            mesh.positions.iter_mut().for_each(|p| *p = transform.transform_point3(*p));
            mesh.normals.iter_mut().for_each(|n| *n = (to_normals * *n).normalize_or_zero());
            if transform.determinant() < 0.0 {
                mesh.triangles.iter_mut().for_each(|t| t.swap(1, 2));
            }
            mesh.material += materials;
            self.meshes.push(mesh);
        }
        self.materials.extend(other.materials);
    }
}

#[cfg(test)]
mod tests {
    use glam::Vec3;

    use super::*;
    use crate::asset::{Material, Mesh};

    fn triangle() -> Asset {
        let mesh = Mesh {
            positions: vec![Vec3::ZERO, Vec3::X, Vec3::Y],
            normals: vec![Vec3::new(0.6, 0.0, 0.8); 3],
            triangles: vec![[0, 1, 2]],
            ..Mesh::default()
        };
        Asset { meshes: vec![mesh], materials: vec![Material::default()], ..Asset::default() }
    }

    #[test]
    fn appended_parts_are_moved_and_keep_their_materials() {
        let mut whole = triangle();
        let squeezed = Mat4::from_translation(Vec3::Z) * Mat4::from_scale(Vec3::new(2.0, 1.0, -1.0));
        whole.append(triangle(), squeezed);
        let [first, second] = &whole.meshes[..] else { panic!("{} meshes", whole.meshes.len()) };
        assert_eq!((first.material, second.material, whole.materials.len()), (0, 1, 2));
        assert_eq!(second.positions, [Vec3::Z, Vec3::new(2.0, 0.0, 1.0), Vec3::new(0.0, 1.0, 1.0)]);
        // A mirror turns triangles inside out; normals go by the inverse transpose.
        assert_eq!(second.triangles, [[0, 2, 1]]);
        let expected = Vec3::new(0.3, 0.0, -0.8).normalize();
        assert!((second.normals[0] - expected).length() < 1e-6, "{}", second.normals[0]);
    }
}
