//! Connected components and degenerate triangles.

use glam::Vec3;

use super::TriMesh;
use super::collapse::{Collapser, SLIVER};
use super::topology::volume_of;

/// What [`keep_solids`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Components {
    /// Components before.
    pub found: usize,
    /// Components left.
    pub kept: usize,
    /// Components that faced inwards (walls of cavities, never visible) and were dropped.
    pub cavities: usize,
}

/// Component number of every triangle, counted in the order of first appearance.
pub fn components(mesh: &TriMesh) -> (Vec<usize>, usize) {
    let mut parent: Vec<u32> = (0..mesh.positions.len() as u32).collect();
    for &[a, b, c] in &mesh.triangles {
        for other in [b, c] {
            let (x, y) = (root(&mut parent, a), root(&mut parent, other));
            parent[x.max(y) as usize] = x.min(y);
        }
    }
    let mut number = vec![usize::MAX; mesh.positions.len()];
    let mut count = 0;
    let labels = mesh
        .triangles
        .iter()
        .map(|t| {
            let slot = &mut number[root(&mut parent, t[0]) as usize];
            if *slot == usize::MAX {
                *slot = count;
                count += 1;
            }
            *slot
        })
        .collect();
    (labels, count)
}

fn root(parent: &mut [u32], mut v: u32) -> u32 {
    while parent[v as usize] != v {
        parent[v as usize] = parent[parent[v as usize] as usize];
        v = parent[v as usize];
    }
    v
}

/// Keeps the closed components that enclose at least `fraction` of the largest one's volume.
/// Components with a negative volume are walls of cavities: they go as well.
pub fn keep_solids(mesh: &mut TriMesh, fraction: f64) -> Components {
    let (labels, found) = components(mesh);
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); found];
    labels.iter().enumerate().for_each(|(t, &c)| members[c].push(t));
    let volumes: Vec<f64> = members.iter().map(|m| volume_of(mesh, m.iter().copied())).collect();
    let largest = volumes.iter().copied().fold(0.0, f64::max);
    let keep: Vec<bool> = volumes.iter().map(|&v| v > 0.0 && v >= fraction * largest).collect();
    let mut label = labels.iter();
    mesh.triangles.retain(|_| label.next().is_some_and(|&c| keep[c]));
    mesh.compact();
    Components {
        found,
        kept: keep.iter().filter(|k| **k).count(),
        cavities: volumes.iter().filter(|v| **v < 0.0).count(),
    }
}

/// Collapses away triangles lower than `height` (world units) where this keeps the surface a
/// manifold and folds nothing over; returns how many collapses it took. Marching cubes leaves
/// such needles and caps where the surface passes close to a grid point.
pub fn remove_slivers(mesh: &mut TriMesh, height: f32) -> usize {
    let triangles = mesh.triangles.len();
    let mut work = Collapser::new(std::mem::take(mesh));
    let mut collapsed = 0;
    // A collapse can free its neighbours or (rarely) make a new sliver: a few rounds settle it.
    for _ in 0..4 {
        let before = collapsed;
        for t in 0..triangles {
            if let Some(corners) = work.triangle(t)
                && height_of(corners.map(|v| work.position(v))) < height
            {
                collapsed += usize::from(collapse_an_edge(&mut work, corners));
            }
        }
        if collapsed == before {
            break;
        }
    }
    *mesh = work.finish();
    collapsed
}

/// Collapses the shortest edge that allows it, to its middle or else to one of its ends.
fn collapse_an_edge(work: &mut Collapser, [a, b, c]: [u32; 3]) -> bool {
    let mut edges = [(a, b), (b, c), (c, a)];
    let length = |w: &Collapser, e: (u32, u32)| w.position(e.0).distance_squared(w.position(e.1));
    edges.sort_by(|p, q| length(work, *p).total_cmp(&length(work, *q)));
    for (a, b) in edges {
        let (pa, pb) = (work.position(a), work.position(b));
        if let Some(to) =
            [pa.midpoint(pb), pa, pb].into_iter().find(|to| work.may_collapse(a, b, *to, SLIVER))
        {
            work.collapse(a, b, to);
            return true;
        }
    }
    false
}

/// Smallest height of a triangle (twice its area over its longest side); 0 for a degenerate one.
fn height_of([a, b, c]: [Vec3; 3]) -> f32 {
    let longest = a.distance(b).max(b.distance(c)).max(c.distance(a));
    if longest > 0.0 { (b - a).cross(c - a).length() / longest } else { 0.0 }
}

/// Smallest height of the mesh's triangles, world units; infinite for an empty mesh.
pub fn smallest_height(mesh: &TriMesh) -> f32 {
    (0..mesh.triangles.len()).map(|t| height_of(mesh.corners(t))).fold(f32::INFINITY, f32::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::iso::extract;
    use crate::mesh::testing::{grid_of, noise_grid, sphere};
    use crate::mesh::topology::{euler_characteristic, is_manifold, is_watertight, signed_volume};

    #[test]
    fn debris_and_cavities_go_large_parts_stay() {
        let ball = |p: Vec3, c: Vec3, r: f32| r - (p - c).length();
        let grid = grid_of(60, |p| {
            let hollow = ball(p, Vec3::NEG_X * 0.4, 0.4).min(-ball(p, Vec3::NEG_X * 0.4, 0.25));
            hollow.max(ball(p, Vec3::X * 0.5, 0.3)).max(ball(p, Vec3::splat(0.7), 0.06))
        });
        let mut mesh = extract(&grid, 0.0);
        let report = keep_solids(&mut mesh, 0.02);
        assert_eq!(report, Components { found: 4, kept: 2, cavities: 1 });
        assert!(is_watertight(&mesh));
        assert_eq!(euler_characteristic(&mesh), 4);
        let exact = 4.0 / 3.0 * std::f64::consts::PI * (0.4f64.powi(3) + 0.3f64.powi(3));
        assert!((signed_volume(&mesh) / exact - 1.0).abs() < 0.02);
    }

    #[test]
    fn slivers_collapse_without_harm() {
        let mut mesh = sphere(40, 0.7);
        let (spacing, before) = (0.05, smallest_height(&mesh));
        let volume = signed_volume(&mesh);
        assert!(remove_slivers(&mut mesh, 0.1 * spacing) > 10);
        assert!(is_watertight(&mesh) && is_manifold(&mesh));
        assert_eq!(euler_characteristic(&mesh), 2);
        assert!(smallest_height(&mesh) > 10.0 * before, "{} {before}", smallest_height(&mesh));
        assert!((signed_volume(&mesh) / volume - 1.0).abs() < 1e-3);
    }

    #[test]
    fn noise_stays_a_closed_manifold() {
        for seed in 0..4 {
            let mut mesh = extract(&noise_grid(14, seed), 0.0);
            let genus = euler_characteristic(&mesh);
            let n = remove_slivers(&mut mesh, 0.01);
            assert!(n > 50, "{n}");
            assert!(is_watertight(&mesh) && is_manifold(&mesh), "seed {seed}");
            assert_eq!(euler_characteristic(&mesh), genus);
            assert!(smallest_height(&mesh) > 0.0);
        }
    }
}
