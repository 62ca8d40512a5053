//! Assets in the form the rasteriser draws: one vertex list, textures with mip levels.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use glam::{Vec2, Vec3};
use image::RgbaImage;

use super::super::color::{decode_table, linear_to_srgb8};
use crate::asset::{Asset, Material, Mesh};

/// An asset ready to be drawn any number of times.
#[derive(Debug, Clone, Default)]
pub struct PreparedAsset {
    pub(super) vertices: Vec<Vertex>,
    pub(super) triangles: Vec<Triangle>,
    pub(super) materials: Vec<PreparedMaterial>,
    bounds: Option<(Vec3, Vec3)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Vertex {
    pub(super) position: Vec3,
    /// Zero where the mesh has none: the face normal is used.
    pub(super) normal: Vec3,
    pub(super) uv: Vec2,
    pub(super) color: Vec3,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Triangle {
    pub(super) indices: [u32; 3],
    pub(super) material: u32,
    /// The winding contradicts the vertex normals, which are believed.
    pub(super) inside_out: bool,
}

#[derive(Debug, Clone)]
pub(super) struct PreparedMaterial {
    pub(super) base: [f32; 4],
    pub(super) texture: Option<Arc<Texture>>,
    pub(super) metallic: f32,
    pub(super) roughness: f32,
    pub(super) emissive: Vec3,
}

impl PreparedAsset {
    /// Prepares `asset` with textures at full size.
    pub fn new(asset: &Asset) -> Self {
        Self::with_texture_limit(asset, u32::MAX)
    }

    /// Prepares `asset`, keeping only texture levels whose larger side is at most `limit` pixels:
    /// small pictures never look at finer ones, and thousands of assets fit into memory.
    pub fn with_texture_limit(asset: &Asset, limit: u32) -> Self {
        let mut textures: HashMap<*const RgbaImage, Arc<Texture>> = HashMap::new();
        let mut prepared = Self { bounds: asset.bounds(), ..Self::default() };
        for material in asset.materials.iter().chain(std::iter::once(&Material::default())) {
            let texture = material.base_color_texture.as_ref().map(|image| {
                let key = Arc::as_ptr(image);
                textures
                    .entry(key)
                    .or_insert_with(|| Arc::new(Texture::new(image, limit, Codes::Srgb)))
                    .clone()
            });
            let look = material.mean_look();
            prepared.materials.push(PreparedMaterial {
                base: material.base_color,
                texture,
                metallic: look.metallic.clamp(0.0, 1.0),
                roughness: look.roughness.clamp(0.0, 1.0),
                emissive: look.emissive,
            });
        }
        for mesh in &asset.meshes {
            prepared.append(mesh, asset.materials.len());
        }
        prepared
    }

    /// Axis-aligned bounds `(min, max)`, or `None` if there is no vertex.
    pub fn bounds(&self) -> Option<(Vec3, Vec3)> {
        self.bounds
    }

    /// Number of triangles.
    pub fn triangle_count(&self) -> usize {
        self.triangles.len()
    }

    /// Adds a mesh; triangles with an index out of range are left out, `fallback` is the material
    /// of a mesh that names none.
    fn append(&mut self, mesh: &Mesh, fallback: usize) {
        let first = self.vertices.len() as u32;
        let count = mesh.positions.len();
        self.vertices.extend((0..count).map(|i| Vertex {
            position: mesh.positions[i],
            normal: mesh.normals.get(i).copied().unwrap_or(Vec3::ZERO),
            uv: mesh.uvs.get(i).copied().unwrap_or(Vec2::ZERO),
            color: mesh.colors.get(i).copied().unwrap_or(Vec3::ONE),
        }));
        let material = mesh.material.min(fallback) as u32;
        for triangle in &mesh.triangles {
            if triangle.iter().any(|&i| i as usize >= count) {
                continue;
            }
            let indices = triangle.map(|i| i + first);
            let [a, b, c] = indices.map(|i| self.vertices[i as usize]);
            let face = (b.position - a.position).cross(c.position - a.position);
            let inside_out = face.dot(a.normal + b.normal + c.normal) < 0.0;
            self.triangles.push(Triangle { indices, material, inside_out });
        }
    }
}

/// What the 8-bit codes of a texture stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::render) enum Codes {
    /// Colours on the sRGB curve.
    Srgb,
    /// Numbers, 255 being 1.
    Linear,
}

impl Codes {
    fn table(self) -> &'static [f32; 256] {
        static LINEAR: LazyLock<[f32; 256]> =
            LazyLock::new(|| std::array::from_fn(|code| code as f32 / 255.0));
        match self {
            Self::Srgb => decode_table(),
            Self::Linear => &LINEAR,
        }
    }

    fn encode(self, value: f32) -> u8 {
        match self {
            Self::Srgb => linear_to_srgb8(value),
            Self::Linear => (value * 255.0 + 0.5) as u8,
        }
    }
}

/// A repeating texture with box-filtered levels, each half the size of the one before.
#[derive(Debug)]
pub(in crate::render) struct Texture {
    levels: Vec<Level>,
    codes: Codes,
    /// Every texel has alpha 255.
    pub(super) opaque: bool,
}

#[derive(Debug)]
struct Level {
    width: u32,
    height: u32,
    /// sRGB colour and linear alpha, row 0 on top.
    texels: Vec<[u8; 4]>,
}

