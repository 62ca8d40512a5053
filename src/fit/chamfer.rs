//! The Chamfer distance between two surfaces.

use std::collections::HashMap;

use glam::{IVec3, Vec3};
use rayon::prelude::*;

use crate::asset::Asset;
use crate::mesh::TriMesh;
use crate::mesh::topology::weld;
use crate::rng::{Rng, Stream};

/// Points on each surface: their mean spacing is a fifth of a percent of a compact shape's diagonal.
const POINTS: usize = 100_000;

/// The mean of the mean distances from each surface's points to the other's nearest, as a share of
/// `truth`'s bounding box's diagonal. All of both surfaces counts, hidden parts too. Two samplings of one
/// surface differ by about 0.1 %, which is the floor of the measure.
pub fn relative(asset: &Asset, truth: &Asset) -> f64 {
    let Some((low, high)) = truth.bounds() else { return f64::INFINITY };
    let diagonal = (high - low).length();
    let (a, b) = (sample(&weld(asset), POINTS, 0), sample(&weld(truth), POINTS, 1));
    if a.is_empty() || b.is_empty() || diagonal <= 0.0 {
        return f64::INFINITY;
    }
    let cell = 0.005 * diagonal;
    let mean = |from: &[Vec3], to: &Cells<'_>| {
        // Collected in order, so that the sum does not depend on the threads.
        let distances: Vec<f64> = from.par_iter().map(|p| f64::from(to.nearest(*p))).collect();
        distances.iter().sum::<f64>() / distances.len() as f64
    };
    let there = mean(&a, &Cells::new(&b, cell));
    let back = mean(&b, &Cells::new(&a, cell));
    0.5 * (there + back) / f64::from(diagonal)
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

/// Points by the cells of a grid.
struct Cells<'a> {
    points: &'a [Vec3],
    cell: f32,
    /// Looked up only, never iterated.
    map: HashMap<IVec3, Vec<u32>>,
    low: IVec3,
    high: IVec3,
}

impl<'a> Cells<'a> {
    fn new(points: &'a [Vec3], cell: f32) -> Self {
        let mut map: HashMap<IVec3, Vec<u32>> = HashMap::new();
        let (mut low, mut high) = (IVec3::MAX, IVec3::MIN);
        for (i, p) in points.iter().enumerate() {
            let key = (*p / cell).floor().as_ivec3();
            (low, high) = (low.min(key), high.max(key));
            map.entry(key).or_default().push(i as u32);
        }
        Self { points, cell, map, low, high }
    }

    /// Distance to the nearest point: shells of cells around `p`, until no nearer one can follow.
    fn nearest(&self, p: Vec3) -> f32 {
        let home = (p / self.cell).floor().as_ivec3();
        // Shells that cannot touch the points' cells are skipped.
        let outside = (self.low - home).max(home - self.high).max_element().max(0);
        let mut best = f32::INFINITY;
        let last = (home - self.low).abs().max((self.high - home).abs()).max_element();
        for r in outside..=last {
            if best <= (r - 1).max(0) as f32 * self.cell {
                break;
            }
            self.shell(home, r, |i| best = best.min(self.points[i as usize].distance(p)));
        }
        best
    }

    fn shell(&self, home: IVec3, r: i32, mut visit: impl FnMut(u32)) {
        let span = |axis: usize| (-r).max(self.low[axis] - home[axis])..=r.min(self.high[axis] - home[axis]);
        for z in span(2) {
            for y in span(1) {
                let face = z.abs() == r || y.abs() == r;
                for x in span(0) {
                    if face || x.abs() == r {
                        self.map
                            .get(&(home + IVec3::new(x, y, z)))
                            .into_iter()
                            .flatten()
                            .for_each(|i| visit(*i));
                    }
                }
            }
        }
    }
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
        assert!(same < 0.002, "{same}");
        // A cube larger by d on every side: d from its faces, and more only near edges and corners.
        let d = 0.05f32;
        let far = relative(&cube(1.0 + 2.0 * d, Vec3::splat(-d)), &truth) * 3f64.sqrt();
        assert!((0.05..0.0525).contains(&far), "{far}");
        assert!(relative(&Asset::default(), &truth).is_infinite());
    }

    #[test]
    fn the_nearest_point_is_that_of_a_full_search() {
        let rng = Rng::new(5, Stream::Probe, 9);
        let point = |i: u64, s: f32| Vec3::from_array([0, 1, 2].map(|c| rng.range(3 * i + c, -s, s)));
        let points: Vec<Vec3> = (0..300).map(|i| point(i, 1.0)).collect();
        let cells = Cells::new(&points, 0.21);
        for i in 0..200 {
            let p = point(1000 + i, 3.0);
            let want = points.iter().map(|q| q.distance(p)).fold(f32::INFINITY, f32::min);
            assert_eq!(cells.nearest(p), want, "{p}");
        }
    }
}
