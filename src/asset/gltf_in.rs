//! glTF 2.0 and GLB into [`Asset`]s: scene graph, primitives, buffers.

use std::{borrow::Cow, path::Path};

use glam::{Mat3, Mat4, Vec2, Vec3};
use gltf::{Document, Semantic, mesh::Mode};
use serde_json::Value;

use super::{
    Asset, Mesh, gltf_accessor as accessor,
    gltf_material::{self, Look},
    load::{MAX_ELEMENTS, Read, Reason},
    normals,
};

/// Extensions without which a file is read correctly, or nearly so (`KHR_materials_…` change how a
/// surface shines, not where it is or its base colour).
const SUPPORTED: [&str; 5] = [
    "KHR_texture_transform",
    "KHR_mesh_quantization",
    "EXT_texture_webp",
    "KHR_lights_punctual",
    "KHR_xmp_json_ld",
];

/// Reads GLB (by its magic) or glTF JSON; `folder` is where relative URIs point.
pub(super) fn read(bytes: &[u8], folder: Option<&Path>) -> Read<Asset> {
    let (json, blob) = split(bytes)?;
    let mut json: Value = serde_json::from_slice(&json).map_err(|e| {
        Reason::from(format!("not glTF: {e}")).hint("the file may be of another kind than its name says")
    })?;
    match json.pointer("/asset/version").and_then(Value::as_str) {
        Some(version) if version.starts_with("2.") => {}
        Some(version) => return Err(old(version)),
        None if json.pointer("/meshes").is_some_and(Value::is_object) => return Err(old("1.0")),
        None => {
            return Err(Reason::from("not glTF: there is no asset.version").hint("glTF 2.0 is needed"));
        }
    }
    let extras = json.pointer("/asset/extras").and_then(Value::as_object).cloned().unwrap_or_default();
    adapt(&mut json)?;
    let root = serde_json::from_value(json).map_err(|e| format!("invalid glTF: {e}"))?;
    let document = Document::from_json(root).map_err(|e| e.to_string())?;
    let buffers = buffers(&document, blob, folder)?;
    let (materials, looks) = gltf_material::read(&document, &buffers, folder)?;
    let asset = Asset { meshes: Vec::new(), materials, extras };
    let mut reader =
        Reader { buffers, looks, asset, visited: vec![false; document.nodes().len()], corners: 0 };
    for node in roots(&document) {
        reader.node(&node, Mat4::IDENTITY, 0)?;
    }
    Ok(reader.asset)
}

/// Why another version cannot be read.
fn old(version: &str) -> Reason {
    let text = format!("it is glTF {}, only 2.0 can be read", version.chars().take(12).collect::<String>());
    Reason::from(text).hint("export it again as glTF 2.0, with Blender for example")
}

/// The JSON of a file and, of a GLB, its binary chunk.
type Chunks<'a> = (Cow<'a, [u8]>, Option<Vec<u8>>);

/// The JSON and binary chunks.
fn split(bytes: &[u8]) -> Read<Chunks<'_>> {
    if !bytes.starts_with(b"glTF") {
        return Ok((Cow::Borrowed(bytes), None));
    }
    let length = bytes.get(8..12).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    match length {
        None => return Err("truncated: the GLB header is incomplete".into()),
        Some(_) if bytes[4..8] == 1u32.to_le_bytes() => return Err(old("1.0")),
        Some(length) if length < 20 => return Err(format!("the GLB header claims {length} bytes").into()),
        Some(length) if length > bytes.len() => {
            return Err(Reason::from(format!("truncated: {} of {length} bytes are there", bytes.len()))
                .hint("copy or download the file again"));
        }
        Some(_) => {}
    }
    let glb = gltf::Glb::from_slice(bytes).map_err(|e| format!("invalid GLB: {e}"))?;
    Ok((glb.json, glb.bin.map(Cow::into_owned)))
}

/// Refuses what cannot be read and rewrites the rest so that the strict parser accepts it.
fn adapt(json: &mut Value) -> Read<()> {
    let required = json.get("extensionsRequired").and_then(Value::as_array).cloned().unwrap_or_default();
    for name in required.iter().filter_map(Value::as_str) {
        if !SUPPORTED.contains(&name) && !name.starts_with("KHR_materials_") {
            return Err(Reason::from(format!(
                "the file needs the glTF extension {name}, which is not supported"
            ))
            .hint("export without compression (Draco, meshopt, Basis) and with PNG or JPEG textures"));
        }
    }
    if let Some(object) = json.as_object_mut() {
        object.remove("extensionsRequired");
    }
    for texture in json.get_mut("textures").and_then(Value::as_array_mut).into_iter().flatten() {
        let webp = texture.pointer("/extensions/EXT_texture_webp/source").cloned();
        if let (Some(source), Some(object)) = (webp, texture.as_object_mut()) {
            object.insert("source".into(), source);
        }
    }
    adapt_positions(json)
}

