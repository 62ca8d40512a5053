//! The pictures of a surface: which there are, what they come to on average, and their size.

use std::sync::Arc;

use glam::{Vec3, Vec4};
use image::{Rgba, RgbaImage};

use super::{Asset, Material};
use crate::render::color::{linear_to_srgb8, srgb8_to_linear};

/// Pictures beside the base colour's, over the same texture coordinates (glTF's meanings).
#[derive(Debug, Clone, Default)]
pub struct Maps {
    /// G roughness, B metalness, linear, multiplied into the factors.
    pub metallic_roughness: Option<Arc<RgbaImage>>,
    /// Tangent-space normals, +Y up, and the factor of their x and y.
    pub normal: Option<(Arc<RgbaImage>, f32)>,
    /// R ambient occlusion, linear.
    pub occlusion: Option<Arc<RgbaImage>>,
    /// sRGB, multiplied into the emitted radiance.
    pub emissive: Option<Arc<RgbaImage>>,
}

/// A material's factors with its pictures' means multiplied in.
#[derive(Debug, Clone, Copy)]
pub struct MeanLook {
    /// 0 dielectric … 1 metal.
    pub metallic: f32,
    /// 0 mirror … 1 matte.
    pub roughness: f32,
    /// Linear emitted radiance.
    pub emissive: Vec3,
}

impl Material {
    /// What a renderer without these maps takes in their place.
    pub fn mean_look(&self) -> MeanLook {
        let mut look = MeanLook {
            metallic: self.metallic,
            roughness: self.roughness,
            emissive: Vec3::from(self.emissive),
        };
        if let Some(picture) = &self.maps.metallic_roughness {
            let mean = mean(picture, |[_, g, b, _]| Vec3::new(0.0, g.into(), b.into()) / 255.0);
            look.metallic *= mean.z;
            look.roughness *= mean.y;
        }
        if let Some(picture) = self.maps.emissive.as_ref().filter(|_| look.emissive != Vec3::ZERO) {
            look.emissive *= mean(picture, |[r, g, b, _]| srgb8_to_linear([r, g, b]));
        }
        look
    }
}

/// Mean of a function of the pixels.
fn mean(image: &RgbaImage, value: impl Fn([u8; 4]) -> Vec3) -> Vec3 {
    let sum: Vec3 = image.rows().map(|row| row.map(|p| value(p.0)).sum::<Vec3>()).sum();
    sum / (image.width() * image.height()).max(1) as f32
}

/// What the numbers of a picture are, which decides how they are averaged.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// sRGB colours with alpha.
    Color,
    /// Numbers.
    Linear,
    /// Unit vectors.
    Normal,
}

/// Makes every picture whose larger side exceeds `limit` texels smaller (by areas, in linear light, colours
/// weighted by alpha, normals kept at unit length).
pub fn limit(asset: &mut Asset, limit: u32) {
    let mut done: Vec<(Arc<RgbaImage>, Arc<RgbaImage>)> = Vec::new();
    let mut shrink = |picture: &mut Arc<RgbaImage>, kind: Kind| {
        if let Some((_, small)) = done.iter().find(|(from, _)| Arc::ptr_eq(from, picture)) {
            *picture = small.clone();
            return;
        }
        let small = Arc::new(shrunk(picture, limit, kind));
        done.push((picture.clone(), small.clone()));
        *picture = small;
    };
    for material in &mut asset.materials {
        material.base_color_texture.iter_mut().for_each(|p| shrink(p, Kind::Color));
        let maps = &mut material.maps;
        maps.emissive.iter_mut().for_each(|p| shrink(p, Kind::Color));
        maps.metallic_roughness.iter_mut().for_each(|p| shrink(p, Kind::Linear));
        maps.occlusion.iter_mut().for_each(|p| shrink(p, Kind::Linear));
        maps.normal.iter_mut().for_each(|(p, _)| shrink(p, Kind::Normal));
    }
}

fn shrunk(picture: &RgbaImage, limit: u32, kind: Kind) -> RgbaImage {
    let (w, h) = picture.dimensions();
    if w.max(h) <= limit.max(1) {
        return picture.clone();
    }
    let scale = f64::from(limit.max(1)) / f64::from(w.max(h));
    let side = |n: u32| ((f64::from(n) * scale).round() as u32).max(1);
    let (columns, rows) = (spans(w, side(w)), spans(h, side(h)));
    RgbaImage::from_fn(side(w), side(h), |x, y| {
        let mut sum = Vec4::ZERO;
        let mut area = 0.0;
        for &(j, height) in &rows[y as usize] {
            for &(i, width) in &columns[x as usize] {
                sum += width * height * decoded(*picture.get_pixel(i, j), kind);
                area += width * height;
            }
        }
        encoded(sum / area, kind)
    })
}

