//! Levels of detail: fewer triangles over the same vertices, so that textures stay where they are.

use glam::{Vec2, Vec3};
use meshopt::{SimplifyOptions, VertexDataAdapter};

use super::{Asset, Mesh};

/// Most levels that are made.
pub const MAX_LEVELS: u32 = 8;
/// How much a change of normal, texture coordinate or colour counts against one of position.
const WEIGHTS: [f32; 8] = [0.5, 0.5, 0.5, 1.0, 1.0, 0.5, 0.5, 0.5];
/// A level with more than this share of the triangles of the one before is not worth its bytes.
const WORTH: f64 = 0.8;

/// Up to `levels` coarser versions of `asset`, each with half the triangles of the one before. Fewer where the
/// surface cannot be simplified further without changing its topology.
pub fn chain(asset: &Asset, levels: u32) -> Vec<Asset> {
    let mut chain: Vec<Asset> = Vec::new();
    let mut before = asset.triangle_count();
    for level in 1..=levels.min(MAX_LEVELS) {
        let coarse = simplified(asset, 0.5f64.powi(level as i32));
        let count = coarse.triangle_count();
        if count == 0 || count as f64 > WORTH * before as f64 {
            break;
        }
        before = count;
        chain.push(coarse);
    }
    chain
}

/// `asset` with at most about `triangles` triangles, shared out over its parts by their own numbers.
pub fn reduce(asset: &Asset, triangles: usize) -> Asset {
    let now = asset.triangle_count();
    if now <= triangles { asset.clone() } else { simplified(asset, triangles as f64 / now as f64) }
}

fn simplified(asset: &Asset, share: f64) -> Asset {
    let part = |m: &Mesh| simplify(m, (share * m.triangles.len() as f64).floor() as usize);
    Asset {
        meshes: asset.meshes.iter().map(part).collect(),
        materials: asset.materials.clone(),
        extras: asset.extras.clone(),
    }
}

/// A part with at most `target` triangles if its topology allows it. Vertices keep their places and attributes;
/// copies of a vertex at seams move together, so that a closed surface stays closed.
pub fn simplify(part: &Mesh, target: usize) -> Mesh {
    if part.triangles.len() <= target || part.positions.is_empty() {
        return part.clone();
    }
    let attributes = attributes(part);
    let bytes: &[u8] = bytemuck::cast_slice(&part.positions);
    let Ok(vertices) = VertexDataAdapter::new(bytes, size_of::<Vec3>(), 0) else { return part.clone() };
    let free = vec![false; part.positions.len()];
    let indices = meshopt::simplify_with_attributes_and_locks(
        part.triangles.as_flattened(),
        &vertices,
        &attributes,
        &WEIGHTS,
        size_of_val(&WEIGHTS),
        &free,
        3 * target,
        // The number decides, not the error.
        f32::MAX,
        SimplifyOptions::None,
        None,
    );
    compact(part, &indices)
}

/// Normal, texture coordinate and colour of each vertex; zeros for what there is not.
fn attributes(part: &Mesh) -> Vec<f32> {
    let at = |i: usize| {
        let normal = part.normals.get(i).copied().unwrap_or(Vec3::ZERO);
        let uv = part.uvs.get(i).copied().unwrap_or(Vec2::ZERO);
        let color = part.colors.get(i).copied().unwrap_or(Vec3::ZERO);
        [normal.x, normal.y, normal.z, uv.x, uv.y, color.x, color.y, color.z]
    };
    (0..part.positions.len()).flat_map(at).collect()
}

/// The vertices that `indices` use, in the order in which a GPU fetches them best.
fn compact(part: &Mesh, indices: &[u32]) -> Mesh {
    let indices = meshopt::optimize_vertex_cache(indices, part.positions.len());
    let mut remap = vec![u32::MAX; part.positions.len()];
    let mut source = Vec::new();
    for &v in &indices {
        if remap[v as usize] == u32::MAX {
            remap[v as usize] = source.len() as u32;
            source.push(v as usize);
        }
    }
    Mesh {
        positions: picked(&part.positions, &source),
        normals: picked(&part.normals, &source),
        uvs: picked(&part.uvs, &source),
        colors: picked(&part.colors, &source),
        triangles: indices.as_chunks::<3>().0.iter().map(|t| t.map(|v| remap[v as usize])).collect(),
        material: part.material,
    }
}

