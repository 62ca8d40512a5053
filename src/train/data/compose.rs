//! Scenes: "X on Y" with contact, "X next to Y" on one ground, several of one kind.

use std::f32::consts::PI;
use std::sync::Arc;

use glam::{Mat4, Vec3};

use super::caption::Relation;
use crate::render::camera::Camera;
use crate::render::light::Lighting;
use crate::render::raster::{Instance, PreparedAsset, render_scene};

/// Largest side of every training scene, world units (the camera rig is made for it).
pub(super) const LARGEST_SIDE: f32 = 1.2;

/// Share of its own height by which anything sinks into what it stands on, so that no light shows
/// between a rounded foot and a rounded top.
pub(super) const SINK: f32 = 0.02;

/// Bounds of an asset, centred at the origin if it is empty.
fn bounds(asset: &PreparedAsset) -> (Vec3, Vec3) {
    asset.bounds().unwrap_or((Vec3::ZERO, Vec3::ZERO))
}

/// Highest point of `asset` under a disc of `radius` around the vertical axis through its centre,
/// seen from far above (so nearly in parallel projection).
pub(super) fn support_height(asset: &PreparedAsset, radius: f32) -> f32 {
    let (low, high) = bounds(asset);
    let centre = 0.5 * (low + high);
    let distance = 40.0;
    let target = Vec3::new(centre.x, 0.0, centre.z);
    let camera = Camera::orbit(0.0, 90.0, distance, target, 2.0 * (radius / distance).atan(), 24);
    let flat = Lighting::flat();
    let frame = render_scene(&[Instance::new(asset, Mat4::IDENTITY)], &camera, &flat, Vec3::ZERO, 1);
    let tops = frame.depth.iter().zip(&frame.opacity).filter(|(_, o)| **o > 0.5).map(|(d, _)| distance - d);
    tops.fold(f32::NEG_INFINITY, f32::max).clamp(low.y, high.y)
}

/// Transforms of both things. `share` is the size of the first (largest side) over the second's,
/// `sink` the share of its height by which the first sinks into the second if it stands on it (at least
/// [`SINK`]).
pub(super) fn place(
    first: &PreparedAsset,
    second: &PreparedAsset,
    relation: Relation,
    share: f32,
    sink: f32,
) -> [Mat4; 2] {
    let ((low1, high1), (low2, high2)) = (bounds(first), bounds(second));
    let side = |low: Vec3, high: Vec3| (high - low).max_element().max(1e-6);
    let scale = share * side(low2, high2) / side(low1, high1);
    let foot = Vec3::new(0.5 * (low1.x + high1.x), low1.y, 0.5 * (low1.z + high1.z)) * scale;
    let size = (high1 - low1) * scale;
    let target = match relation {
        Relation::On | Relation::Carrying => {
            let radius = 0.25 * size.x.min(size.z).max(0.2 * size.max_element());
            let top = support_height(second, radius);
            Vec3::new(0.5 * (low2.x + high2.x), top - sink.max(SINK) * size.y, 0.5 * (low2.z + high2.z))
        }
        Relation::NextTo | Relation::Beside => {
            let gap = 0.08 * size.x.max(high2.x - low2.x);
            Vec3::new(low2.x - gap - 0.5 * size.x, low2.y, 0.5 * (low2.z + high2.z))
        }
    };
    let first = Mat4::from_translation(target - foot) * Mat4::from_scale(Vec3::splat(scale));
    [first, Mat4::IDENTITY]
}