/// The strict parser indexes the position accessors of primitives before it has checked them, and
/// it insists on their bounds, which some exporters leave out and which nobody here reads.
fn adapt_positions(json: &mut Value) -> Read<()> {
    let meshes = json.get("meshes").and_then(Value::as_array).into_iter().flatten();
    let primitives = meshes.filter_map(|m| m.get("primitives")?.as_array()).flatten();
    let used: Vec<u64> = primitives.filter_map(|p| p.pointer("/attributes/POSITION")?.as_u64()).collect();
    let mut accessors = json.get_mut("accessors").and_then(Value::as_array_mut);
    for number in used {
        let accessor = accessors.as_mut().and_then(|list| list.get_mut(usize::try_from(number).ok()?));
        let object = accessor.and_then(Value::as_object_mut);
        let object =
            object.ok_or_else(|| format!("a primitive uses accessor {number}, which is not there"))?;
        for bound in ["min", "max"] {
            object.entry(bound).or_insert_with(|| Value::from(vec![0.0; 3]));
        }
    }
    Ok(())
}

/// The bytes of every buffer.
fn buffers(document: &Document, mut blob: Option<Vec<u8>>, folder: Option<&Path>) -> Read<Vec<Vec<u8>>> {
    let mut buffers = Vec::new();
    for buffer in document.buffers() {
        let (number, length) = (buffer.index(), buffer.length());
        let data = match buffer.source() {
            gltf::buffer::Source::Bin => {
                blob.take().ok_or_else(|| format!("buffer {number}: the binary chunk is missing"))?
            }
            gltf::buffer::Source::Uri(uri) => fetch(uri, folder)?,
        };
        if data.len() < length {
            return Err(format!("buffer {number} should hold {length} bytes but has {}", data.len()).into());
        }
        buffers.push(data);
    }
    Ok(buffers)
}

/// The bytes behind a `data:` URI or a path relative to `folder`.
pub(super) fn fetch(uri: &str, folder: Option<&Path>) -> Read<Vec<u8>> {
    if uri.starts_with("data:") {
        let data = gltf::buffer::Data::from_source(gltf::buffer::Source::Uri(uri), None);
        return Ok(data.map_err(|e| format!("invalid data URI: {e}"))?.0);
    }
    let relative = percent_decoded(uri);
    let folder = folder.ok_or_else(|| format!("it refers to another file, {relative}"))?;
    std::fs::read(folder.join(&relative)).map_err(|e| {
        Reason::from(format!("{relative}, which it refers to: {e}"))
            .hint("keep the file's buffers and textures beside it, or use a self-contained .glb")
    })
}

