//! Vertex normals for meshes that come without.

use std::collections::HashMap;

use glam::Vec3;

use super::Mesh;

/// Vertices with more triangles than this are smoothed without looking at creases, which would
/// take quadratic time.
const MAX_FAN: usize = 256;

/// Replaces `mesh.normals`: each corner gets the area-weighted mean of the faces around its
/// position that lie within `crease` degrees of its own face; 0 is flat shading. Vertices are
/// split where their corners disagree.
pub fn generate(mesh: &mut Mesh, crease: f32) {
    let faces: Vec<Vec3> = mesh.triangles.iter().map(|t| face(mesh, t)).collect();
    let mut around: HashMap<[u32; 3], Vec<u32>> = HashMap::new();
    if crease > 0.0 {
        for (number, triangle) in mesh.triangles.iter().enumerate() {
            for &corner in triangle {
                around.entry(key(mesh.positions[corner as usize])).or_default().push(number as u32);
            }
        }
    }
    let cosine = crease.to_radians().cos();
    let old = std::mem::take(mesh);
    *mesh = Mesh { material: old.material, ..Mesh::default() };
    let mut made: HashMap<(u32, [u32; 3]), u32> = HashMap::new();
    for (number, triangle) in old.triangles.iter().enumerate() {
        let own = faces[number].normalize_or(Vec3::Y);
        let corners = triangle.map(|corner| {
            let position = old.positions[corner as usize];
            let near = around.get(&key(position)).map_or(&[][..], Vec::as_slice);
            let sum: Vec3 = near
                .iter()
                .map(|&i| faces[i as usize])
                .filter(|f| near.len() > MAX_FAN || f.dot(own) >= cosine * f.length())
                .sum();
            let normal = sum.normalize_or(own);
            *made.entry((corner, key(normal))).or_insert_with(|| {
                mesh.positions.push(position);
                mesh.normals.push(normal);
                mesh.uvs.extend(old.uvs.get(corner as usize));
                mesh.colors.extend(old.colors.get(corner as usize));
                mesh.positions.len() as u32 - 1
            })
        });
        mesh.triangles.push(corners);
    }
}

/// Normal of a triangle, twice its area long.
fn face(mesh: &Mesh, triangle: &[u32; 3]) -> Vec3 {
    let [a, b, c] = triangle.map(|i| mesh.positions[i as usize]);
    (b - a).cross(c - a)
}

/// Equal for equal points; −0 counts as 0.
fn key(p: Vec3) -> [u32; 3] {
    (p + Vec3::ZERO).to_array().map(f32::to_bits)
}
