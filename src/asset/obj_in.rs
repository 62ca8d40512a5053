//! Wavefront OBJ and MTL into [`Asset`]s.

use std::{
    borrow::Cow,
    io::Cursor,
    path::{Path, PathBuf},
    sync::Arc,
};

use glam::{Vec2, Vec3};
use image::RgbaImage;

use super::{Asset, Material, Mesh, gltf_material, load::Read, normals};
use crate::render::color::srgb_to_linear;

/// Faces that meet at less than this look smooth where a file has no normals; degrees.
const CREASE: f32 = 45.0;

/// Reads an OBJ file; `folder` is where its material files and textures are. Missing material
/// files and pictures leave surfaces plain; faces without a known material get the default one.
pub(super) fn read(bytes: &[u8], folder: Option<&Path>) -> Read<Asset> {
    // Comments and names in old files are often not UTF-8.
    let text = String::from_utf8_lossy(bytes);
    if text.contains('\0') {
        return Err("not OBJ: it holds binary data".into());
    }
    // Exporters write `usemtl` without a name for faces without a material.
    let nameless = |line: &str| line.trim() == "usemtl";
    let text: Cow<'_, str> = match text.lines().any(nameless) {
        true => text.lines().filter(|l| !nameless(l)).collect::<Vec<_>>().join("\n").into(),
        false => text,
    };
    let options =
        tobj::LoadOptions { single_index: true, triangulate: true, ignore_points: true, ignore_lines: true };
    let library = |name: &Path| library(folder.map(|f| f.join(name)));
    let (models, materials) = tobj::load_obj_buf(&mut Cursor::new(text.as_bytes()), &options, library)
        .map_err(|e| format!("invalid OBJ: {e}"))?;
    let materials = materials.unwrap_or_default();
    let mut asset =
        Asset { materials: materials.iter().map(|m| material(m, folder)).collect(), ..Asset::default() };
    asset.materials.push(Material::default());
    let plain = asset.materials.len() - 1;
    for model in models {
        let number = model.mesh.material_id.unwrap_or(plain);
        asset.meshes.push(mesh(&model.mesh, number));
    }
    Ok(asset)
}

fn mesh(source: &tobj::Mesh, material: usize) -> Mesh {
    let vectors = |values: &[f32]| values.chunks_exact(3).map(Vec3::from_slice).collect::<Vec<_>>();
    let mut mesh = Mesh {
        positions: vectors(&source.positions),
        normals: vectors(&source.normals),
        // OBJ counts v from the picture's bottom.
        uvs: source.texcoords.chunks_exact(2).map(|uv| Vec2::new(uv[0], 1.0 - uv[1])).collect(),
        colors: source.vertex_color.chunks_exact(3).map(|c| linear([c[0], c[1], c[2]])).collect(),
        triangles: source.indices.chunks_exact(3).map(|t| [t[0], t[1], t[2]]).collect(),
        material,
    };
    // Where only some corners have an attribute, the list is short and says nothing about which.
    let count = mesh.positions.len();
    if mesh.uvs.len() != count {
        mesh.uvs.clear();
    }
    if mesh.colors.len() != count {
        mesh.colors.clear();
    }
    if mesh.normals.len() != count {
        normals::generate(&mut mesh, CREASE);
    }
    mesh
}

/// Colours in these files are what a colour picker showed, sRGB.
fn linear(color: [f32; 3]) -> Vec3 {
    Vec3::from(color.map(|x| srgb_to_linear(x.clamp(0.0, 1.0))))
}

/// The materials of an MTL file; none if it is missing.
fn library(path: Option<PathBuf>) -> tobj::MTLLoadResult {
    let bytes = path.and_then(|p| std::fs::read(p).ok()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let usable: Vec<&str> = text.lines().filter(|line| is_complete(line)).collect();
    tobj::load_mtl_buf(&mut Cursor::new(usable.join("\n")))
}

/// False for a colour with fewer than three numbers, at which the parser would panic.
fn is_complete(line: &str) -> bool {
    let mut words = line.split_whitespace();
    !matches!(words.next(), Some("Ka" | "Kd" | "Ks" | "Ke")) || words.count() >= 3
}

fn material(source: &tobj::Material, folder: Option<&Path>) -> Material {
    let texture = source.diffuse_texture.as_deref().and_then(|name| picture(name, folder));
    // Exporters write Kd 0 beside a texture that is meant to be seen as it is.
    let diffuse = match source.diffuse {
        Some(kd) if texture.is_none() || kd.iter().any(|&x| x > 0.0) => linear(kd),
        _ => Vec3::ONE,
    };
    let number = |name: &str| source.unknown_param.get(name).and_then(|v| v.parse::<f32>().ok());
    // Blinn exponent to roughness: k = 2 / roughness⁴ − 2 (Karis 2013).
    let from_shininess = source.shininess.map(|k| (2.0 / (k.max(0.0) + 2.0)).powf(0.25));
    Material {
        name: source.name.clone(),
        base_color: diffuse.extend(source.dissolve.unwrap_or(1.0).clamp(0.0, 1.0)).to_array(),
        base_color_texture: texture.map(Arc::new),
        metallic: number("Pm").unwrap_or(0.0).clamp(0.0, 1.0),
        roughness: number("Pr").or(from_shininess).unwrap_or(0.8).clamp(0.0, 1.0),
        emissive: source.emissive.map_or([0.0; 3], |c| linear(c).to_array()),
        maps: super::Maps::default(),
        double_sided: true,
    }
}

/// A texture by the name in the file, which may have options before it and backslashes in it.
fn picture(name: &str, folder: Option<&Path>) -> Option<RgbaImage> {
    let folder = folder?;
    let last_word = name.split_whitespace().next_back()?;
    [name, last_word].into_iter().find_map(|candidate| {
        let bytes = std::fs::read(folder.join(candidate.replace('\\', "/"))).ok()?;
        gltf_material::decode(&bytes).ok()
    })
}
