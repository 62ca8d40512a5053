//! Materials with all their pictures, ready to be looked up.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use glam::{DVec3, Vec3};
use image::RgbaImage;

use crate::asset::{Asset, Material, with_tangents};
use crate::render::material::{Look, from_tangent_space};
use crate::render::raster::{Codes, Fragment, Texture};

/// The materials of an asset, and what its vertices have beside what the rasteriser knows.
pub(super) struct Skins {
    materials: Vec<Skin>,
    /// `[x, y, z, sign of the bitangent]`; zero where there is no normal map.
    tangents: Vec<[f32; 4]>,
    uvs: Vec<bool>,
}

struct Skin {
    metallic: f32,
    roughness: f32,
    emissive: Vec3,
    shine: Option<Arc<Texture>>,
    bumps: Option<(Arc<Texture>, f32)>,
    occlusion: Option<Arc<Texture>>,
    glow: Option<Arc<Texture>>,
}

impl Skins {
    /// The skins, and the asset whose vertices they count: doubled where tangents disagree.
    pub(super) fn new(asset: &Asset) -> (Self, Cow<'_, Asset>) {
        let mut textures: HashMap<(*const RgbaImage, bool), Arc<Texture>> = HashMap::new();
        let mut texture = |picture: &Arc<RgbaImage>, codes: Codes| {
            let key = (Arc::as_ptr(picture), codes == Codes::Srgb);
            textures.entry(key).or_insert_with(|| Arc::new(Texture::new(picture, u32::MAX, codes))).clone()
        };
        let fallback = Material::default();
        let materials = asset.materials.iter().chain([&fallback]);
        let materials = materials
            .map(|m| Skin {
                metallic: m.metallic,
                roughness: m.roughness,
                emissive: Vec3::from(m.emissive),
                shine: m.maps.metallic_roughness.as_ref().map(|p| texture(p, Codes::Linear)),
                bumps: m.maps.normal.as_ref().map(|(p, scale)| (texture(p, Codes::Linear), *scale)),
                occlusion: m.maps.occlusion.as_ref().map(|p| texture(p, Codes::Linear)),
                glow: m.maps.emissive.as_ref().map(|p| texture(p, Codes::Srgb)),
            })
            .collect();
        let mut skins = Self { materials, tangents: Vec::new(), uvs: Vec::new() };
        let asset = skins.with_vertices(asset);
        (skins, asset)
    }

    fn with_vertices<'a>(&mut self, asset: &'a Asset) -> Cow<'a, Asset> {
        let bumpy = |material: usize| {
            self.materials.get(material.min(asset.materials.len())).is_some_and(|m| m.bumps.is_some())
        };
        let mut changed: Cow<'a, Asset> = Cow::Borrowed(asset);
        for (i, mesh) in asset.meshes.iter().enumerate() {
            let found = if bumpy(mesh.material) { with_tangents(mesh) } else { None };
            let count = found.as_ref().map_or(mesh.positions.len(), |(m, _)| m.positions.len());
            self.uvs.extend(std::iter::repeat_n(!mesh.uvs.is_empty(), count));
            match found {
                Some((mesh, tangents)) => {
                    self.tangents.extend(tangents);
                    changed.to_mut().meshes[i] = mesh;
                }
                None => self.tangents.extend(std::iter::repeat_n([0.0; 4], count)),
            }
        }
        changed
    }

    pub(super) fn vertices(&self) -> usize {
        self.tangents.len()
    }

    pub(super) fn has_uvs(&self, f: &Fragment) -> bool {
        self.uvs[f.indices[0] as usize]
    }

    /// The look at a sample, and the share of light from around that reaches it.
    pub(super) fn look(&self, f: &Fragment) -> (Look, f32) {
        let skin = &self.materials[f.material as usize];
        let read = |t: &Texture| t.sample(f.uv, f.uv_area * t.area()).0;
        let (mut metallic, mut roughness) = (skin.metallic, skin.roughness);
        if let Some(texture) = &skin.shine {
            let [_, g, b] = read(texture).to_array();
            (roughness, metallic) = (roughness * g, metallic * b);
        }
        let look = Look {
            base: f.base.as_dvec3().clamp(DVec3::ZERO, DVec3::ONE).to_array(),
            metallic: f64::from(metallic.clamp(0.0, 1.0)),
            roughness: f64::from(roughness.clamp(0.0, 1.0)),
            normal: self.normal(f).to_array(),
        };
        (look, skin.occlusion.as_ref().map_or(1.0, |t| read(t).x))
    }

    /// The normal, moved by the normal map; towards the camera as the surface's own is.
    pub(super) fn normal(&self, f: &Fragment) -> DVec3 {
        let own = f.normal.as_dvec3();
        let Some((texture, scale)) = &self.materials[f.material as usize].bumps else { return own };
        let corners = f.indices.map(|i| self.tangents[i as usize]);
        let sign = corners[0][3];
        let tangent: Vec3 =
            corners.iter().zip(f.weights).map(|([x, y, z, _], w)| Vec3::new(*x, *y, *z) * w).sum();
        let tangent = tangent.normalize_or_zero();
        if sign == 0.0 || tangent == Vec3::ZERO {
            return own;
        }
        let mapped = texture.sample(f.uv, f.uv_area * texture.area()).0 * 2.0 - 1.0;
        let mapped = Vec3::new(mapped.x * scale, mapped.y * scale, mapped.z).as_dvec3();
        let side = f64::from(f.side);
        let normal = from_tangent_space(mapped.to_array(), own * side, tangent.as_dvec3(), f64::from(sign));
        (DVec3::from_array(normal) * side).try_normalize().unwrap_or(own)
    }

    pub(super) fn emissive(&self, f: &Fragment) -> Vec3 {
        let skin = &self.materials[f.material as usize];
        let texel = skin.glow.as_ref().map(|t| t.sample(f.uv, f.uv_area * t.area()).0);
        skin.emissive * texel.unwrap_or(Vec3::ONE)
    }
}
