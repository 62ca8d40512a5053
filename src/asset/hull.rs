//! The collision shape of an asset: its convex hull.

use std::collections::BTreeSet;

use glam::Vec3;
use parry3d::transformation::try_convex_hull;

use super::{Asset, Mesh};
use crate::{Error, Result};

/// Physics engines take convex shapes of at most this many vertices.
pub const MAX_VERTICES: usize = 255;

/// The convex hull of all vertices, without attributes. One with more than [`MAX_VERTICES`] vertices is replaced
/// by the hull of the outermost vertices in as many directions, which lies within it.
///
/// # Errors
/// [`Error::Failed`] if all vertices lie in one plane.
pub fn convex_hull(asset: &Asset) -> Result<Asset> {
    let points: Vec<Vec3> = asset.meshes.iter().flat_map(|m| &m.positions).copied().collect();
    let mut mesh = hull(&points)?;
    if mesh.positions.len() > MAX_VERTICES {
        mesh = hull(&outermost(&mesh.positions))?;
    }
    Ok(Asset { meshes: vec![mesh], ..Default::default() })
}

fn hull(points: &[Vec3]) -> Result<Mesh> {
    let flat = || {
        Error::Failed("the asset has no convex hull: its vertices lie in one plane".into())
            .hint("a flat model has no volume to collide with; leave the collision shape out")
    };
    let input: Vec<_> = points.iter().map(|p| p.to_array().into()).collect();
    let (positions, triangles) = try_convex_hull(&input).map_err(|_| flat())?;
    let positions: Vec<Vec3> = positions.into_iter().map(|p| Vec3::from(<[f32; 3]>::from(p))).collect();
    let mesh = Mesh { positions, triangles, ..Default::default() };
    // Of points in a plane the library makes a polygon with two sides.
    if is_solid(&mesh) { Ok(mesh) } else { Err(flat()) }
}

/// True if a millionth of the cube around it is enclosed.
fn is_solid(mesh: &Mesh) -> bool {
    let Some((low, high)) = (Asset { meshes: vec![mesh.clone()], ..Default::default() }).bounds() else {
        return false;
    };
    let below = |t: &[u32; 3]| {
        let [a, b, c] = t.map(|v| (mesh.positions[v as usize] - low).as_dvec3());
        a.dot(b.cross(c)) / 6.0
    };
    let volume: f64 = mesh.triangles.iter().map(below).sum();
    volume > 1e-6 * f64::from((high - low).max_element()).powi(3)
}

/// The vertices farthest in directions spread evenly over the sphere (Fibonacci's spiral).
fn outermost(points: &[Vec3]) -> Vec<Vec3> {
    let golden = std::f32::consts::PI * (3.0 - 5f32.sqrt());
    let direction = |i: usize| {
        let z = 1.0 - (2.0 * i as f32 + 1.0) / MAX_VERTICES as f32;
        let (sin, cos) = (golden * i as f32).sin_cos();
        let r = (1.0 - z * z).sqrt();
        Vec3::new(r * cos, r * sin, z)
    };
    let farthest = |d: Vec3| (0..points.len()).max_by(|&a, &b| points[a].dot(d).total_cmp(&points[b].dot(d)));
    let chosen: BTreeSet<usize> = (0..MAX_VERTICES).filter_map(|i| farthest(direction(i))).collect();
    chosen.into_iter().map(|i| points[i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::testing::sphere;
    use crate::mesh::topology::{is_watertight, signed_volume, weld};

    fn asset(positions: Vec<Vec3>) -> Asset {
        Asset { meshes: vec![Mesh { positions, ..Default::default() }], ..Default::default() }
    }

    /// How far a point lies outside of the hull's planes.
    fn outside(hull: &Mesh, p: Vec3) -> f32 {
        let plane = |t: &[u32; 3]| {
            let [a, b, c] = t.map(|v| hull.positions[v as usize]);
            (b - a).cross(c - a).normalize().dot(p - a)
        };
        hull.triangles.iter().map(plane).fold(f32::MIN, f32::max)
    }

    #[test]
    fn a_cube_with_points_inside_is_a_cube() {
        let corner = |i: usize| Vec3::new((i & 1) as f32, (i >> 1 & 1) as f32, (i >> 2) as f32);
        let mut points: Vec<Vec3> = (0..8).map(corner).collect();
        points.extend([Vec3::splat(0.5), Vec3::new(0.2, 0.9, 0.4)]);
        let hull = convex_hull(&asset(points.clone())).unwrap();
        assert_eq!((hull.meshes[0].positions.len(), hull.triangle_count()), (8, 12));
        assert!((signed_volume(&weld(&hull)) - 1.0).abs() < 1e-6);
        assert!(points.iter().all(|p| outside(&hull.meshes[0], *p) < 1e-6));
    }

    #[test]
    fn a_ball_keeps_to_the_limit_and_nearly_to_its_volume() {
        let ball = sphere(48, 0.7);
        let volume = signed_volume(&ball);
        let hull = convex_hull(&asset(ball.positions)).unwrap();
        let welded = weld(&hull);
        assert!(welded.positions.len() <= MAX_VERTICES && welded.positions.len() > 200);
        assert!(is_watertight(&welded));
        let share = signed_volume(&welded) / volume;
        assert!(share > 0.95 && share <= 1.0001, "{share}");
        let worst = welded.positions.iter().map(|p| outside(&hull.meshes[0], *p)).fold(f32::MIN, f32::max);
        assert!(worst < 1e-5, "convex: {worst}");
    }

    #[test]
    fn flat_things_have_none() {
        let flat = vec![Vec3::ZERO, Vec3::X, Vec3::Y, Vec3::new(1.0, 1.0, 0.0)];
        for points in [flat, Vec::new(), vec![Vec3::ONE; 5]] {
            let hull = convex_hull(&asset(points));
            assert!(hull.is_err_and(|e| e.hint_text().is_some()));
        }
    }
}
