//! What an asset must satisfy before it is written.

use std::io::Cursor;

use glam::Vec3;
use image::{DynamicImage, ImageFormat, RgbaImage};

use super::{Asset, Mesh};
use crate::{Error, Result};

/// Checks lengths, indices, finiteness and materials of every part that has triangles.
///
/// # Errors
/// [`Error::Invalid`] that names the part.
pub(super) fn check(asset: &Asset) -> Result<()> {
    if asset.triangle_count() == 0 {
        return Err(Error::invalid("asset", "it has no triangles, there is nothing to write"));
    }
    for (number, mesh) in parts(asset).enumerate() {
        let wrong = defect(mesh, asset.materials.len());
        if let Some(reason) = wrong {
            return Err(Error::invalid(format!("mesh {number}"), reason));
        }
    }
    Ok(())
}

/// The parts that are written: those with triangles.
pub(super) fn parts(asset: &Asset) -> impl Iterator<Item = &Mesh> {
    asset.meshes.iter().filter(|m| !m.triangles.is_empty())
}

fn defect(mesh: &Mesh, materials: usize) -> Option<&'static str> {
    let n = mesh.positions.len();
    let whole = |len: usize| len == 0 || len == n;
    let rules = [
        (n < u32::MAX as usize, "it has more vertices than 32-bit indices reach"),
        (whole(mesh.normals.len()), "it has not one normal per vertex"),
        (whole(mesh.uvs.len()), "it has not one texture coordinate per vertex"),
        (whole(mesh.colors.len()), "it has not one colour per vertex"),
        (mesh.positions.iter().all(|p| p.is_finite()), "a position is not finite"),
        (mesh.uvs.iter().all(|p| p.is_finite()), "a texture coordinate is not finite"),
        (mesh.triangles.iter().flatten().all(|&v| (v as usize) < n), "a triangle has no such vertex"),
        (materials == 0 || mesh.material < materials, "its material does not exist"),
    ];
    rules.into_iter().find(|r| !r.0).map(|r| r.1)
}

/// A unit normal whatever was stored.
pub(super) fn unit(normal: Vec3) -> Vec3 {
    normal.try_normalize().unwrap_or(Vec3::Y)
}

/// A PNG of the picture, without the alpha channel if it is opaque.
pub(super) fn png(picture: &RgbaImage) -> Result<Vec<u8>> {
    let opaque = picture.pixels().all(|p| p.0[3] == 255);
    let picture = DynamicImage::from(picture.clone());
    let picture = if opaque { DynamicImage::from(picture.into_rgb8()) } else { picture };
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|e| Error::Failed(format!("a texture cannot be encoded: {e}")))?;
    Ok(bytes.into_inner())
}