/// Bounds of everything in `scene`.
fn bounds_of(scene: &[Instance<'_>]) -> (Vec3, Vec3) {
    let (mut low, mut high) = (Vec3::INFINITY, Vec3::NEG_INFINITY);
    for instance in scene {
        let (a, b) = bounds(instance.asset);
        for corner in 0..8 {
            let pick = |bit: u32, a: f32, b: f32| if corner & bit == 0 { a } else { b };
            let p = Vec3::new(pick(1, a.x, b.x), pick(2, a.y, b.y), pick(4, a.z, b.z));
            let p = instance.transform.transform_point3(p);
            (low, high) = (low.min(p), high.max(p));
        }
    }
    (low, high)
}

/// Where `asset` stands to the right (+X) of all that is in `scene`, on the same ground; its largest
/// side is `share` times theirs.
pub(super) fn right_of(asset: &PreparedAsset, scene: &[Instance<'_>], share: f32) -> Mat4 {
    let ((low, high), (left, right)) = (bounds(asset), bounds_of(scene));
    let scale = share * (right - left).max_element() / (high - low).max_element().max(1e-6);
    let foot = Vec3::new(0.5 * (low.x + high.x), low.y, 0.5 * (low.z + high.z)) * scale;
    let size = (high - low) * scale;
    let gap = 0.08 * size.x.max(right.x - left.x);
    let target = Vec3::new(right.x + gap + 0.5 * size.x, left.y, 0.5 * (left.z + right.z));
    Mat4::from_translation(target - foot) * Mat4::from_scale(Vec3::splat(scale))
}

/// Two to four things of one kind on one ground: side by side, or in two rows. All get the same size;
/// each is turned by its angle of `yaws` (degrees).
pub(super) fn arrange(assets: &[Arc<PreparedAsset>], yaws: &[f32]) -> Vec<Mat4> {
    // Rows from the back to the front, in units of the distance between neighbours.
    let places: &[[f32; 2]] = match assets.len() {
        0 | 1 => &[[0.0, 0.0]],
        2 => &[[-0.5, 0.0], [0.5, 0.0]],
        3 => &[[-0.5, -0.4], [0.5, -0.4], [0.0, 0.45]],
        _ => &[[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]],
    };
    let stand = |asset: &Arc<PreparedAsset>, place: &[f32; 2], yaw: f32| {
        let (low, high) = bounds(asset);
        let size = high - low;
        let scale = 1.0 / size.max_element().max(1e-6);
        let foot = Vec3::new(0.5 * (low.x + high.x), low.y, 0.5 * (low.z + high.z));
        // Wide enough for any turn that `yaws` make of a thing with a front.
        let step = (1.12 * size.x.max(size.z) * scale).clamp(0.45, 1.15);
        Mat4::from_translation(Vec3::new(place[0], 0.0, place[1]) * step)
            * Mat4::from_rotation_y(yaw * PI / 180.0)
            * Mat4::from_scale(Vec3::splat(scale))
            * Mat4::from_translation(-foot)
    };
    assets.iter().zip(places).zip(yaws).map(|((asset, place), yaw)| stand(asset, place, *yaw)).collect()
}

/// Turns all `instances` about the vertical axis by `yaw` degrees, centres them and scales them to
/// [`LARGEST_SIDE`].
pub(super) fn normalize(instances: &mut [Instance<'_>], yaw: f32) {
    let turn = Mat4::from_rotation_y(yaw * PI / 180.0);
    for instance in instances.iter_mut() {
        instance.transform = turn * instance.transform;
    }
    let (low, high) = bounds_of(instances);
    let extent = (high - low).max_element();
    if !(extent.is_finite() && extent > 0.0) {
        return;
    }
    let fit =
        Mat4::from_scale(Vec3::splat(LARGEST_SIDE / extent)) * Mat4::from_translation(-0.5 * (low + high));
    for instance in instances {
        instance.transform = fit * instance.transform;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asset::{Asset, Material, Mesh};

    /// A box as an asset.
    fn cuboid(low: Vec3, high: Vec3) -> PreparedAsset {
        let corner = |i: u32| {
            let pick = |bit: u32, a: f32, b: f32| if i & bit == 0 { a } else { b };
            Vec3::new(pick(1, low.x, high.x), pick(2, low.y, high.y), pick(4, low.z, high.z))
        };
        let quads = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]];
        let mut mesh = Mesh { positions: (0..8).map(corner).collect(), ..Mesh::default() };
        for [a, b, c, d] in quads {
            mesh.triangles.extend([[a, b, c], [a, c, d]]);
        }
        PreparedAsset::new(&Asset {
            meshes: vec![mesh],
            materials: vec![Material::default()],
            ..Asset::default()
        })
    }

    #[test]
    fn what_stands_on_something_touches_it() {
        let table = cuboid(Vec3::new(-1.0, 0.0, -1.0), Vec3::new(1.0, 0.7, 1.0));
        let cup = cuboid(Vec3::new(-0.1, -0.2, -0.1), Vec3::new(0.1, 0.2, 0.1));
        let [t, _] = place(&cup, &table, Relation::On, 0.5, SINK);
        let (low, high) = cup.bounds().unwrap();
        let (foot, head) = (t.transform_point3(low).y, t.transform_point3(high).y);
        assert!((head - foot - 1.0).abs() < 1e-4, "half of the table's largest side");
        assert!((foot - (0.7 - SINK)).abs() < 0.01, "{foot}");
        let [t, _] = place(&cup, &table, Relation::On, 0.5, 0.3);
        let settled = t.transform_point3(low).y;
        assert!((settled - 0.4).abs() < 0.01, "a cup of height 1 settles by .3: {settled}");
    }

    #[test]
    fn what_stands_beside_shares_the_ground_and_does_not_overlap() {
        let a = cuboid(Vec3::ZERO, Vec3::ONE);
        let b = cuboid(Vec3::splat(-1.0), Vec3::ONE);
        let [t, _] = place(&a, &b, Relation::Beside, 0.6, SINK);
        let (low, high) = (t.transform_point3(Vec3::ZERO), t.transform_point3(Vec3::ONE));
        assert!((low.y + 1.0).abs() < 1e-5 && high.x < -1.0, "{low} {high}");
    }

    #[test]
    fn a_third_thing_stands_on_the_right_and_several_share_the_ground() {
        let a = Arc::new(cuboid(Vec3::ZERO, Vec3::new(1.0, 2.0, 0.5)));
        let scene = [Instance::new(&a, Mat4::IDENTITY)];
        let b = cuboid(Vec3::splat(-3.0), Vec3::splat(1.0));
        let t = right_of(&b, &scene, 0.5);
        let (low, high) = (t.transform_point3(Vec3::splat(-3.0)), t.transform_point3(Vec3::ONE));
        assert!(low.x > 1.0 && low.y.abs() < 1e-5 && ((high - low).x - 1.0).abs() < 1e-5, "{low} {high}");
        for count in 2..=4 {
            let assets = vec![a.clone(); count];
            let places = arrange(&assets, &[0.0; 4]);
            let boxes: Vec<(Vec3, Vec3)> =
                places.iter().zip(&assets).map(|(p, a)| bounds_of(&[Instance::new(a, *p)])).collect();
            assert_eq!(boxes.len(), count);
            for (i, (low, high)) in boxes.iter().enumerate() {
                assert!(low.y.abs() < 1e-5 && (high.y - 1.0).abs() < 1e-5);
                for (low2, high2) in &boxes[..i] {
                    let apart = low.x >= high2.x || low2.x >= high.x || low.z >= high2.z || low2.z >= high.z;
                    assert!(apart, "{count}: {low} {high} {low2} {high2}");
                }
            }
        }
    }

    #[test]
    fn scenes_are_centred_and_of_one_size() {
        let a = cuboid(Vec3::ZERO, Vec3::new(3.0, 1.0, 2.0));
        let mut scene = [Instance::new(&a, Mat4::IDENTITY)];
        normalize(&mut scene, 90.0);
        let (p, q) = a.bounds().unwrap();
        let (p, q) = (scene[0].transform.transform_point3(p), scene[0].transform.transform_point3(q));
        assert!((p + q).length() < 1e-5 && ((p - q).abs().max_element() - LARGEST_SIDE).abs() < 1e-5);
        assert!(((p - q).z.abs() - LARGEST_SIDE).abs() < 1e-5, "turned by a quarter");
    }
}
