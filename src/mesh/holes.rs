//! Closing holes: every boundary loop gets a cap.

use std::collections::BTreeMap;

use glam::Vec3;

use super::TriMesh;
use super::topology::edges;

/// Caps every boundary loop (one triangle, or a fan around the loop's centroid) and returns how
/// many there were. The surface from [`super::iso`] has none; other meshes may.
pub fn fill_holes(mesh: &mut TriMesh) -> usize {
    // A hole runs against the triangles that border it: from the end of a half-edge to its start.
    let mut next: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (low, high, forward, backward) in edges(mesh) {
        match (forward, backward) {
            (1, 0) => next.entry(high).or_default().push(low),
            (0, 1) => next.entry(low).or_default().push(high),
            _ => {}
        }
    }
    let mut filled = 0;
    while let Some(ring) = take_loop(&mut next) {
        cap(mesh, &ring);
        filled += 1;
    }
    filled
}

/// Removes one closed walk from the boundary; walks that do not close are dropped.
fn take_loop(next: &mut BTreeMap<u32, Vec<u32>>) -> Option<Vec<u32>> {
    loop {
        let start = *next.iter().find(|(_, ends)| !ends.is_empty())?.0;
        let mut ring = vec![start];
        let mut at = start;
        while let Some(to) = next.get_mut(&at).and_then(Vec::pop) {
            // At a bow tie the walk returns early: close the small loop, leave the rest.
            if to == start {
                break;
            }
            ring.push(to);
            at = to;
        }
        next.retain(|_, ends| !ends.is_empty());
        if ring.len() >= 3 {
            return Some(ring);
        }
    }
}

fn cap(mesh: &mut TriMesh, ring: &[u32]) {
    if let &[a, b, c] = ring {
        mesh.triangles.push([a, b, c]);
        return;
    }
    let sum: Vec3 = ring.iter().map(|&v| mesh.positions[v as usize]).sum();
    let centre = mesh.positions.len() as u32;
    mesh.positions.push(sum / ring.len() as f32);
    for i in 0..ring.len() {
        mesh.triangles.push([ring[i], ring[(i + 1) % ring.len()], centre]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::testing::{cube, sphere};
    use crate::mesh::topology::{euler_characteristic, is_watertight, signed_volume};

    #[test]
    fn a_missing_face_and_a_cut_off_cap_are_closed() {
        let mut mesh = cube();
        mesh.triangles.truncate(10);
        mesh.triangles.remove(8);
        assert_eq!(fill_holes(&mut mesh), 2);
        assert!(is_watertight(&mesh));
        assert!((signed_volume(&mesh) - 1.0).abs() < 1e-6);

        let mut dome = sphere(20, 0.8);
        let kept: Vec<[u32; 3]> = dome
            .triangles
            .iter()
            .filter(|t| t.iter().any(|&v| dome.positions[v as usize].y < 0.5))
            .copied()
            .collect();
        dome.triangles = kept;
        dome.compact();
        assert!(!is_watertight(&dome));
        assert_eq!(fill_holes(&mut dome), 1);
        assert!(is_watertight(&dome));
        assert_eq!(euler_characteristic(&dome), 2);
    }
}