impl Texture {
    /// The texture of a picture; of `Linear` codes alpha means nothing.
    pub(in crate::render) fn new(image: &RgbaImage, limit: u32, codes: Codes) -> Self {
        let (width, height) = image.dimensions();
        let alpha = |p: [u8; 4]| if codes == Codes::Linear { [p[0], p[1], p[2], 255] } else { p };
        let texels: Vec<[u8; 4]> = image.pixels().map(|p| alpha(p.0)).collect();
        let opaque = texels.iter().all(|t| t[3] == 255);
        let mut levels = vec![Level { width, height, texels }];
        if width == 0 || height == 0 {
            levels[0] = Level { width: 1, height: 1, texels: vec![[255; 4]] };
        }
        while let Some(next) = levels.last().and_then(|level| level.halved(codes)) {
            levels.push(next);
        }
        let keep_from = levels.iter().position(|l| l.width.max(l.height) <= limit.max(1));
        levels.drain(..keep_from.unwrap_or(0));
        Self { levels, codes, opaque }
    }

    /// Texels of the finest level, for level-of-detail selection.
    pub(in crate::render) fn area(&self) -> f32 {
        self.levels[0].width as f32 * self.levels[0].height as f32
    }

    /// Linear RGB (weighted by alpha) and alpha at `uv`, bilinear in the level whose texels are
    /// nearest in area to `footprint` texels of the finest level.
    pub(in crate::render) fn sample(&self, uv: Vec2, footprint: f32) -> (Vec3, f32) {
        // Levels differ by a factor of 4 in area: round(log2(footprint) / 2), from the exponent of
        // twice the footprint, since 4^(level - 1/2) = 2^(2 level) / 2 is where a level begins.
        let exponent = ((footprint * 2.0).to_bits() >> 23) as i32 - 127;
        let level = &self.levels[(exponent / 2).clamp(0, self.levels.len() as i32 - 1) as usize];
        let ([i00, i10, i01, i11], weights) = level.taps(uv);
        let table = self.codes.table();
        let texels = [i00, i10, i01, i11].map(|i| level.texels[i]);
        let mut sum = Vec3::ZERO;
        let mut alpha = 0.0;
        for (texel, weight) in texels.iter().zip(weights) {
            let weight = if self.opaque { weight } else { weight * f32::from(texel[3]) * (1.0 / 255.0) };
            let [r, g, b, _] = texel.map(usize::from);
            sum += Vec3::new(table[r], table[g], table[b]) * weight;
            alpha += weight;
        }
        if self.opaque { (sum, 1.0) } else { (sum / alpha.max(1e-6), alpha) }
    }
}

impl Level {
    /// Texel numbers and weights of the bilinear filter at `uv`, repeating.
    fn taps(&self, uv: Vec2) -> ([usize; 4], [f32; 4]) {
        let axis = |t: f32, size: u32| {
            let x = (t - t.floor()) * size as f32 - 0.5;
            let floor = x.floor();
            let low = if floor < 0.0 { size - 1 } else { (floor as u32).min(size - 1) };
            let high = if low + 1 == size { 0 } else { low + 1 };
            (low as usize, high as usize, x - floor)
        };
        let (x0, x1, fx) = axis(uv.x, self.width);
        let (y0, y1, fy) = axis(uv.y, self.height);
        let (r0, r1) = (y0 * self.width as usize, y1 * self.width as usize);
        let (gx, gy) = (1.0 - fx, 1.0 - fy);
        ([r0 + x0, r0 + x1, r1 + x0, r1 + x1], [gx * gy, fx * gy, gx * fy, fx * fy])
    }

    /// The level of half size (rounded down, at least 1), box-filtered in linear light.
    fn halved(&self, codes: Codes) -> Option<Self> {
        if self.width == 1 && self.height == 1 {
            return None;
        }
        let (width, height) = ((self.width / 2).max(1), (self.height / 2).max(1));
        let mut texels = Vec::with_capacity(width as usize * height as usize);
        for y in 0..height {
            for x in 0..width {
                texels.push(self.box_mean(x, y, (width, height), codes));
            }
        }
        Some(Self { width, height, texels })
    }

    /// Mean over the texels of box (`x`, `y`) of a `width` × `height` division; colour is weighted
    /// by alpha so that what lies under transparent texels does not bleed in.
    fn box_mean(&self, x: u32, y: u32, (width, height): (u32, u32), codes: Codes) -> [u8; 4] {
        let table = codes.table();
        let (mut color, mut plain, mut alpha, mut count) = (Vec3::ZERO, Vec3::ZERO, 0.0, 0.0);
        for sy in y * self.height / height..(y + 1) * self.height / height {
            for sx in x * self.width / width..(x + 1) * self.width / width {
                let [r, g, b, a] = self.texels[(sy * self.width + sx) as usize].map(usize::from);
                let linear = Vec3::new(table[r], table[g], table[b]);
                let a = a as f32 / 255.0;
                color += linear * a;
                plain += linear;
                alpha += a;
                count += 1.0;
            }
        }
        let mean = if alpha > 0.0 { color / alpha } else { plain / count };
        let [r, g, b] = mean.to_array().map(|v| codes.encode(v));
        [r, g, b, (alpha / count * 255.0).round() as u8]
    }
}
