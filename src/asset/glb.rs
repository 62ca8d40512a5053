//! Writing binary glTF 2.0: one node a level of detail, one mesh, a primitive per part, pictures embedded as PNG.

use std::borrow::Cow;
use std::collections::BTreeMap;

use gltf::binary::{Glb, Header};
use gltf_json::buffer::{Target, View};
use gltf_json::mesh::{Mode, Primitive, Semantic};
use gltf_json::validation::{Checked, USize64};
use gltf_json::{Index, Node, Root, material};
use image::RgbaImage;
use serde_json::json;

use super::check_out::{check, parts};
use super::glb_accessor::Grid;
use super::tangents::with_tangents;
use super::{Asset, Mesh};
use crate::{Error, Result};

/// What a file holds beside the asset.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delivery<'a> {
    /// Coarser versions over the same materials, finest first (`MSFT_lod`).
    pub levels: &'a [Asset],
    /// Attributes as small integers (`KHR_mesh_quantization`): positions to 1/65,535 of the largest side.
    pub quantize: bool,
}

/// [`write()`] of the asset alone.
///
/// # Errors
/// As [`write()`].
pub fn to_bytes(asset: &Asset) -> Result<Vec<u8>> {
    write(asset, &Delivery::default())
}

/// The file's bytes. The same asset gives the same bytes. Normals are normalised, colours and
/// factors clamped to 0..1 (emission above 1 by `KHR_materials_emissive_strength`); indices take
/// 16 bits where they fit; parts with a normal map get tangents; [`Asset::extras`] goes to
/// `asset.extras`.
///
/// # Errors
/// [`Error::Invalid`] for an asset without triangles or with broken attribute lists,
/// [`Error::Failed`] if it exceeds the 4 GiB of a GLB.
pub fn write(asset: &Asset, delivery: &Delivery<'_>) -> Result<Vec<u8>> {
    check(asset)?;
    let mut writer = Writer::new(asset, delivery)?;
    let mut nodes = vec![writer.node("asset", asset)?];
    for (i, level) in delivery.levels.iter().enumerate() {
        check(level)?;
        nodes.push(writer.node(&format!("asset_lod{}", i + 1), level)?);
    }
    writer.chain(&nodes)?;
    let scene = gltf_json::Scene { extensions: None, extras: None, name: None, nodes: vec![nodes[0]] };
    writer.root.scene = Some(writer.root.push(scene));
    writer.finish()
}

pub(super) struct Writer<'a> {
    pub(super) asset: &'a Asset,
    pub(super) root: Root,
    bin: Vec<u8>,
    buffer: Index<gltf_json::Buffer>,
    /// Where positions become integers.
    pub(super) grid: Option<Grid>,
    /// Written materials by number and whether the part has texture coordinates: without
    /// them the textures must go.
    pub(super) materials: BTreeMap<(usize, bool), Index<material::Material>>,
    /// Written pictures by address: parts and materials share them.
    pub(super) pictures: BTreeMap<*const RgbaImage, Index<gltf_json::Texture>>,
}

