//! Opening a file of any supported kind, and what every asset must satisfy afterwards.

use std::path::Path;

use glam::Vec3;

use super::{Asset, Mesh, gltf_in, obj_in, recipe};
use crate::error::{Error, Result};

/// Larger files are refused: this is a tool for game assets.
const MAX_BYTES: u64 = 2 << 30;
/// More vertices or corners than this in one file are taken for corruption.
pub(super) const MAX_ELEMENTS: usize = 1 << 26;

/// Why a file's contents cannot be used; the caller adds the path.
pub(super) struct Reason {
    pub(super) text: String,
    pub(super) hint: Option<&'static str>,
}

impl<T: Into<String>> From<T> for Reason {
    fn from(text: T) -> Self {
        Self { text: text.into(), hint: None }
    }
}

impl Reason {
    pub(super) fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

/// The readers' result: no path yet.
pub(super) type Read<T> = std::result::Result<T, Reason>;

/// Reads a GLB, glTF or OBJ file into world space; see [`Asset`] for the conventions. A `.toml`
/// file is a [`recipe`], built with seed 0.
///
/// Textures and material files are looked up relative to the file. Animations, skins and morph
/// targets are ignored: meshes come as they are stored.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read, [`Error::File`] if its contents are unusable.
pub fn load(path: &Path) -> Result<Asset> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    if extension == "toml" {
        return recipe::load(path)?.build(0);
    }
    if !matches!(extension.as_str(), "glb" | "gltf" | "obj") {
        return Err(Error::file(path, format!("`.{extension}` is not a model format that can be read"))
            .hint("use a .glb, .gltf or .obj model or a .toml recipe"));
    }
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if size > MAX_BYTES {
        return Err(Error::file(path, format!("{size} bytes is more than the limit of 2 GiB")));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    parse(&bytes, &extension, path.parent()).map_err(|reason| {
        let error = Error::file(path, reason.text);
        match reason.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

/// Reads a GLB or glTF file's bytes; references to other files are refused.
///
/// # Errors
/// [`Error::Invalid`] if the contents are unusable.
pub fn from_gltf_bytes(bytes: &[u8]) -> Result<Asset> {
    parse(bytes, "glb", None).map_err(|reason| Error::invalid("glTF", reason.text))
}

/// Reads an OBJ file's bytes; its material files and textures are not looked for.
///
/// # Errors
/// [`Error::Invalid`] if the contents are unusable.
pub fn from_obj_bytes(bytes: &[u8]) -> Result<Asset> {
    parse(bytes, "obj", None).map_err(|reason| Error::invalid("OBJ", reason.text))
}

pub(super) fn parse(bytes: &[u8], extension: &str, folder: Option<&Path>) -> Read<Asset> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let mut asset =
        if extension == "obj" { obj_in::read(bytes, folder)? } else { gltf_in::read(bytes, folder)? };
    asset.meshes.retain(|m| !m.triangles.is_empty());
    for (number, mesh) in asset.meshes.iter_mut().enumerate() {
        check(mesh).map_err(|reason| Reason { text: format!("mesh {number}: {}", reason.text), ..reason })?;
    }
    if asset.meshes.is_empty() {
        return Err(Reason::from("no triangles in it").hint("points, lines and empty scenes cannot be used"));
    }
    Ok(asset)
}

/// Everything finite, everything in range, attributes as long as the positions; normals unit.
fn check(mesh: &mut Mesh) -> Read<()> {
    let count = mesh.positions.len();
    if let Some(i) = mesh.positions.iter().position(|p| !p.is_finite()) {
        return Err(format!("the position of vertex {i} is not a finite number").into());
    }
    // Beyond this, squared lengths overflow.
    if let Some(i) = mesh.positions.iter().position(|p| p.abs().max_element() > 1e15) {
        return Err(format!("vertex {i} is at {}, too far away", mesh.positions[i]).into());
    }
    if let Some(i) = mesh.triangles.iter().position(|t| t.iter().any(|&i| i as usize >= count)) {
        let [a, b, c] = mesh.triangles[i];
        return Err(format!("triangle {i} uses vertices {a}, {b}, {c} of only {count}").into());
    }
    if mesh.uvs.len() != count || mesh.uvs.iter().any(|uv| !uv.is_finite()) {
        mesh.uvs.clear();
    }
    if mesh.colors.len() != count || mesh.colors.iter().any(|c| !c.is_finite()) {
        mesh.colors.clear();
    }
    if mesh.normals.len() != count {
        mesh.normals.clear();
    }
    for normal in &mut mesh.normals {
        *normal = normal.try_normalize().unwrap_or(Vec3::Y);
    }
    Ok(())
}
