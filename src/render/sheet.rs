//! Contact sheets and turntables: one asset from many sides in one picture.

use glam::{Mat4, Vec3};
use image::{ImageBuffer, Pixel, RgbImage, imageops};
use rayon::prelude::*;

use super::{
    camera::Camera,
    raster::{Instance, Lighting, PreparedAsset, render_scene},
};
use crate::asset::Asset;

/// Samples across a pixel.
const SUPERSAMPLE: u32 = 4;

/// How [`views`] looks at an asset.
#[derive(Debug, Clone, Copy)]
pub struct Views {
    /// Number of pictures, at equal steps of azimuth, the first from the front (+Z).
    pub count: u32,
    /// Width and height of each picture in pixels.
    pub size: u32,
    /// Elevation of the camera in degrees, −90 … 90.
    pub elevation: f32,
    /// Linear RGB behind the asset.
    pub background: Vec3,
}

impl Default for Views {
    fn default() -> Self {
        Self { count: 8, size: 256, elevation: 15.0, background: Vec3::splat(0.8) }
    }
}

/// Draws `asset` from all around under studio light. The camera keeps the distance at which the
/// asset's bounding sphere just fits, so no view is cropped and all have the same scale.
pub fn views(asset: &Asset, options: &Views) -> Vec<RgbImage> {
    let fov_y = 40_f32.to_radians();
    let (low, high) = asset.bounds().unwrap_or_default();
    let radius = (0.5 * (high - low).length()).max(f32::MIN_POSITIVE);
    // The asset is scaled to radius 1: the near plane and the light know no other size.
    let to_unit = Mat4::from_scale(Vec3::splat(1.0 / radius)) * Mat4::from_translation(-0.5 * (low + high));
    let distance = 1.02 / (0.5 * fov_y).sin();
    let prepared = PreparedAsset::new(asset);
    let lighting = Lighting::studio();
    (0..options.count)
        .into_par_iter()
        .map(|i| {
            let azimuth = 360.0 * i as f32 / options.count as f32;
            let camera = Camera::orbit(azimuth, options.elevation, distance, Vec3::ZERO, fov_y, options.size);
            let instance = Instance::new(&prepared, to_unit);
            render_scene(&[instance], &camera, &lighting, options.background, SUPERSAMPLE).to_srgb8()
        })
        .collect()
}

/// Puts pictures of equal size side by side, `columns` in a row (at least 1), from the top left.
/// One row is a strip. Unused places stay black; no pictures give an empty one.
pub fn contact_sheet<P>(pictures: &[ImageBuffer<P, Vec<u8>>], columns: usize) -> ImageBuffer<P, Vec<u8>>
where
    P: Pixel<Subpixel = u8> + 'static,
{
    let columns = columns.clamp(1, pictures.len().max(1));
    let (width, height) = pictures.first().map_or((0, 0), ImageBuffer::dimensions);
    let rows = pictures.len().div_ceil(columns);
    let mut sheet = ImageBuffer::new(columns as u32 * width, rows as u32 * height);
    for (i, picture) in pictures.iter().enumerate() {
        let (x, y) = (i % columns * width as usize, i / columns * height as usize);
        imageops::replace(&mut sheet, picture, x as i64, y as i64);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::asset::{Material, Mesh};

    #[test]
    fn pictures_go_row_by_row() {
        let pictures: Vec<RgbImage> = (1..=5).map(|i| RgbImage::from_pixel(3, 2, Rgb([i, 0, 0]))).collect();
        let sheet = contact_sheet(&pictures, 3);
        assert_eq!(sheet.dimensions(), (9, 4));
        let at = |x, y| sheet.get_pixel(x, y)[0];
        assert_eq!([at(0, 0), at(3, 1), at(8, 0), at(0, 2), at(5, 3), at(8, 3)], [1, 2, 3, 4, 5, 0]);
        assert_eq!(contact_sheet(&pictures, 9).dimensions(), (15, 2));
        assert_eq!(contact_sheet::<Rgb<u8>>(&[], 4).dimensions(), (0, 0));
    }

    /// A needle along `axis`, from −`half` to `half`, 1/50 as thick.
    fn needle(axis: Vec3, half: f32) -> Mesh {
        let side = axis.any_orthonormal_vector();
        let positions = [side, axis.cross(side)].map(|s| s * half * 0.02);
        let [s, t] = positions;
        Mesh {
            positions: vec![
                axis * half + s,
                -axis * half + s,
                axis * half - s,
                axis * half + t,
                -axis * half - t,
            ],
            triangles: vec![[0, 1, 2], [3, 4, 1]],
            ..Mesh::default()
        }
    }

    #[test]
    fn the_whole_asset_is_in_every_view_at_any_scale() {
        let background = Vec3::ONE;
        let options = Views { count: 8, size: 64, background, ..Views::default() };
        let mut sheets = Vec::new();
        for scale in [1e-4, 1.0, 1e4] {
            let meshes = [Vec3::X, Vec3::Y, Vec3::Z].map(|axis| needle(axis, scale)).to_vec();
            let ink = Material { base_color: [0.0, 0.0, 0.0, 1.0], ..Material::default() };
            let asset = Asset { meshes, materials: vec![ink], ..Asset::default() };
            let pictures = views(&asset, &options);
            for picture in &pictures {
                let border = picture
                    .enumerate_pixels()
                    .filter(|(x, y, _)| [*x, *y].iter().any(|v| [0, 63].contains(v)));
                assert!(border.into_iter().all(|(_, _, p)| p.0 == [255; 3]), "something touches the border");
                assert!(picture.pixels().any(|p| p.0[0] < 200), "nothing is seen");
            }
            sheets.push(contact_sheet(&pictures, 4));
        }
        let differ = |a: &RgbImage, b: &RgbImage| {
            a.pixels().zip(b.pixels()).filter(|(p, q)| p[0].abs_diff(q[0]) > 8).count()
        };
        // Rounding may move single samples, not more.
        assert!(differ(&sheets[0], &sheets[1]) < 40 && differ(&sheets[2], &sheets[1]) < 40);
    }
}
