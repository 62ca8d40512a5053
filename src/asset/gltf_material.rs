//! glTF materials and their pictures.

use std::{collections::HashMap, path::Path, sync::Arc};

use glam::{Affine2, Mat2, Vec2, Vec3};
use gltf::{Document, material::AlphaMode, texture::Info};
use image::RgbaImage;

use super::{
    Maps, Material, gltf_accessor,
    gltf_in::fetch,
    load::{Read, Reason},
};

/// Which texture coordinates a material's base colour uses, and how they are transformed.
pub(super) struct Look {
    pub(super) uv_set: u32,
    pub(super) uv_transform: Affine2,
}

/// All materials and their looks, and one default at the end.
pub(super) fn read(
    document: &Document,
    buffers: &[Vec<u8>],
    folder: Option<&Path>,
) -> Read<(Vec<Material>, Vec<Look>)> {
    let mut pictures = Pictures { document, buffers, folder, decoded: HashMap::new(), cut: HashMap::new() };
    let (mut materials, mut looks) = (Vec::new(), Vec::new());
    for source in document.materials() {
        let info = source.pbr_metallic_roughness().base_color_texture();
        looks.push(look(info.as_ref()));
        materials.push(pictures.material(&source)?);
    }
    materials.push(Material::default());
    looks.push(look(None));
    Ok((materials, looks))
}

/// KHR_texture_transform: translation · rotation · scale, applied to the mesh's coordinates.
fn look(info: Option<&Info<'_>>) -> Look {
    let mut look = Look { uv_set: info.map_or(0, Info::tex_coord), uv_transform: Affine2::IDENTITY };
    if let Some(transform) = info.and_then(Info::texture_transform) {
        let (sin, cos) = transform.rotation().sin_cos();
        let rotation = Mat2::from_cols(Vec2::new(cos, -sin), Vec2::new(sin, cos));
        let scale = Mat2::from_diagonal(Vec2::from(transform.scale()));
        look.uv_transform = Affine2::from_mat2_translation(rotation * scale, Vec2::from(transform.offset()));
        look.uv_set = transform.tex_coord().unwrap_or(look.uv_set);
    }
    look
}

/// How a material uses alpha.
#[derive(Clone, Copy, PartialEq)]
enum Alpha {
    Ignored,
    Cut(f32),
    Blended,
}

struct Pictures<'a> {
    document: &'a Document,
    buffers: &'a [Vec<u8>],
    folder: Option<&'a Path>,
    decoded: HashMap<usize, Arc<RgbaImage>>,
    /// By picture, alpha use and alpha factor (as bits).
    cut: HashMap<(usize, u64), Arc<RgbaImage>>,
}

