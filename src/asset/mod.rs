//! 3D assets in memory, and their files: GLB/glTF, OBJ and PLY, in and out.

mod check_out;
pub mod export;
pub mod glb;
mod glb_accessor;
mod glb_material;
mod gltf_accessor;
mod gltf_in;
mod gltf_material;
pub mod hull;
mod load;
#[cfg(test)]
mod load_tests;
pub mod lod;
pub mod normals;
mod obj_in;
pub mod obj_out;
mod placement;
pub mod ply;
pub mod recipe;
mod save;
mod tangents;
pub mod texture;
pub mod usd_out;

use std::sync::Arc;

use glam::{Vec2, Vec3};
use image::RgbaImage;

pub use export::ExportOptions;
pub use load::{from_gltf_bytes, from_obj_bytes, load};
pub use placement::normalize;
pub(crate) use save::replace;
pub use save::{save, save_with};
pub(crate) use tangents::with_tangents;
pub use texture::Maps;

/// How a surface looks (the metallic-roughness model of glTF 2.0).
#[derive(Debug, Clone)]
pub struct Material {
    /// Name, may be empty.
    pub name: String,
    /// Linear RGBA factor.
    pub base_color: [f32; 4],
    /// sRGB texture multiplied into `base_color`.
    pub base_color_texture: Option<Arc<RgbaImage>>,
    /// 0 dielectric … 1 metal.
    pub metallic: f32,
    /// 0 mirror … 1 matte.
    pub roughness: f32,
    /// Linear emitted radiance.
    pub emissive: [f32; 3],
    /// Further pictures.
    pub maps: Maps,
    /// Seen from behind too.
    pub double_sided: bool,
}

impl Default for Material {
    fn default() -> Self {
        Self {
            name: String::new(),
            base_color: [1.0; 4],
            base_color_texture: None,
            metallic: 0.0,
            roughness: 0.8,
            emissive: [0.0; 3],
            maps: Maps::default(),
            double_sided: false,
        }
    }
}

/// Triangles that share a material. Attribute vectors are empty or as long as `positions`.
#[derive(Debug, Clone, Default)]
pub struct Mesh {
    /// World-space positions, metres, +Y up, front +Z.
    pub positions: Vec<Vec3>,
    /// Unit normals.
    pub normals: Vec<Vec3>,
    /// Texture coordinates, origin at the picture's top left (as glTF).
    pub uvs: Vec<Vec2>,
    /// Linear RGB vertex colours, multiplied into the base colour.
    pub colors: Vec<Vec3>,
    /// Counter-clockwise triangles.
    pub triangles: Vec<[u32; 3]>,
    /// Index into [`Asset::materials`].
    pub material: usize,
}

/// A whole asset: meshes in world space, and their materials.
#[derive(Debug, Clone, Default)]
pub struct Asset {
    /// The parts.
    pub meshes: Vec<Mesh>,
    /// The looks the parts refer to.
    pub materials: Vec<Material>,
    /// Goes to (comes from) glTF's `asset.extras`.
    pub extras: serde_json::Map<String, serde_json::Value>,
}

impl Asset {
    /// Number of triangles.
    pub fn triangle_count(&self) -> usize {
        self.meshes.iter().map(|m| m.triangles.len()).sum()
    }

    /// Axis-aligned bounds `(min, max)`, or `None` if there is no vertex.
    pub fn bounds(&self) -> Option<(Vec3, Vec3)> {
        let mut points = self.meshes.iter().flat_map(|m| &m.positions);
        let first = *points.next()?;
        Some(points.fold((first, first), |(lo, hi), p| (lo.min(*p), hi.max(*p))))
    }
}
