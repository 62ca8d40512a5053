//! The Chamfer distance between two surfaces.

use glam::Vec3;
use rayon::prelude::*;

use crate::asset::Asset;
use crate::mesh::TriMesh;
use crate::mesh::implicit::init::Tree;
use crate::mesh::topology::weld;
use crate::rng::{Rng, Stream};

/// Points on each surface.
const POINTS: usize = 50_000;

/// The mean of the mean distances from points of each surface to the other surface, as a share of
/// `truth`'s bounding box's diagonal. All of both surfaces counts, hidden parts too.
pub fn relative(asset: &Asset, truth: &Asset) -> f64 {
    let Some((low, high)) = truth.bounds() else { return f64::INFINITY };
    let diagonal = (high - low).length();
    let (asset, truth) = (weld(asset), weld(truth));
    let mean = |from: &TriMesh, stream: u32, to: &TriMesh| {
        let tree = Tree::new(to);
        let points = sample(from, POINTS, stream);
        // Collected in order, so that the sum does not depend on the threads.
        let distances: Vec<f64> = points.par_iter().map(|p| tree.distance(p.as_dvec3())).collect();
        // 0 / 0 for a mesh without area: it is as far as can be.
        let mean = distances.iter().sum::<f64>() / distances.len() as f64;
        if mean.is_nan() { f64::INFINITY } else { mean }
    };
    0.5 * (mean(&asset, 0, &truth) + mean(&truth, 1, &asset)) / f64::from(diagonal)
}

/// `count` points, uniform on the surface (stratified over its area).
fn sample(mesh: &TriMesh, count: usize, stream: u32) -> Vec<Vec3> {
    let mut total = 0.0;
    let sums: Vec<f64> = (0..mesh.triangles.len())
        .map(|t| {
            total += f64::from(mesh.area_vector(t).length());
            total
        })
        .collect();
    if total.is_nan() || total <= 0.0 {
        return Vec::new();
    }
    let rng = Rng::new(0, Stream::Probe, stream);
    (0..count)
        .map(|i| {
            let [a, b, c, _] = rng.words(i as u64).map(|w| (w >> 8) as f32 / 16_777_216.0);
            let at = (i as f64 + f64::from(a)) / count as f64 * total;
            let t = sums.partition_point(|s| *s <= at).min(sums.len() - 1);
            let [p, q, r] = mesh.corners(t);
            let (root, c) = (b.sqrt(), c);
            p * (1.0 - root) + q * (root * (1.0 - c)) + r * (root * c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asset::{Material, Mesh};

    /// The cube [0, side]³ moved by `at`.
    fn cube(side: f32, at: Vec3) -> Asset {
        let corner = |c: u32| at + side * Vec3::new((c & 1) as f32, (c >> 1 & 1) as f32, (c >> 2) as f32);
        let quads = [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]];
        let mesh = Mesh {
            positions: (0..8).map(corner).collect(),
            triangles: quads.iter().flat_map(|&[a, b, c, d]| [[a, b, c], [a, c, d]]).collect(),
            ..Mesh::default()
        };
        Asset { meshes: vec![mesh], materials: vec![Material::default()], ..Asset::default() }
    }

    #[test]
    fn a_surface_is_near_itself_and_as_far_from_a_larger_one_as_it_is() {
        let truth = cube(1.0, Vec3::ZERO);
        let same = relative(&truth, &truth);
        assert!(same < 1e-6, "{same}");
        // A cube larger by d on every side: d from its faces, and more only near edges and corners.
        let d = 0.05f32;
        let far = relative(&cube(1.0 + 2.0 * d, Vec3::splat(-d)), &truth) * 3f64.sqrt();
        assert!((0.0502..0.0512).contains(&far), "{far}");
        assert!(relative(&Asset::default(), &truth).is_infinite());
    }
}