fn picked<T: Copy>(values: &[T], source: &[usize]) -> Vec<T> {
    if values.is_empty() { Vec::new() } else { source.iter().map(|&i| values[i]).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::normals::angle_weighted;
    use crate::mesh::testing::sphere;
    use crate::mesh::topology::{euler_characteristic, is_manifold, is_watertight, signed_volume, weld};
    use crate::mesh::unwrap::unwrap;

    /// An unwrapped ball, whose vertices stand doubled at the charts' borders.
    fn ball() -> Asset {
        let mesh = sphere(40, 0.7);
        let (normals, u) = (angle_weighted(&mesh), unwrap(&mesh, 256, 2).unwrap());
        let of = |v: &[Vec3]| u.source.iter().map(|&s| v[s as usize]).collect::<Vec<_>>();
        let part = Mesh {
            positions: of(&mesh.positions),
            normals: of(&normals),
            uvs: u.uvs.clone(),
            triangles: u.triangles.clone(),
            ..Default::default()
        };
        Asset { meshes: vec![part], ..Default::default() }
    }

    #[test]
    fn levels_halve_and_stay_closed() {
        let ball = ball();
        let (count, volume) = (ball.triangle_count(), signed_volume(&weld(&ball)));
        assert!(ball.meshes[0].positions.len() > weld(&ball).positions.len(), "there must be seams");
        let chain = chain(&ball, 4);
        assert_eq!(chain.len(), 4);
        for (i, level) in chain.iter().enumerate() {
            let welded = weld(level);
            let wanted = count >> (i + 1);
            let got = level.triangle_count();
            assert!(got <= wanted && got * 10 >= wanted * 8, "level {i}: {got} for {wanted}");
            assert!(is_watertight(&welded) && is_manifold(&welded), "level {i}");
            assert_eq!(euler_characteristic(&welded), 2);
            // N equal triangles inscribed in a ball lack 10.9/N of its volume: the mean depth below a chord of
            // circumradius c is 3c²/8. Vertices stay on the surface, so more than twice that would be damage.
            let change = signed_volume(&welded) / volume - 1.0;
            assert!(
                change < 0.0 && -change < 2.0 * 10.9 / got as f64,
                "level {i}: {change} of {got} triangles"
            );
        }
    }

    #[test]
    fn vertices_keep_what_they_had() {
        let ball = ball();
        let part = &ball.meshes[0];
        let coarse = simplify(part, 300);
        for (i, p) in coarse.positions.iter().enumerate() {
            let same = |j: usize| {
                part.positions[j] == *p
                    && part.uvs[j] == coarse.uvs[i]
                    && part.normals[j] == coarse.normals[i]
            };
            assert!((0..part.positions.len()).any(same), "vertex {i}");
        }
        // No triangle reaches from one chart into another: its corners lie near each other in the picture.
        let longest = |m: &Mesh| {
            let side = |t: &[u32; 3], k: usize| {
                let (a, b) = (t[k] as usize, t[(k + 1) % 3] as usize);
                (m.uvs[a] - m.uvs[b]).length() / (m.positions[a] - m.positions[b]).length()
            };
            m.triangles.iter().flat_map(|t| (0..3).map(move |k| side(t, k))).fold(0.0, f32::max)
        };
        assert!(longest(&coarse) < 1.5 * longest(part), "{} {}", longest(&coarse), longest(part));
    }

    #[test]
    fn what_cannot_be_simplified_is_left_out() {
        let corner = Mesh {
            positions: vec![Vec3::ZERO, Vec3::X, Vec3::Y],
            triangles: vec![[0, 1, 2]],
            ..Default::default()
        };
        let asset = Asset { meshes: vec![corner, Mesh::default()], ..Default::default() };
        assert!(chain(&asset, 3).is_empty());
        assert_eq!(reduce(&asset, 100).triangle_count(), 1);
        assert_eq!(reduce(&ball(), 500).triangle_count(), 500);
    }
}
