//! Materials and pictures of binary glTF.

use std::sync::Arc;

use gltf_json::extensions::material::{EmissiveStrength, EmissiveStrengthFactor};
use gltf_json::material::{
    AlphaMode, EmissiveFactor, NormalTexture, OcclusionTexture, PbrBaseColorFactor, PbrMetallicRoughness,
    StrengthFactor,
};
use gltf_json::texture::{Info, MagFilter, MinFilter, Sampler, WrappingMode};
use gltf_json::validation::Checked;
use gltf_json::{Index, material};
use image::RgbaImage;

use super::check_out::png;
use super::glb::{Writer, share};
use super::{Maps, Material, Mesh};
use crate::Result;

impl Writer<'_> {
    /// The part's material, written at its first use.
    pub(super) fn material(&mut self, part: &Mesh) -> Result<Option<Index<material::Material>>> {
        let Some(source) = self.asset.materials.get(part.material) else { return Ok(None) };
        let key = (part.material, !part.uvs.is_empty());
        if let Some(&done) = self.materials.get(&key) {
            return Ok(Some(done));
        }
        let maps = if key.1 { source.maps.clone() } else { Maps::default() };
        let mut info = |picture: Option<&Arc<RgbaImage>>| -> Result<Option<Info>> {
            let texture = picture.map(|p| self.texture(p)).transpose()?;
            Ok(texture.map(|index| Info { index, tex_coord: 0, extensions: None, extras: None }))
        };
        let base = info(source.base_color_texture.as_ref().filter(|_| key.1))?;
        let shine = info(maps.metallic_roughness.as_ref())?;
        let glow = info(maps.emissive.as_ref())?;
        let bumps = info(maps.normal.as_ref().map(|n| &n.0))?;
        let shade = info(maps.occlusion.as_ref())?;
        let mut written = self.describe(source, base);
        written.pbr_metallic_roughness.metallic_roughness_texture = shine;
        written.emissive_texture = glow;
        written.normal_texture = bumps.map(|i| NormalTexture {
            index: i.index,
            scale: maps.normal.as_ref().map_or(1.0, |n| n.1),
            tex_coord: 0,
            extensions: None,
            extras: None,
        });
        written.occlusion_texture = shade.map(|i| OcclusionTexture {
            index: i.index,
            strength: StrengthFactor(1.0),
            tex_coord: 0,
            extensions: None,
            extras: None,
        });
        if !key.1 {
            // Without its pictures a surface takes their means.
            let look = source.mean_look();
            let pbr = &mut written.pbr_metallic_roughness;
            pbr.metallic_factor = StrengthFactor(share(look.metallic));
            pbr.roughness_factor = StrengthFactor(share(look.roughness));
        }
        let index = self.root.push(written);
        self.materials.insert(key, index);
        Ok(Some(index))
    }

    fn describe(&mut self, source: &Material, texture: Option<Info>) -> material::Material {
        let alpha_mode = match texture.as_ref().and(source.base_color_texture.as_ref()) {
            Some(picture) => alpha_of(picture, source.base_color[3]),
            None => alpha_mode(source.base_color[3] < 1.0, false),
        };
        let strength = source.emissive.into_iter().filter(|e| e.is_finite()).fold(1f32, f32::max);
        let extensions = (strength > 1.0).then(|| {
            let name = "KHR_materials_emissive_strength".to_owned();
            if !self.root.extensions_used.contains(&name) {
                self.root.extensions_used.push(name);
            }
            let emissive_strength =
                Some(EmissiveStrength { emissive_strength: EmissiveStrengthFactor(strength) });
            gltf_json::extensions::material::Material { emissive_strength, ..Default::default() }
        });
        material::Material {
            name: (!source.name.is_empty()).then(|| source.name.clone()),
            alpha_mode: Checked::Valid(alpha_mode),
            double_sided: source.double_sided,
            emissive_factor: EmissiveFactor(source.emissive.map(|e| share(e / strength))),
            extensions,
            pbr_metallic_roughness: PbrMetallicRoughness {
                base_color_factor: PbrBaseColorFactor(source.base_color.map(share)),
                base_color_texture: texture,
                metallic_factor: StrengthFactor(share(source.metallic)),
                roughness_factor: StrengthFactor(share(source.roughness)),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn texture(&mut self, picture: &Arc<RgbaImage>) -> Result<Index<gltf_json::Texture>> {
        let address = Arc::as_ptr(picture);
        if let Some(&done) = self.pictures.get(&address) {
            return Ok(done);
        }
        let bytes = png(picture)?;
        let view = self.view(&bytes, None, None);
        let source = self.root.push(gltf_json::Image {
            buffer_view: Some(view),
            mime_type: Some(gltf_json::image::MimeType("image/png".into())),
            name: None,
            uri: None,
            extensions: None,
            extras: None,
        });
        let sampler = self.sampler();
        let texture =
            gltf_json::Texture { name: None, sampler: Some(sampler), source, extensions: None, extras: None };
        let index = self.root.push(texture);
        self.pictures.insert(address, index);
        Ok(index)
    }

    /// Trilinear and repeating (some loaded assets tile); made once.
    fn sampler(&mut self) -> Index<Sampler> {
        if !self.root.samplers.is_empty() {
            return Index::new(0);
        }
        self.root.push(Sampler {
            mag_filter: Some(Checked::Valid(MagFilter::Linear)),
            min_filter: Some(Checked::Valid(MinFilter::LinearMipmapLinear)),
            name: None,
            wrap_s: Checked::Valid(WrappingMode::Repeat),
            wrap_t: Checked::Valid(WrappingMode::Repeat),
            extensions: None,
            extras: None,
        })
    }
}

fn alpha_mode(blend: bool, cut: bool) -> AlphaMode {
    match (blend, cut) {
        (true, _) => AlphaMode::Blend,
        (false, true) => AlphaMode::Mask,
        (false, false) => AlphaMode::Opaque,
    }
}

/// Blended where something is partly transparent, cut out where texels are all or nothing.
fn alpha_of(picture: &RgbaImage, factor: f32) -> AlphaMode {
    let (mut cut, mut blend) = (false, factor < 1.0);
    for pixel in picture.pixels() {
        cut |= pixel.0[3] == 0;
        blend |= !matches!(pixel.0[3], 0 | 255);
    }
    alpha_mode(blend, cut)
}
