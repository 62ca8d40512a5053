//! Writing Wavefront OBJ with its material file and textures.

use std::fmt::Write;
use std::sync::Arc;

use image::RgbaImage;

use super::check_out::{check, parts, png, unit};
use super::{Asset, Material, Mesh};
use crate::Result;
use crate::render::color::linear_to_srgb;

/// The contents of the files that make up an OBJ asset.
#[derive(Debug, Clone)]
pub struct ObjFiles {
    /// The `.obj` text.
    pub obj: String,
    /// Name and text of the material file.
    pub mtl: (String, String),
    /// Names (`<stem>_<n>.png`) and bytes of the textures.
    pub textures: Vec<(String, Vec<u8>)>,
}

/// OBJ, MTL and PNG contents for files that will be called `stem`. Colours are sRGB, v counts from
/// the picture's bottom, roughness and metalness go to `Pr` and `Pm`.
///
/// # Errors
/// [`crate::Error::Invalid`] for an asset without triangles or with broken attribute lists.
pub fn to_files(asset: &Asset, stem: &str) -> Result<ObjFiles> {
    check(asset)?;
    // Names with blanks are read differently by every program.
    let stem: String = stem.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
    let mut files =
        ObjFiles { obj: String::new(), mtl: (format!("{stem}.mtl"), String::new()), textures: Vec::new() };
    let mut pictures: Vec<Arc<RgbaImage>> = Vec::new();
    for (number, material) in asset.materials.iter().enumerate() {
        let picture = material.base_color_texture.as_ref();
        let texture = picture.map(|p| match pictures.iter().position(|q| Arc::ptr_eq(p, q)) {
            Some(known) => known,
            None => {
                pictures.push(p.clone());
                pictures.len() - 1
            }
        });
        describe(&mut files.mtl.1, material, number, texture.map(|t| format!("{stem}_{t}.png")));
    }
    for (number, picture) in pictures.iter().enumerate() {
        files.textures.push((format!("{stem}_{number}.png"), png(picture)?));
    }
    let _ = writeln!(files.obj, "# gen3d {}\nmtllib {stem}.mtl", env!("CARGO_PKG_VERSION"));
    let mut base = [1; 3];
    for (number, part) in parts(asset).enumerate() {
        let _ = writeln!(files.obj, "o part{number}");
        if part.material < asset.materials.len() {
            let _ = writeln!(files.obj, "usemtl material{}", part.material);
        }
        write_part(&mut files.obj, part, &mut base);
    }
    Ok(files)
}

// Writing to a String cannot fail, hence the ignored results in this file.
fn describe(mtl: &mut String, material: &Material, number: usize, texture: Option<String>) {
    let [r, g, b] = [0, 1, 2].map(|i| linear_to_srgb(material.base_color[i].clamp(0.0, 1.0)));
    let [er, eg, eb] = material.emissive.map(|e| linear_to_srgb(e.clamp(0.0, 1.0)));
    let _ = writeln!(mtl, "newmtl material{number}\nKd {r} {g} {b}\nKe {er} {eg} {eb}");
    let _ =
        writeln!(mtl, "d {}\nPr {}\nPm {}", material.base_color[3], material.roughness, material.metallic);
    if let Some(name) = texture {
        let _ = writeln!(mtl, "map_Kd {name}");
    }
}

/// `base`: the file's next position, texture coordinate and normal number.
fn write_part(obj: &mut String, part: &Mesh, base: &mut [usize; 3]) {
    for (i, p) in part.positions.iter().enumerate() {
        let _ = write!(obj, "v {} {} {}", p.x, p.y, p.z);
        if let Some(c) = part.colors.get(i) {
            let [r, g, b] = c.to_array().map(|x| linear_to_srgb(x.clamp(0.0, 1.0)));
            let _ = write!(obj, " {r} {g} {b}");
        }
        obj.push('\n');
    }
    for uv in &part.uvs {
        let _ = writeln!(obj, "vt {} {}", uv.x, 1.0 - uv.y);
    }
    for n in part.normals.iter().map(|n| unit(*n)) {
        let _ = writeln!(obj, "vn {} {} {}", n.x, n.y, n.z);
    }
    let (uvs, normals) = (!part.uvs.is_empty(), !part.normals.is_empty());
    for triangle in &part.triangles {
        obj.push('f');
        for v in triangle.map(|v| v as usize) {
            let (p, t, n) = (base[0] + v, base[1] + v, base[2] + v);
            let _ = match (uvs, normals) {
                (true, true) => write!(obj, " {p}/{t}/{n}"),
                (true, false) => write!(obj, " {p}/{t}"),
                (false, true) => write!(obj, " {p}//{n}"),
                (false, false) => write!(obj, " {p}"),
            };
        }
        obj.push('\n');
    }
    let counts = [part.positions.len(), part.uvs.len(), part.normals.len()];
    base.iter_mut().zip(counts).for_each(|(b, c)| *b += c);
}