impl<'a> Writer<'a> {
    fn new(asset: &'a Asset, delivery: &Delivery<'_>) -> Result<Self> {
        let mut root = Root::default();
        root.asset.generator = Some(format!("gen3d {}", env!("CARGO_PKG_VERSION")));
        if !asset.extras.is_empty() {
            let text = serde_json::value::to_raw_value(&asset.extras)
                .map_err(|e| Error::Failed(format!("the metadata cannot be written: {e}")))?;
            root.asset.extras = Some(text);
        }
        // The length is known at the end.
        let buffer = root.push(gltf_json::Buffer {
            byte_length: USize64(0),
            extensions: None,
            extras: None,
            name: None,
            uri: None,
        });
        let grid = delivery.quantize.then(|| Grid::over(asset, delivery.levels));
        if grid.is_some() {
            let name = "KHR_mesh_quantization".to_owned();
            root.extensions_required.push(name.clone());
            root.extensions_used.push(name);
        }
        let (materials, pictures) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { asset, root, bin: Vec::new(), buffer, grid, materials, pictures })
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.align();
        self.root.buffers[self.buffer.value()].byte_length = self.bin.len().into();
        let json = self
            .root
            .to_vec()
            .map_err(|e| Error::Failed(format!("the glTF document cannot be written: {e}")))?;
        if u32::try_from(json.len() + self.bin.len() + 64).is_err() {
            return Err(Error::Failed("the asset exceeds the 4 GiB of a GLB file".into())
                .hint("use fewer triangles or smaller textures"));
        }
        let header = Header { magic: *b"glTF", version: 2, length: 0 };
        Glb { header, json: Cow::Owned(json), bin: Some(Cow::Owned(self.bin)) }
            .to_vec()
            .map_err(|e| Error::Failed(format!("the GLB container cannot be written: {e}")))
    }

    /// A level of detail as a node with a mesh.
    fn node(&mut self, name: &str, level: &Asset) -> Result<Index<Node>> {
        let primitives = parts(level).map(|part| self.primitive(part)).collect::<Result<_>>()?;
        let mesh = self.root.push(gltf_json::Mesh {
            extensions: None,
            extras: None,
            name: Some(name.into()),
            primitives,
            weights: None,
        });
        let mut node = Node { mesh: Some(mesh), name: Some(name.into()), ..Default::default() };
        if let Some(grid) = &self.grid {
            (node.translation, node.scale) = (Some(grid.origin.to_array()), Some([grid.side; 3]));
        }
        Ok(self.root.push(node))
    }

    /// `MSFT_lod`: the first node names the others, and the share of the screen's height down to which each of
    /// them all is shown.
    fn chain(&mut self, nodes: &[Index<Node>]) -> Result<()> {
        let [first, rest @ ..] = nodes else { return Ok(()) };
        if rest.is_empty() {
            return Ok(());
        }
        let name = "MSFT_lod".to_owned();
        self.root.extensions_used.push(name.clone());
        let ids: Vec<usize> = rest.iter().map(Index::value).collect();
        let coverage: Vec<f32> = (0..nodes.len()).map(|i| 0.5 * 0.5f32.powi(i as i32)).collect();
        let extras = serde_json::value::to_raw_value(&json!({ "MSFT_screencoverage": coverage }))
            .map_err(|e| Error::Failed(e.to_string()))?;
        let node = &mut self.root.nodes[first.value()];
        node.extensions.get_or_insert_default().others.insert(name, json!({ "ids": ids }));
        node.extras = Some(extras);
        Ok(())
    }

    /// Every view starts at a multiple of four bytes.
    fn align(&mut self) {
        self.bin.resize(self.bin.len().next_multiple_of(4), 0);
    }

    pub(super) fn view(
        &mut self,
        bytes: &[u8],
        target: Option<Target>,
        stride: Option<usize>,
    ) -> Index<View> {
        self.align();
        let offset = self.bin.len();
        self.bin.extend_from_slice(bytes);
        self.root.push(View {
            buffer: self.buffer,
            byte_length: bytes.len().into(),
            byte_offset: Some(offset.into()),
            byte_stride: stride.map(gltf_json::buffer::Stride),
            extensions: None,
            extras: None,
            name: None,
            target: target.map(Checked::Valid),
        })
    }

    fn primitive(&mut self, part: &Mesh) -> Result<Primitive> {
        let bumpy = self.asset.materials.get(part.material).is_some_and(|m| m.maps.normal.is_some());
        let tangent = if bumpy { with_tangents(part) } else { None };
        let (part, tangents) = match &tangent {
            Some((part, tangents)) => (part, &tangents[..]),
            None => (part, &[][..]),
        };
        let mut attributes = BTreeMap::new();
        let mut put = |semantic, accessor| attributes.insert(Checked::Valid(semantic), accessor);
        put(Semantic::Positions, self.positions(&part.positions));
        if !part.normals.is_empty() {
            put(Semantic::Normals, self.normals(&part.normals));
        }
        if !tangents.is_empty() {
            put(Semantic::Tangents, self.tangents(tangents));
        }
        if !part.uvs.is_empty() {
            put(Semantic::TexCoords(0), self.uvs(&part.uvs));
        }
        if !part.colors.is_empty() {
            put(Semantic::Colors(0), self.colors(&part.colors));
        }
        Ok(Primitive {
            attributes,
            extensions: None,
            extras: None,
            indices: Some(self.indices(part)),
            material: self.material(part)?,
            mode: Checked::Valid(Mode::Triangles),
            targets: None,
        })
    }
}

