//! Invariants of closed surfaces: watertightness, manifoldness, Euler characteristic, volume.

use std::collections::HashMap;

use glam::Vec3;

use super::TriMesh;
use crate::asset::Asset;

/// Undirected edges with their use: `(low vertex, high vertex, forward uses, backward uses)`,
/// sorted by vertices.
pub fn edges(mesh: &TriMesh) -> Vec<(u32, u32, u32, u32)> {
    let mut half: Vec<(u32, u32, bool)> = mesh
        .triangles
        .iter()
        .flat_map(|&[a, b, c]| [(a, b), (b, c), (c, a)])
        .map(|(a, b)| (a.min(b), a.max(b), a < b))
        .collect();
    half.sort_unstable();
    half.chunk_by(|p, q| (p.0, p.1) == (q.0, q.1))
        .map(|uses| {
            let forward = uses.iter().filter(|u| u.2).count() as u32;
            (uses[0].0, uses[0].1, forward, uses.len() as u32 - forward)
        })
        .collect()
}

/// True if the mesh is not empty and every edge has exactly two triangles that run along it in
/// opposite directions: closed and consistently oriented.
pub fn is_watertight(mesh: &TriMesh) -> bool {
    !mesh.triangles.is_empty() && edges(mesh).iter().all(|e| (e.2, e.3) == (1, 1))
}

/// True if no edge has more than two triangles, no triangle repeats a vertex, and the triangles
/// at every vertex form one fan (closed or open).
pub fn is_manifold(mesh: &TriMesh) -> bool {
    non_manifold_vertices(mesh).is_empty()
}

/// Vertices at which [`is_manifold`] fails, ascending.
pub fn non_manifold_vertices(mesh: &TriMesh) -> Vec<u32> {
    let mut bad: Vec<u32> = edges(mesh)
        .iter()
        .filter(|e| e.0 == e.1 || e.2 > 1 || e.3 > 1)
        .flat_map(|e| [e.0, e.1])
        .chain(split_fans(mesh))
        .collect();
    bad.sort_unstable();
    bad.dedup();
    bad
}

/// Vertices whose triangles fall into more than one fan (bow ties).
fn split_fans(mesh: &TriMesh) -> Vec<u32> {
    // The link of a vertex is the set of edges opposite to it; one fan ⇔ the link is connected.
    let mut link: Vec<[u32; 3]> =
        mesh.triangles.iter().flat_map(|&[a, b, c]| [[a, b, c], [b, c, a], [c, a, b]]).collect();
    link.sort_unstable();
    link.chunk_by(|p, q| p[0] == q[0]).filter(|l| !connected(l)).map(|l| l[0][0]).collect()
}

/// True if the edges `[_, from, to]` form one connected graph.
fn connected(link: &[[u32; 3]]) -> bool {
    let mut reached = vec![link[0][1]];
    let mut left: Vec<[u32; 2]> = link.iter().map(|e| [e[1], e[2]]).collect();
    let mut cursor = 0;
    while cursor < reached.len() {
        let v = reached[cursor];
        cursor += 1;
        left.retain(|e| {
            let touches = e.contains(&v);
            if touches {
                reached.push(if e[0] == v { e[1] } else { e[0] });
            }
            !touches
        });
    }
    left.is_empty()
}

/// V − E + F over the vertices in use: 2 − 2·genus per closed component.
pub fn euler_characteristic(mesh: &TriMesh) -> i64 {
    let mut used: Vec<u32> = mesh.triangles.iter().flatten().copied().collect();
    used.sort_unstable();
    used.dedup();
    used.len() as i64 - edges(mesh).len() as i64 + mesh.triangles.len() as i64
}

/// Enclosed volume by the divergence theorem, positive when the triangles face outwards.
pub fn signed_volume(mesh: &TriMesh) -> f64 {
    volume_of(mesh, 0..mesh.triangles.len())
}

/// The signed volume below the triangles `which`.
pub(super) fn volume_of(mesh: &TriMesh, which: impl IntoIterator<Item = usize>) -> f64 {
    which
        .into_iter()
        .map(|t| {
            let [a, b, c] = mesh.corners(t).map(Vec3::as_dvec3);
            a.dot(b.cross(c)) / 6.0
        })
        .sum()
}

/// Surface area.
pub fn area(mesh: &TriMesh) -> f64 {
    (0..mesh.triangles.len()).map(|t| f64::from(mesh.area_vector(t).length()) / 2.0).sum()
}

/// All parts of an asset as one surface whose bit-identical positions are merged: vertices
/// that are duplicated for texture seams or hard edges become one again.
pub fn weld(asset: &Asset) -> TriMesh {
    let mut mesh = TriMesh::default();
    let mut known = HashMap::new();
    for part in &asset.meshes {
        let remap: Vec<u32> = part
            .positions
            .iter()
            .map(|p| {
                // Adding zero makes -0 and +0 the same bits.
                *known.entry((*p + Vec3::ZERO).to_array().map(f32::to_bits)).or_insert_with(|| {
                    mesh.positions.push(*p);
                    mesh.positions.len() as u32 - 1
                })
            })
            .collect();
        mesh.triangles.extend(part.triangles.iter().map(|t| t.map(|v| remap[v as usize])));
    }
    mesh
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::testing::{cube, sphere};

    #[test]
    fn the_cube() {
        let mesh = cube();
        assert!(is_watertight(&mesh) && is_manifold(&mesh));
        assert_eq!(euler_characteristic(&mesh), 2);
        assert!((signed_volume(&mesh) - 1.0).abs() < 1e-6);
        assert!((area(&mesh) - 6.0).abs() < 1e-6);
    }

    #[test]
    fn a_hole_a_flip_and_a_fin_are_seen() {
        let mut open = cube();
        open.triangles.pop();
        assert!(!is_watertight(&open) && is_manifold(&open));
        let mut flipped = cube();
        flipped.triangles[3].swap(0, 1);
        assert!(!is_watertight(&flipped) && !is_manifold(&flipped));
        let mut fin = cube();
        fin.positions.push(Vec3::splat(3.0));
        fin.triangles.push([0, 1, 8]);
        assert!(!is_watertight(&fin) && !is_manifold(&fin));
    }

    #[test]
    fn two_spheres_that_touch_in_one_vertex_are_watertight_but_not_manifold() {
        let mut mesh = sphere(8, 0.5);
        let offset = mesh.positions.len() as u32;
        let copy: Vec<[u32; 3]> = mesh.triangles.iter().map(|t| t.map(|v| v + offset)).collect();
        mesh.positions.extend_from_within(..);
        mesh.triangles.extend(copy);
        assert!(is_manifold(&mesh));
        mesh.triangles.iter_mut().flatten().filter(|v| **v == offset).for_each(|v| *v = 0);
        assert!(is_watertight(&mesh));
        assert_eq!(non_manifold_vertices(&mesh), [0]);
    }
}
