//! Where the texture lies on the model: as its own coordinates say, if they are good, or newly unwrapped.

use std::collections::HashMap;

use glam::{Vec2, Vec3};

use crate::Result;
use crate::asset::{Asset, Material, Mesh};
use crate::mesh::TriMesh;
use crate::mesh::unwrap::unwrap;

/// Side of the picture in which coordinates are judged.
const PROBE: usize = 512;
/// Share of the covered texels that may be covered twice (rounding at the charts' borders).
const OVERLAP: f32 = 0.01;
/// Share of the texture that must be covered, or most of its texels are wasted.
const COVERED: f32 = 0.15;
/// Share of the surface that may have (nearly) no place in the texture.
const DEGENERATE: f64 = 0.01;

/// Why a model's own coordinates cannot be used; nothing if they can.
pub(super) fn fault(asset: &Asset) -> Option<&'static str> {
    if asset.meshes.iter().any(|m| m.uvs.len() != m.positions.len()) {
        return Some("not every part has any");
    }
    let slack = 1.0 / PROBE as f32;
    let inside = |uv: &Vec2| uv.min_element() >= -slack && uv.max_element() <= 1.0 + slack;
    if !asset.meshes.iter().flat_map(|m| &m.uvs).all(inside) {
        return Some("they leave the texture");
    }
    if degenerate(asset) > DEGENERATE {
        return Some("parts of the surface have no place in the texture");
    }
    let (covered, twice) = coverage(asset);
    if twice as f32 > OVERLAP * covered as f32 {
        return Some("they overlap");
    }
    ((covered as f32) < COVERED * (PROBE * PROBE) as f32).then_some("they leave most of the texture empty")
}

/// Share of the surface's area in triangles without area in the texture.
fn degenerate(asset: &Asset) -> f64 {
    let (mut lost, mut all) = (0.0f64, 0.0f64);
    for mesh in &asset.meshes {
        for t in &mesh.triangles {
            let [a, b, c] = t.map(|i| mesh.positions[i as usize].as_dvec3());
            let area = (b - a).cross(c - a).length();
            let [p, q, r] = t.map(|i| mesh.uvs[i as usize].as_dvec2());
            all += area;
            if (q - p).perp_dot(r - p).abs() < 1e-12 {
                lost += area;
            }
        }
    }
    lost / all.max(f64::MIN_POSITIVE)
}

/// Texels whose centre lies inside some triangle, and inside more than one.
fn coverage(asset: &Asset) -> (usize, usize) {
    let mut counts = vec![0u8; PROBE * PROBE];
    for mesh in &asset.meshes {
        for t in &mesh.triangles {
            count(t.map(|i| mesh.uvs[i as usize] * PROBE as f32 - 0.5), &mut counts);
        }
    }
    (counts.iter().filter(|c| **c > 0).count(), counts.iter().filter(|c| **c > 1).count())
}

fn count([a, b, c]: [Vec2; 3], counts: &mut [u8]) {
    let last = Vec2::splat(PROBE as f32 - 1.0);
    let low = a.min(b).min(c).ceil().clamp(Vec2::ZERO, last).as_usizevec2();
    let high = a.max(b).max(c).floor().clamp(Vec2::ZERO, last).as_usizevec2();
    let area = (b - a).perp_dot(c - a);
    if area == 0.0 {
        return;
    }
    for y in low.y..=high.y {
        for x in low.x..=high.x {
            let p = Vec2::new(x as f32, y as f32);
            let weights = [(b - p).perp_dot(c - p), (c - p).perp_dot(a - p), (a - p).perp_dot(b - p)];
            // Strictly inside, so that texels on a shared edge are counted once or not at all.
            if weights.iter().all(|w| w / area > 1e-4) {
                let at = &mut counts[y * PROBE + x];
                *at = at.saturating_add(1);
            }
        }
    }
}

/// The model with one material and coordinates for one texture: its own, or new ones.
///
/// # Errors
/// If it cannot be unwrapped.
pub(super) fn laid(asset: &Asset, keep: bool, size: u32, padding: u32) -> Result<Asset> {
    let double_sided = asset.materials.iter().any(|m| m.double_sided);
    let material = Material { double_sided, ..Material::default() };
    let plain = |mesh: &Mesh| Mesh { colors: Vec::new(), material: 0, ..mesh.clone() };
    let meshes = match keep {
        true => asset.meshes.iter().map(plain).collect(),
        false => vec![unwrapped(asset, size, padding)?],
    };
    Ok(Asset { meshes, materials: vec![material], extras: asset.extras.clone() })
}