/// For each of `to` new texels the old ones it covers, and how much of each.
fn spans(from: u32, to: u32) -> Vec<Vec<(u32, f32)>> {
    let ratio = f64::from(from) / f64::from(to);
    let one = |k: u32| {
        let (start, end) = (f64::from(k) * ratio, f64::from(k + 1) * ratio);
        let last = (end.ceil() as u32).min(from);
        let overlap = |i: u32| (end.min(f64::from(i) + 1.0) - start.max(f64::from(i))) as f32;
        (start as u32..last).map(|i| (i, overlap(i))).filter(|(_, o)| *o > 0.0).collect()
    };
    (0..to).map(one).collect()
}

fn decoded(pixel: Rgba<u8>, kind: Kind) -> Vec4 {
    let [r, g, b, a] = pixel.0;
    let alpha = f32::from(a) / 255.0;
    match kind {
        // Transparent texels have no colour to give.
        Kind::Color => (srgb8_to_linear([r, g, b]) * alpha).extend(alpha),
        Kind::Linear => Vec4::from_array(pixel.0.map(|v| f32::from(v) / 255.0)),
        Kind::Normal => (Vec3::from([r, g, b].map(|v| f32::from(v) / 127.5 - 1.0))).extend(alpha),
    }
}

fn encoded(mean: Vec4, kind: Kind) -> Rgba<u8> {
    let byte = |v: f32| (v * 255.0).round().clamp(0.0, 255.0) as u8;
    let xyz = mean.truncate();
    let [x, y, z] = match kind {
        Kind::Color => (xyz / mean.w.max(1e-6)).to_array().map(linear_to_srgb8),
        Kind::Linear => xyz.to_array().map(byte),
        Kind::Normal => xyz.normalize_or(Vec3::Z).to_array().map(|v| byte(0.5 * v + 0.5)),
    };
    Rgba([x, y, z, byte(mean.w)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_averaged_as_light_and_without_the_transparent() {
        // Black and white make the sRGB value of half the light; a transparent red gives nothing.
        let picture = RgbaImage::from_fn(4, 4, |x, y| match (x + y) % 2 {
            0 => Rgba([255, 255, 255, 255]),
            _ => Rgba([0, 0, 0, 255]),
        });
        assert_eq!(shrunk(&picture, 2, Kind::Color).get_pixel(1, 1).0, [188, 188, 188, 255]);
        assert_eq!(shrunk(&picture, 2, Kind::Linear).get_pixel(0, 0).0, [128, 128, 128, 255]);
        let half =
            RgbaImage::from_fn(2, 1, |x, _| Rgba(if x == 0 { [255, 0, 0, 0] } else { [0, 255, 0, 255] }));
        assert_eq!(shrunk(&half, 1, Kind::Color).get_pixel(0, 0).0, [0, 255, 0, 128]);
    }

    #[test]
    fn normals_stay_unit_and_sizes_that_do_not_divide_keep_the_mean() {
        let tilted = RgbaImage::from_fn(2, 2, |x, _| Rgba([if x == 0 { 37 } else { 218 }, 128, 218, 255]));
        let [x, y, z, _] = shrunk(&tilted, 1, Kind::Normal).get_pixel(0, 0).0;
        assert!(x.abs_diff(128) <= 1 && y.abs_diff(128) <= 1 && z == 255, "{x} {y} {z}");
        let ramp = RgbaImage::from_fn(7, 3, |x, _| Rgba([30 * x as u8, 0, 0, 255]));
        let small = shrunk(&ramp, 5, Kind::Linear);
        assert_eq!(small.dimensions(), (5, 2));
        let mean =
            |p: &RgbaImage| p.pixels().map(|p| f32::from(p.0[0])).sum::<f32>() / p.pixels().len() as f32;
        assert!((mean(&small) - mean(&ramp)).abs() < 0.6);
        assert_eq!(shrunk(&ramp, 7, Kind::Linear), ramp);
    }

    #[test]
    fn maps_stand_in_by_their_means() {
        let picture = Arc::new(RgbaImage::from_pixel(2, 2, Rgba([9, 51, 204, 255])));
        let mut material = Material { metallic: 0.5, roughness: 1.0, ..Default::default() };
        material.maps.metallic_roughness = Some(picture);
        let look = material.mean_look();
        assert!((look.metallic - 0.4).abs() < 1e-6 && (look.roughness - 0.2).abs() < 1e-6);
        let mut asset = Asset { materials: vec![material.clone(), material], ..Default::default() };
        limit(&mut asset, 1);
        let small: Vec<_> =
            asset.materials.iter().filter_map(|m| m.maps.metallic_roughness.as_ref()).collect();
        assert!(small[0].width() == 1 && Arc::ptr_eq(small[0], small[1]), "shared as before");
    }
}
