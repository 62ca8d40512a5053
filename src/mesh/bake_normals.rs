//! Baking the detail that simplification took into a tangent-space normal map.

use glam::{Vec2, Vec3};
use image::{Rgba, RgbaImage};
use parry3d::query::PointQueryWithLocation;
use parry3d::shape::TriMesh as Tree;
use rayon::prelude::*;

use super::bake::{Hit, SKIRT, Surface, rasterize};
use super::normals::angle_weighted;
use super::{TriMesh, fill};
use crate::asset::{Mesh, with_tangents};
use crate::{Error, Result};

/// A dense surface that can be asked for the normal nearest to a point.
pub struct Dense<'a> {
    mesh: &'a TriMesh,
    normals: Vec<Vec3>,
    tree: Tree,
}

impl<'a> Dense<'a> {
    /// Of a mesh with at least one triangle.
    ///
    /// # Errors
    /// [`Error::Failed`] if it has none.
    pub fn new(mesh: &'a TriMesh) -> Result<Self> {
        let vertices = mesh.positions.iter().map(|p| p.to_array().into()).collect();
        let tree = Tree::new(vertices, mesh.triangles.clone())
            .map_err(|e| Error::Failed(format!("the dense surface cannot be searched: {e}")))?;
        Ok(Self { mesh, normals: angle_weighted(mesh), tree })
    }

    /// The smooth unit normal at the surface's nearest point.
    fn normal(&self, at: Vec3) -> Vec3 {
        let (_, (triangle, place)) =
            self.tree.project_local_point_and_get_location(at.to_array().into(), false);
        let corners = self.mesh.triangles[triangle as usize].map(|v| self.normals[v as usize]);
        let flat = || self.mesh.area_vector(triangle as usize);
        let mixed = place.barycentric_coordinates().map(|w| (0..3).map(|i| w[i] * corners[i]).sum());
        mixed.unwrap_or_else(flat).normalize_or_zero()
    }
}

/// The normals of `dense` as seen on `part`, which is simpler and lies close to it, in a square picture of `size`
/// texels: x and y along tangent and bitangent (`MikkTSpace`, so that engines invert it exactly), z along the
/// part's own normal; −1 … 1 as 0 … 255. Texels outside the charts are filled (`rings`: see [`fill`]).
///
/// # Errors
/// [`Error::Invalid`] if the part has no normals or texture coordinates.
pub fn normal_map(part: &Mesh, dense: &Dense<'_>, size: u32, rings: usize) -> Result<RgbaImage> {
    let (part, tangents) = with_tangents(part)
        .ok_or_else(|| Error::invalid("mesh", "a normal map needs normals and texture coordinates"))?;
    let surface = Surface {
        positions: &part.positions,
        normals: &part.normals,
        uvs: &part.uvs,
        triangles: &part.triangles,
    };
    let hits = rasterize(surface, size as usize);
    let mut known: Vec<bool> = hits.iter().map(|h| h.distance <= SKIRT).collect();
    let mut normals: Vec<Vec3> = hits
        .par_iter()
        .map(|hit| if hit.distance <= SKIRT { in_frame(&part, &tangents, hit, dense) } else { Vec3::Z })
        .collect();
    fill::fill(size as usize, &mut normals, &mut known, rings);
    Ok(RgbaImage::from_fn(size, size, |x, y| {
        let n = normals[(y * size + x) as usize].normalize_or(Vec3::Z);
        let [x, y, z] = n.to_array().map(|v| (127.5 * v + 127.5).round() as u8);
        Rgba([x, y, z, 255])
    }))
}