/// All parts as one, with new coordinates; corners keep their normals.
fn unwrapped(asset: &Asset, size: u32, padding: u32) -> Result<Mesh> {
    let (mut whole, mut normals) = (TriMesh::default(), Vec::new());
    let mut numbers: HashMap<[u32; 3], u32> = HashMap::new();
    for mesh in &asset.meshes {
        for t in &mesh.triangles {
            let corners = t.map(|i| {
                let p = mesh.positions[i as usize];
                let key = (p + Vec3::ZERO).to_array().map(f32::to_bits);
                *numbers.entry(key).or_insert_with(|| {
                    whole.positions.push(p);
                    whole.positions.len() as u32 - 1
                })
            });
            // Triangles without area have no place in a texture, and are not seen.
            let [a, b, c] = corners.map(|i| whole.positions[i as usize]);
            if (b - a).cross(c - a) != Vec3::ZERO {
                whole.triangles.push(corners);
                normals.push(t.map(|i| mesh.normals.get(i as usize).copied().unwrap_or(Vec3::Y)));
            }
        }
    }
    let pages = unwrap(&whole, size, padding)?;
    let mut mesh = Mesh::default();
    let mut corners: HashMap<(u32, [u32; 3]), u32> = HashMap::new();
    for (t, normals) in pages.triangles.iter().zip(&normals) {
        let mut triangle = [0; 3];
        for (k, out) in triangle.iter_mut().enumerate() {
            let (vertex, normal) = (t[k], normals[k]);
            *out = *corners.entry((vertex, normal.to_array().map(f32::to_bits))).or_insert_with(|| {
                mesh.positions.push(whole.positions[pages.source[vertex as usize] as usize]);
                mesh.normals.push(normal);
                mesh.uvs.push(pages.uvs[vertex as usize]);
                mesh.positions.len() as u32 - 1
            });
        }
        mesh.triangles.push(triangle);
    }
    Ok(mesh)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(uvs: [Vec2; 4]) -> Mesh {
        Mesh {
            positions: vec![Vec3::ZERO, Vec3::X, Vec3::new(1.0, 1.0, 0.0), Vec3::Y],
            normals: vec![Vec3::Z; 4],
            uvs: uvs.to_vec(),
            triangles: vec![[0, 1, 2], [0, 2, 3]],
            ..Mesh::default()
        }
    }

    fn at(low: f32, high: f32) -> [Vec2; 4] {
        [(low, low), (high, low), (high, high), (low, high)].map(|(x, y)| Vec2::new(x, y))
    }

    fn of(meshes: Vec<Mesh>) -> Asset {
        Asset { meshes, ..Asset::default() }
    }

    #[test]
    fn coordinates_are_judged() {
        assert_eq!(fault(&of(vec![square(at(0.0, 1.0))])), None);
        assert_eq!(fault(&of(vec![square(at(0.0, 0.49)), square(at(0.5, 1.0))])), None);
        let overlapping = of(vec![square(at(0.0, 0.6)), square(at(0.4, 1.0))]);
        assert_eq!(fault(&overlapping), Some("they overlap"));
        assert_eq!(fault(&of(vec![square(at(0.0, 2.0))])), Some("they leave the texture"));
        assert_eq!(fault(&of(vec![square(at(0.0, 0.2))])), Some("they leave most of the texture empty"));
        let flat = square([Vec2::ZERO, Vec2::X, Vec2::X, Vec2::ZERO]);
        assert_eq!(fault(&of(vec![flat])), Some("parts of the surface have no place in the texture"));
        let bare = Mesh { uvs: Vec::new(), ..square(at(0.0, 1.0)) };
        assert_eq!(fault(&of(vec![square(at(0.0, 1.0)), bare])), Some("not every part has any"));
    }

    #[test]
    fn new_coordinates_are_good_and_the_shape_and_its_normals_stay() {
        // Two squares that meet at a right angle, with a normal each.
        let mut side = square(at(0.0, 1.0));
        side.positions =
            vec![Vec3::X, Vec3::new(1.0, 0.0, -1.0), Vec3::new(1.0, 1.0, -1.0), Vec3::new(1.0, 1.0, 0.0)];
        side.normals = vec![Vec3::X; 4];
        let bent = of(vec![square(at(0.0, 1.0)), side]);
        assert!(fault(&bent).is_some());
        let laid = laid(&bent, false, 256, 4).unwrap();
        assert_eq!(fault(&laid), None);
        let [mesh] = &laid.meshes[..] else { panic!("{} parts", laid.meshes.len()) };
        assert_eq!(mesh.triangles.len(), 4);
        for t in &mesh.triangles {
            let [a, b, c] = t.map(|i| mesh.positions[i as usize]);
            let face = (b - a).cross(c - a).normalize();
            assert!(t.iter().all(|i| (mesh.normals[*i as usize] - face).length() < 1e-6));
        }
    }
}