fn percent_decoded(uri: &str) -> String {
    let bytes = uri.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = uri.get(i + 1..i + 3).and_then(|h| u8::from_str_radix(h, 16).ok());
        match hex {
            Some(byte) if bytes[i] == b'%' => {
                decoded.push(byte);
                i += 3;
            }
            _ => {
                decoded.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The nodes of the default scene, else of the first, else all that are nobody's child.
fn roots(document: &Document) -> Vec<gltf::Node<'_>> {
    if let Some(scene) = document.default_scene().or_else(|| document.scenes().next()) {
        return scene.nodes().collect();
    }
    let children: Vec<usize> = document.nodes().flat_map(|n| n.children().map(|c| c.index())).collect();
    document.nodes().filter(|n| !children.contains(&n.index())).collect()
}

struct Reader {
    buffers: Vec<Vec<u8>>,
    looks: Vec<Look>,
    asset: Asset,
    visited: Vec<bool>,
    /// Triangle corners read so far, over all instances.
    corners: usize,
}

impl Reader {
    fn node(&mut self, node: &gltf::Node<'_>, parent: Mat4, depth: usize) -> Read<()> {
        if std::mem::replace(&mut self.visited[node.index()], true) || depth > 256 {
            return Err(format!("node {} is its own ancestor or has two parents", node.index()).into());
        }
        let transform = parent * Mat4::from_cols_array_2d(&node.transform().matrix());
        if let Some(mesh) = node.mesh() {
            for primitive in mesh.primitives() {
                let place = |reason: Reason| Reason {
                    text: format!("mesh {} primitive {}: {}", mesh.index(), primitive.index(), reason.text),
                    ..reason
                };
                let mesh = self.primitive(&primitive, transform).map_err(place)?;
                self.asset.meshes.extend(mesh);
            }
        }
        for child in node.children() {
            self.node(&child, transform, depth + 1)?;
        }
        Ok(())
    }

    /// One primitive in world space; `None` for points and lines.
    fn primitive(&mut self, primitive: &gltf::Primitive<'_>, transform: Mat4) -> Read<Option<Mesh>> {
        let mode = primitive.mode();
        let Some(positions) = primitive.get(&Semantic::Positions) else { return Ok(None) };
        if matches!(mode, Mode::Points | Mode::Lines | Mode::LineLoop | Mode::LineStrip) {
            return Ok(None);
        }
        let buffers = &self.buffers;
        let vectors = |semantic: Semantic| -> Read<Vec<Vec3>> {
            let Some(accessor) = primitive.get(&semantic) else { return Ok(Vec::new()) };
            Ok(accessor::floats::<3>(&accessor, buffers)?.into_iter().map(Vec3::from).collect())
        };
        let order = match primitive.indices() {
            Some(accessor) => accessor::indices(&accessor, buffers)?,
            None => (0..positions.count().min(MAX_ELEMENTS) as u32).collect(),
        };
        self.corners += order.len();
        if self.corners > MAX_ELEMENTS {
            return Err(format!("more than {MAX_ELEMENTS} triangle corners in all").into());
        }
        let look = primitive.material().index().unwrap_or(self.looks.len() - 1);
        let mut mesh = Mesh {
            positions: vectors(Semantic::Positions)?,
            normals: vectors(Semantic::Normals)?,
            uvs: Vec::new(),
            colors: vectors(Semantic::Colors(0))?,
            triangles: triangles(mode, &order),
            material: look,
        };
        let look = &self.looks[look];
        if let Some(accessor) = primitive.get(&Semantic::TexCoords(look.uv_set)) {
            let uvs = accessor::floats::<2>(&accessor, buffers)?;
            mesh.uvs = uvs.into_iter().map(|uv| look.uv_transform.transform_point2(Vec2::from(uv))).collect();
        }
        let count = mesh.positions.len() as u32;
        if let Some(i) = order.iter().find(|&&i| i >= count) {
            return Err(format!("index {i} is out of range: there are {count} vertices").into());
        }
        place(&mut mesh, transform);
        Ok(Some(mesh))
    }
}

/// Independent triangles of a list, strip or fan; those that repeat a vertex are left out.
fn triangles(mode: Mode, order: &[u32]) -> Vec<[u32; 3]> {
    let all: Vec<[u32; 3]> = match mode {
        Mode::TriangleStrip => (2..order.len())
            .map(|i| if i % 2 == 0 { [i - 2, i - 1, i] } else { [i - 1, i - 2, i] })
            .map(|corners| corners.map(|i| order[i]))
            .collect(),
        Mode::TriangleFan => (2..order.len()).map(|i| [order[0], order[i - 1], order[i]]).collect(),
        _ => order.chunks_exact(3).map(|t| [t[0], t[1], t[2]]).collect(),
    };
    all.into_iter().filter(|[a, b, c]| a != b && b != c && a != c).collect()
}

/// Moves a mesh into world space; gives it normals if it has none (flat, as the standard says).
fn place(mesh: &mut Mesh, transform: Mat4) {
    let linear = Mat3::from_mat4(transform);
    for position in &mut mesh.positions {
        *position = transform.transform_point3(*position);
    }
    let mirrored = linear.determinant() < 0.0;
    if mirrored {
        for triangle in &mut mesh.triangles {
            triangle.swap(1, 2);
        }
    }
    if mesh.normals.len() == mesh.positions.len() {
        // The cofactor matrix: the inverse transpose up to scale, but defined for flat transforms.
        let (x, y, z) = (linear.x_axis, linear.y_axis, linear.z_axis);
        let sign = if mirrored { -1.0 } else { 1.0 };
        let to_normal = Mat3::from_cols(y.cross(z), z.cross(x), x.cross(y)) * sign;
        for normal in &mut mesh.normals {
            *normal = to_normal * *normal;
        }
    } else {
        normals::generate(mesh, 0.0);
    }
}