/// The dense surface's normal at a texel in the frame that a renderer interpolates there.
fn in_frame(part: &Mesh, tangents: &[[f32; 4]], hit: &Hit, dense: &Dense<'_>) -> Vec3 {
    let corners = part.triangles[hit.triangle as usize].map(|v| v as usize);
    let Vec2 { x: v, y: w } = hit.weights;
    let shares = [1.0 - v - w, v, w];
    let mix = |of: &dyn Fn(usize) -> Vec3| -> Vec3 { (0..3).map(|i| shares[i] * of(corners[i])).sum() };
    let (at, normal) = (mix(&|i| part.positions[i]), mix(&|i| part.normals[i]));
    let tangent = mix(&|i| Vec3::from_slice(&tangents[i]));
    let bitangent = tangents[corners[0]][3] * normal.cross(tangent);
    let detail = dense.normal(at);
    if detail.dot(normal) <= 0.0 {
        // The nearest point lies on the other side of something thin.
        return Vec3::Z;
    }
    // The inverse of n = x T + y B + z N by cofactors.
    let rows = [bitangent.cross(normal), normal.cross(tangent), tangent.cross(bitangent)];
    let sign = if tangent.dot(rows[0]) < 0.0 { -1.0 } else { 1.0 };
    (sign * Vec3::from(rows.map(|r| detail.dot(r)))).normalize_or(Vec3::Z)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::iso::extract;
    use crate::mesh::simplify::simplify;
    use crate::mesh::testing::grid_of;
    use crate::mesh::unwrap::unwrap;

    /// A golf ball.
    fn radius(d: Vec3) -> f32 {
        0.6 + 0.02 * (12.0 * d.x).sin() * (12.0 * d.y).sin() * (12.0 * d.z).cos()
    }

    fn angle(a: Vec3, b: Vec3) -> f32 {
        a.dot(b).clamp(-1.0, 1.0).acos().to_degrees()
    }

    #[test]
    fn a_simple_surface_with_the_map_has_the_normals_of_the_dense_one() {
        let fine = extract(&grid_of(80, |p| radius(p.normalize_or_zero()) - p.length()), 0.0);
        let coarse = simplify(&fine, 1_500);
        let (normals, u) = (angle_weighted(&coarse), unwrap(&coarse, 256, 4).unwrap());
        let of = |v: &[Vec3]| u.source.iter().map(|&s| v[s as usize]).collect::<Vec<_>>();
        let part = Mesh {
            positions: of(&coarse.positions),
            normals: of(&normals),
            uvs: u.uvs.clone(),
            triangles: u.triangles.clone(),
            ..Default::default()
        };
        let dense = Dense::new(&fine).unwrap();
        let picture = normal_map(&part, &dense, 256, 4).unwrap();
        let (framed, tangents) = with_tangents(&part).unwrap();
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for t in &framed.triangles {
            // At the middle of a triangle, as a renderer does it: the texel nearest to it, the mean frame.
            let mean = |of: &dyn Fn(usize) -> Vec3| t.iter().map(|&v| of(v as usize)).sum::<Vec3>() / 3.0;
            let uv = t.iter().map(|&v| framed.uvs[v as usize]).sum::<Vec2>() / 3.0;
            let texel = (uv * 256.0).as_uvec2().min(glam::UVec2::splat(255));
            let [x, y, z] =
                [0, 1, 2].map(|i| f32::from(picture.get_pixel(texel.x, texel.y).0[i]) / 127.5 - 1.0);
            let (normal, tangent) = (mean(&|i| framed.normals[i]), mean(&|i| Vec3::from_slice(&tangents[i])));
            let bitangent = tangents[t[0] as usize][3] * normal.cross(tangent);
            let seen = (x * tangent + y * bitangent + z * normal).normalize();
            let truth = dense.normal(mean(&|i| framed.positions[i]));
            with.push(angle(seen, truth));
            without.push(angle(normal.normalize(), truth));
        }
        let median = |v: &mut Vec<f32>| {
            v.sort_by(f32::total_cmp);
            v[v.len() / 2]
        };
        let (with, without) = (median(&mut with), median(&mut without));
        // A texel is 1/40 of a dimple: it cannot be exact at the triangle's middle.
        assert!(with < 2.0 && without > 3.0 * with, "{with}° with the map, {without}° without");
    }

    #[test]
    fn a_surface_on_itself_gives_a_flat_map() {
        let mesh = simplify(&extract(&grid_of(24, |p| 0.6 - p.length()), 0.0), 400);
        let u = unwrap(&mesh, 64, 2).unwrap();
        let normals = angle_weighted(&mesh);
        let of = |v: &[Vec3]| u.source.iter().map(|&s| v[s as usize]).collect::<Vec<_>>();
        let part = Mesh {
            positions: of(&mesh.positions),
            normals: of(&normals),
            uvs: u.uvs.clone(),
            triangles: u.triangles.clone(),
            ..Default::default()
        };
        let picture = normal_map(&part, &Dense::new(&mesh).unwrap(), 64, 2).unwrap();
        let worst = picture.pixels().map(|p| p.0[0].abs_diff(128).max(p.0[1].abs_diff(128))).max().unwrap();
        assert!(worst <= 6, "{worst}");
        let bare = Mesh { uvs: Vec::new(), ..part };
        assert!(normal_map(&bare, &Dense::new(&mesh).unwrap(), 64, 2).is_err());
    }
}