impl Pictures<'_> {
    fn material(&mut self, source: &gltf::Material<'_>) -> Read<Material> {
        let pbr = source.pbr_metallic_roughness();
        let mut base_color = pbr.base_color_factor();
        let alpha = match source.alpha_mode() {
            AlphaMode::Opaque => Alpha::Ignored,
            AlphaMode::Mask => Alpha::Cut(source.alpha_cutoff().unwrap_or(0.5)),
            AlphaMode::Blend => Alpha::Blended,
        };
        let base_color_texture = match pbr.base_color_texture() {
            Some(info) => Some(self.with_alpha(&info, alpha, base_color[3])?),
            None => None,
        };
        base_color[3] = match alpha {
            Alpha::Blended => base_color[3],
            Alpha::Cut(cutoff) if base_color_texture.is_none() => {
                f32::from(u8::from(base_color[3] >= cutoff))
            }
            _ => 1.0,
        };
        let (metallic, roughness) = (pbr.metallic_factor(), pbr.roughness_factor());
        let emissive = Vec3::from(source.emissive_factor()) * source.emissive_strength().unwrap_or(1.0);
        let maps = self.maps(source)?;
        let numbers = base_color.iter().chain([&metallic, &roughness]).chain(emissive.as_ref().iter());
        if numbers.into_iter().any(|x| !x.is_finite()) {
            return Err("a material factor is not a finite number".into());
        }
        Ok(Material {
            name: source.name().unwrap_or_default().into(),
            base_color,
            base_color_texture,
            metallic,
            roughness,
            emissive: emissive.to_array(),
            maps,
            double_sided: source.double_sided(),
        })
    }

    /// The further pictures, as far as they lie on the surface as the base colour does: a mesh has one set of
    /// texture coordinates here.
    fn maps(&mut self, source: &gltf::Material<'_>) -> Read<Maps> {
        let pbr = source.pbr_metallic_roughness();
        let base = pbr.base_color_texture();
        let look = look(base.as_ref());
        let fits = |set: u32, moved: bool| set == look.uv_set && !moved;
        let same = |info: &Info<'_>| {
            let own = self::look(Some(info));
            base.is_none() && info.texture_transform().is_none() && info.tex_coord() == 0
                || own.uv_set == look.uv_set && own.uv_transform == look.uv_transform
        };
        let moved = base.as_ref().is_some_and(|b| b.texture_transform().is_some());
        let mut maps = Maps::default();
        if let Some(info) = pbr.metallic_roughness_texture().filter(same) {
            maps.metallic_roughness = Some(self.picture(&info.texture())?);
        }
        if let Some(info) = source.emissive_texture().filter(same) {
            maps.emissive = Some(self.picture(&info.texture())?);
        }
        if let Some(info) = source.normal_texture().filter(|n| fits(n.tex_coord(), moved)) {
            maps.normal = Some((self.picture(&info.texture())?, info.scale()));
        }
        if let Some(info) = source.occlusion_texture().filter(|o| fits(o.tex_coord(), moved)) {
            maps.occlusion = Some(self.picture(&info.texture())?);
        }
        Ok(maps)
    }

    fn picture(&mut self, texture: &gltf::Texture<'_>) -> Read<Arc<RgbaImage>> {
        let source = texture.source();
        if let Some(done) = self.decoded.get(&source.index()) {
            return Ok(done.clone());
        }
        let number = source.index();
        // Not `source.source()`, which panics if an image has no type or no data.
        let entry = &self.document.as_json().images[number];
        let image = match (&entry.buffer_view, &entry.uri) {
            (Some(view), _) => {
                let view = self.document.views().nth(view.value());
                let bytes = view.and_then(|v| gltf_accessor::view_bytes(&v, self.buffers));
                decode(bytes.ok_or_else(|| format!("image {number} reaches beyond its buffer"))?)
            }
            (None, Some(uri)) => decode(&fetch(uri, self.folder)?),
            (None, None) => Err("it has no data".into()),
        };
        let image = Arc::new(image.map_err(|r| Reason { text: format!("image {number}: {}", r.text), ..r })?);
        self.decoded.insert(number, image.clone());
        Ok(image)
    }

    /// The base colour picture with its alpha as this house means it: 255 where alpha is ignored,
    /// 0 or 255 where it is cut (so that the cut is at 1/2 whatever the material's own cutoff).
    fn with_alpha(&mut self, info: &Info<'_>, alpha: Alpha, factor: f32) -> Read<Arc<RgbaImage>> {
        let picture = self.picture(&info.texture())?;
        let cutoff = match alpha {
            Alpha::Blended => return Ok(picture),
            Alpha::Ignored => 0.0,
            Alpha::Cut(cutoff) => cutoff / factor.max(1e-6),
        };
        let keep = |a: u8| if f32::from(a) / 255.0 >= cutoff { 255 } else { 0 };
        if picture.pixels().all(|p| keep(p.0[3]) == p.0[3]) {
            return Ok(picture);
        }
        let key = (info.texture().source().index(), u64::from(cutoff.to_bits()));
        let changed = self.cut.entry(key).or_insert_with(|| {
            let mut image = RgbaImage::clone(&picture);
            image.pixels_mut().for_each(|p| p.0[3] = keep(p.0[3]));
            Arc::new(image)
        });
        Ok(changed.clone())
    }
}

/// Decodes PNG, JPEG or WebP by its first bytes, whatever the file says it is.
pub(super) fn decode(bytes: &[u8]) -> Read<RgbaImage> {
    let mut reader = image::ImageReader::new(std::io::Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| format!("the picture cannot be read: {e}"))?;
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(16_384);
    limits.max_image_height = Some(16_384);
    reader.limits(limits);
    let image = reader.decode().map_err(|e| {
        Reason::from(format!("the picture cannot be decoded: {e}")).hint("use PNG, JPEG or WebP pictures")
    })?;
    Ok(image.into_rgba8())
}
