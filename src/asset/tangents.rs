//! Tangents for normal maps, by `MikkTSpace`: the convention in which bakers and engines agree.

use std::collections::HashMap;

use bevy_mikktspace::{Geometry, TangentSpace, generate_tangents};

use super::Mesh;

struct Corners<'a> {
    part: &'a Mesh,
    tangents: Vec<[f32; 4]>,
}

impl Corners<'_> {
    fn vertex(&self, face: usize, corner: usize) -> usize {
        self.part.triangles[face][corner] as usize
    }
}

impl Geometry for Corners<'_> {
    fn num_faces(&self) -> usize {
        self.part.triangles.len()
    }

    fn num_vertices_of_face(&self, _: usize) -> usize {
        3
    }

    fn position(&self, face: usize, corner: usize) -> [f32; 3] {
        self.part.positions[self.vertex(face, corner)].to_array()
    }

    fn normal(&self, face: usize, corner: usize) -> [f32; 3] {
        self.part.normals[self.vertex(face, corner)].to_array()
    }

    fn tex_coord(&self, face: usize, corner: usize) -> [f32; 2] {
        // The algorithm counts v upwards, glTF downwards.
        let uv = self.part.uvs[self.vertex(face, corner)];
        [uv.x, 1.0 - uv.y]
    }

    fn set_tangent(&mut self, space: Option<TangentSpace>, face: usize, corner: usize) {
        self.tangents[3 * face + corner] = space.unwrap_or_default().tangent_encoded();
    }
}

/// The part with one tangent a vertex (`[x, y, z, ±1]`, the sign being that of the bitangent
/// `w · normal × tangent`): where corners that share a vertex disagree, the vertex is doubled. Nothing without
/// normals or texture coordinates.
pub(crate) fn with_tangents(part: &Mesh) -> Option<(Mesh, Vec<[f32; 4]>)> {
    if part.normals.is_empty() || part.uvs.is_empty() {
        return None;
    }
    let mut corners = Corners { part, tangents: vec![[1.0, 0.0, 0.0, 1.0]; 3 * part.triangles.len()] };
    generate_tangents(&mut corners).ok()?;
    let mut known: HashMap<(u32, [u32; 4]), u32> = HashMap::new();
    let (mut source, mut tangents) = (Vec::new(), Vec::new());
    let flat: Vec<u32> = part
        .triangles
        .as_flattened()
        .iter()
        .zip(&corners.tangents)
        .map(|(&v, tangent)| {
            *known.entry((v, tangent.map(f32::to_bits))).or_insert_with(|| {
                source.push(v as usize);
                tangents.push(unit(*tangent));
                source.len() as u32 - 1
            })
        })
        .collect();
    let mesh = Mesh {
        positions: source.iter().map(|&i| part.positions[i]).collect(),
        normals: source.iter().map(|&i| part.normals[i]).collect(),
        uvs: source.iter().map(|&i| part.uvs[i]).collect(),
        colors: if part.colors.is_empty() {
            Vec::new()
        } else {
            source.iter().map(|&i| part.colors[i]).collect()
        },
        triangles: flat.as_chunks::<3>().0.to_vec(),
        material: part.material,
    };
    Some((mesh, tangents))
}

fn unit([x, y, z, w]: [f32; 4]) -> [f32; 4] {
    let t = glam::Vec3::new(x, y, z).normalize_or(glam::Vec3::X);
    [t.x, t.y, t.z, if w < 0.0 { -1.0 } else { 1.0 }]
}

#[cfg(test)]
mod tests {
    use glam::{Vec2, Vec3};

    use super::*;

    fn quad(uvs: [Vec2; 4]) -> Mesh {
        Mesh {
            positions: vec![Vec3::ZERO, Vec3::X, Vec3::new(1.0, 1.0, 0.0), Vec3::Y],
            normals: vec![Vec3::Z; 4],
            uvs: uvs.to_vec(),
            triangles: vec![[0, 1, 2], [0, 2, 3]],
            ..Default::default()
        }
    }

    /// u to the right; v downwards, as pictures have it: the bitangent (towards −v) is up.
    #[test]
    fn a_square_and_its_mirror_image() {
        let upright = quad([Vec2::new(0.0, 1.0), Vec2::ONE, Vec2::X, Vec2::ZERO]);
        let (mesh, tangents) = with_tangents(&upright).unwrap();
        assert_eq!(mesh.positions.len(), 4);
        for (n, t) in mesh.normals.iter().zip(&tangents) {
            let tangent = Vec3::new(t[0], t[1], t[2]);
            assert!((tangent - Vec3::X).length() < 1e-6);
            assert!((t[3] * n.cross(tangent) - Vec3::Y).length() < 1e-6);
        }
        let mirrored = quad([Vec2::ONE, Vec2::new(0.0, 1.0), Vec2::ZERO, Vec2::X]);
        let (_, tangents) = with_tangents(&mirrored).unwrap();
        assert!(tangents.iter().all(|t| t[0] < -0.99 && t[3] == -1.0), "{tangents:?}");
        assert!(with_tangents(&Mesh { uvs: Vec::new(), ..upright }).is_none());
    }
}
