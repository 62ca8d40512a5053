//! Writing PLY: binary little endian, one surface, vertex colours.

use std::sync::Arc;

use glam::{Vec2, Vec3};
use image::RgbaImage;

use super::check_out::{check, parts, unit};
use super::{Asset, Material, Mesh};
use crate::Result;
use crate::render::color::{linear_to_srgb8, srgb8_to_linear};

/// The file's bytes. Every vertex has a normal and an 8-bit sRGB colour: base colour times
/// vertex colour times the texture at the vertex (bilinear).
///
/// # Errors
/// [`crate::Error::Invalid`] for an asset without triangles or with broken attribute lists.
pub fn to_bytes(asset: &Asset) -> Result<Vec<u8>> {
    check(asset)?;
    let vertices: usize = parts(asset).map(|m| m.positions.len()).sum();
    let mut out = header(vertices, asset.triangle_count()).into_bytes();
    for part in parts(asset) {
        let material = asset.materials.get(part.material).cloned().unwrap_or_default();
        for v in 0..part.positions.len() {
            let normal = part.normals.get(v).map_or(Vec3::Y, |n| unit(*n));
            let numbers = part.positions[v].to_array().into_iter().chain(normal.to_array());
            numbers.for_each(|x| out.extend(x.to_le_bytes()));
            out.extend(color(part, v, &material).to_array().map(linear_to_srgb8));
        }
    }
    let mut base = 0;
    for part in parts(asset) {
        for triangle in &part.triangles {
            out.push(3);
            triangle.iter().for_each(|v| out.extend((v + base).to_le_bytes()));
        }
        base += part.positions.len() as u32;
    }
    Ok(out)
}

fn header(vertices: usize, triangles: usize) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let floats: String = ["x", "y", "z", "nx", "ny", "nz"].map(|n| format!("property float {n}\n")).concat();
    let bytes: String = ["red", "green", "blue"].map(|n| format!("property uchar {n}\n")).concat();
    format!(
        "ply\nformat binary_little_endian 1.0\ncomment gen3d {version}\nelement vertex {vertices}\n\
         {floats}{bytes}element face {triangles}\nproperty list uchar uint vertex_indices\nend_header\n"
    )
}

fn color(part: &Mesh, vertex: usize, material: &Material) -> Vec3 {
    let base = Vec3::from_slice(&material.base_color);
    let own = part.colors.get(vertex).copied().unwrap_or(Vec3::ONE);
    let texture = match (&material.base_color_texture, part.uvs.get(vertex)) {
        (Some(picture), Some(uv)) => sample(picture, *uv),
        _ => Vec3::ONE,
    };
    base * own * texture
}

/// Bilinear, repeating.
fn sample(picture: &Arc<RgbaImage>, uv: Vec2) -> Vec3 {
    let (w, h) = picture.dimensions();
    if w == 0 || h == 0 {
        return Vec3::ONE;
    }
    let p = (uv - uv.floor()) * Vec2::new(w as f32, h as f32) - 0.5;
    let (base, t) = (p.floor().as_ivec2(), p - p.floor());
    let at = |dx: i32, dy: i32| {
        let (x, y) = ((base.x + dx).rem_euclid(w as i32), (base.y + dy).rem_euclid(h as i32));
        let [r, g, b, _] = picture.get_pixel(x as u32, y as u32).0;
        srgb8_to_linear([r, g, b])
    };
    at(0, 0).lerp(at(1, 0), t.x).lerp(at(0, 1).lerp(at(1, 1), t.x), t.y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_records_agree() {
        let picture = RgbaImage::from_fn(4, 4, |x, _| image::Rgba([if x < 2 { 200 } else { 10 }, 0, 0, 255]));
        let part = Mesh {
            positions: vec![Vec3::ZERO, Vec3::X, Vec3::new(0.0, 1.5, 0.0)],
            uvs: vec![Vec2::new(0.25, 0.5), Vec2::new(0.75, 0.5), Vec2::new(0.25, 0.25)],
            triangles: vec![[0, 1, 2]],
            ..Default::default()
        };
        let material = Material { base_color_texture: Some(Arc::new(picture)), ..Default::default() };
        let asset =
            Asset { meshes: vec![part.clone(), part], materials: vec![material], ..Default::default() };
        let bytes = to_bytes(&asset).unwrap();
        let end = bytes.windows(11).position(|w| w == b"end_header\n").unwrap() + 11;
        let body = &bytes[end..];
        assert_eq!(body.len(), 6 * 27 + 2 * 13);
        assert_eq!(body[2 * 27 + 4..2 * 27 + 8], 1.5f32.to_le_bytes());
        assert_eq!(body[24..27], [200, 0, 0]);
        assert_eq!(body[27 + 24..27 + 27], [10, 0, 0]);
        // The second part's face counts on from the first part's vertices.
        assert_eq!(body[6 * 27 + 13 + 1..6 * 27 + 13 + 5], 3u32.to_le_bytes());
    }
}
