//! From the grid to the model's pictures.

use std::sync::Arc;

use glam::{Vec2, Vec3};
use image::{Rgba, RgbaImage};

use super::grid::Grid;
use super::paint::{channels, material};
use super::surface::Placement;
use crate::asset::Asset;
use crate::config::Config;
use crate::mesh::{bake, fill};
use crate::render::color::linear_to_srgb8;

/// Texels in a call of the grid: bounds the working memory.
const CHUNK: usize = 1 << 16;

/// Paints `asset` (as [`super::uvs::laid`] gives it): base colour, and with metal a second picture.
pub(super) fn paint(asset: &mut Asset, grid: &Grid, placement: &Placement, config: &Config) {
    let size = config.mesh.texture_size as usize;
    let places = places(asset, placement, size);
    let mut known = vec![false; size * size];
    let (mut base, mut shine) = (vec![Vec3::ZERO; size * size], vec![Vec3::ZERO; size * size]);
    let n = channels(config.texture.pbr);
    for chunk in places.chunks(CHUNK) {
        let points: Vec<Vec3> = chunk.iter().map(|p| p.1).collect();
        let numbers = grid.read(&grid.taps(&points));
        for ((texel, _), numbers) in chunk.iter().zip(numbers.chunks_exact(n)) {
            let (color, rough, metal) = material(numbers);
            known[*texel] = true;
            base[*texel] = color;
            shine[*texel] = Vec3::new(1.0, rough, metal);
        }
    }
    let rings = config.mesh.padding as usize;
    let picture = |colors: &mut Vec<Vec3>, encode: fn(f32) -> u8| {
        fill::fill(size, colors, &mut known.clone(), rings);
        Arc::new(RgbaImage::from_fn(size as u32, size as u32, |x, y| {
            let [r, g, b] = colors[y as usize * size + x as usize].to_array().map(encode);
            Rgba([r, g, b, 255])
        }))
    };
    let base = picture(&mut base, linear_to_srgb8);
    let shine = config.texture.pbr.then(|| picture(&mut shine, |x| (x * 255.0 + 0.5) as u8));
    for look in &mut asset.materials {
        look.base_color_texture = Some(base.clone());
        if let Some(shine) = &shine {
            look.maps.metallic_roughness = Some(shine.clone());
            (look.metallic, look.roughness) = (1.0, 1.0);
        }
    }
}

/// Each covered texel and the point (in the box) that it shows.
fn places(asset: &Asset, placement: &Placement, size: usize) -> Vec<(usize, Vec3)> {
    let (mut positions, mut normals) = (Vec::new(), Vec::new());
    let (mut uvs, mut triangles): (Vec<Vec2>, Vec<[u32; 3]>) = (Vec::new(), Vec::new());
    for mesh in &asset.meshes {
        let first = positions.len() as u32;
        positions.extend(mesh.positions.iter().map(|p| placement.place(*p)));
        normals.extend(std::iter::repeat_n(Vec3::Y, mesh.positions.len()));
        uvs.extend(&mesh.uvs);
        triangles.extend(mesh.triangles.iter().map(|t| t.map(|i| i + first)));
    }
    let surface =
        bake::Surface { positions: &positions, normals: &normals, uvs: &uvs, triangles: &triangles };
    bake::places(surface, size)
}