/// Into 0..1; NaN becomes 0.
pub(super) fn share(x: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use glam::{Vec2, Vec3};

    use super::*;
    use crate::asset::{Material, from_gltf_bytes};

    /// Two parts that share a picture, and one that glows and has only colours.
    fn sample() -> Asset {
        let picture =
            Arc::new(RgbaImage::from_fn(16, 8, |x, y| image::Rgba([16 * x as u8, 30 * y as u8, 99, 255])));
        let quad = |offset: f32, material| Mesh {
            positions: [(0., 0.), (1., 0.), (1., 1.), (0., 1.)]
                .map(|(x, y)| Vec3::new(x + offset, y, 0.3))
                .to_vec(),
            normals: vec![Vec3::Z * 2.0; 4],
            uvs: vec![Vec2::ZERO, Vec2::X, Vec2::ONE, Vec2::Y],
            colors: Vec::new(),
            triangles: vec![[0, 1, 2], [0, 2, 3]],
            material,
        };
        let mut glow = quad(4.0, 2);
        (glow.uvs, glow.normals) = (Vec::new(), Vec::new());
        glow.colors = vec![Vec3::X, Vec3::Y, Vec3::splat(0.5), Vec3::new(2.0, -1.0, f32::NAN)];
        let textured =
            Material { base_color_texture: Some(picture), name: "wood".into(), ..Default::default() };
        let faint = Material { base_color: [0.2, 0.4, 0.6, 0.5], double_sided: true, ..textured.clone() };
        let lamp = Material { emissive: [4.0, 1.0, 0.0], metallic: 1.5, ..textured.clone() };
        let mut asset = Asset {
            meshes: vec![quad(0.0, 0), quad(2.0, 1), glow, Mesh::default()],
            materials: vec![textured, faint, lamp],
            ..Default::default()
        };
        asset.extras.insert("prompt".into(), "a \"blue\" jay".into());
        asset.extras.insert("seed".into(), 7.into());
        asset
    }

    #[test]
    fn comes_back_through_the_reader() {
        let asset = sample();
        let bytes = to_bytes(&asset).unwrap();
        assert_eq!(bytes, to_bytes(&asset).unwrap());
        assert_eq!(bytes.len() % 4, 0);
        let back = from_gltf_bytes(&bytes).unwrap();
        assert_eq!(back.meshes.len(), 3);
        for (a, b) in asset.meshes.iter().zip(&back.meshes) {
            assert_eq!(a.positions, b.positions);
            assert_eq!(a.triangles, b.triangles);
            assert_eq!(a.uvs, b.uvs);
        }
        assert_eq!(back.meshes[0].normals, vec![Vec3::Z; 4]);
        assert_eq!(back.meshes[2].colors[3], Vec3::X);
        let look = |part: usize| &back.materials[back.meshes[part].material];
        let source = asset.materials[0].base_color_texture.as_ref().unwrap();
        assert_eq!(look(0).base_color_texture.as_ref().unwrap(), source);
        assert_eq!(look(1).base_color, [0.2, 0.4, 0.6, 0.5]);
        assert!(look(1).double_sided && !look(0).double_sided);
        assert!(look(2).base_color_texture.is_none());
        assert_eq!((look(2).emissive, look(2).metallic), ([4.0, 1.0, 0.0], 1.0));
        assert_eq!(back.extras, asset.extras);
    }

    #[test]
    fn the_document_is_lean() {
        let gltf = gltf::Gltf::from_slice(&to_bytes(&sample()).unwrap()).unwrap();
        let document = gltf.document.as_json();
        assert!(document.asset.generator.as_ref().unwrap().starts_with("gen3d "));
        assert_eq!((document.images.len(), document.textures.len(), document.samplers.len()), (1, 1, 1));
        assert!(document.buffer_views.iter().all(|v| v.byte_offset.unwrap().0 % 4 == 0));
        let primitive = gltf.meshes().next().unwrap().primitives().next().unwrap();
        assert_eq!(primitive.bounding_box().max, [1.0, 1.0, 0.3]);
        assert_eq!(primitive.indices().unwrap().data_type(), gltf::accessor::DataType::U16);
    }

    #[test]
    fn wide_indices_only_where_needed() {
        let mut asset = sample();
        asset.meshes.truncate(1);
        let part = &mut asset.meshes[0];
        part.normals.clear();
        part.uvs.clear();
        for (vertices, wide) in [(65_535, false), (65_536, true)] {
            part.positions.resize(vertices, Vec3::Y);
            let asset = Asset { meshes: vec![part.clone()], ..Default::default() };
            let gltf = gltf::Gltf::from_slice(&to_bytes(&asset).unwrap()).unwrap();
            let indices = gltf.meshes().next().unwrap().primitives().next().unwrap().indices().unwrap();
            assert_eq!(indices.data_type() == gltf::accessor::DataType::U32, wide);
        }
    }

    #[test]
    fn broken_assets_are_refused() {
        assert!(to_bytes(&Asset::default()).is_err());
        let breaks: [fn(&mut Mesh); 5] = [
            |m| m.triangles[0][1] = 9,
            |m| m.positions[0].x = f32::NAN,
            |m| m.material = 99,
            |m| m.normals.truncate(3),
            |m| m.uvs[2].x = f32::INFINITY,
        ];
        for damage in breaks {
            let mut asset = sample();
            damage(&mut asset.meshes[1]);
            assert!(to_bytes(&asset).unwrap_err().to_string().contains("mesh 1"));
        }
    }
}
