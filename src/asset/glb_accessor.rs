//! Vertex attributes of binary glTF: as floats, or as small integers.

use bytemuck::{NoUninit, cast_slice};
use glam::{Vec2, Vec3};
use gltf_json::accessor::{ComponentType, GenericComponentType, Type};
use gltf_json::buffer::Target;
use gltf_json::validation::{Checked, USize64};
use gltf_json::{Accessor, Index};
use serde_json::Value;

use super::check_out::unit;
use super::glb::{Writer, share};
use super::{Asset, Mesh};

/// A cube whose sides are cut into 65,535 steps: one for all parts and levels, so that what touched still does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    /// The least corner.
    pub(super) origin: Vec3,
    /// The side; positive.
    pub(super) side: f32,
}

impl Grid {
    /// The smallest that holds all vertices.
    pub(super) fn over(asset: &Asset, levels: &[Asset]) -> Self {
        let all = std::iter::once(asset).chain(levels).filter_map(Asset::bounds);
        let (low, high) = all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_default();
        let side = (high - low).max_element();
        Self { origin: low, side: if side > 0.0 { side } else { 1.0 } }
    }

    fn step(&self, p: Vec3) -> [u16; 3] {
        ((p - self.origin) / self.side).to_array().map(|x| (share(x) * 65_535.0).round() as u16)
    }
}

/// What the numbers of an accessor are.
struct Layout {
    component: ComponentType,
    kind: Type,
    normalized: bool,
    /// Bytes from one element to the next if more than the element's own: glTF wants multiples of four.
    stride: Option<usize>,
}

impl Layout {
    fn floats(kind: Type) -> Self {
        Self { component: ComponentType::F32, kind, normalized: false, stride: None }
    }

    fn integers(component: ComponentType, kind: Type) -> Self {
        let bytes = component.size() * kind.multiplicity();
        let padded = bytes.next_multiple_of(4);
        Self { component, kind, normalized: true, stride: (padded > bytes).then_some(padded) }
    }
}

impl Writer<'_> {
    /// One element a `T`, which is as large as the layout's stride.
    fn accessor<T: NoUninit>(
        &mut self,
        values: &[T],
        layout: &Layout,
        bounds: Option<(Value, Value)>,
    ) -> Index<Accessor> {
        let target = match layout.kind {
            Type::Scalar => Target::ElementArrayBuffer,
            _ => Target::ArrayBuffer,
        };
        let view = self.view(cast_slice(values), Some(target), layout.stride);
        let (min, max) = bounds.unzip();
        self.root.push(Accessor {
            buffer_view: Some(view),
            byte_offset: Some(USize64(0)),
            count: values.len().into(),
            component_type: Checked::Valid(GenericComponentType(layout.component)),
            extensions: None,
            extras: None,
            type_: Checked::Valid(layout.kind),
            min,
            max,
            name: None,
            normalized: layout.normalized,
            sparse: None,
        })
    }

    pub(super) fn positions(&mut self, positions: &[Vec3]) -> Index<Accessor> {
        if let Some(grid) = self.grid {
            let steps: Vec<[u16; 4]> = positions
                .iter()
                .map(|p| {
                    let [x, y, z] = grid.step(*p);
                    [x, y, z, 0]
                })
                .collect();
            let bound = |pick: fn(u16, u16) -> u16| -> Value {
                let ends = steps.iter().copied().reduce(|a, b| std::array::from_fn(|i| pick(a[i], b[i])));
                Value::from(ends.unwrap_or_default()[..3].to_vec())
            };
            let bounds = Some((bound(u16::min), bound(u16::max)));
            return self.accessor(&steps, &Layout::integers(ComponentType::U16, Type::Vec3), bounds);
        }
        let first = positions[0];
        let (low, high) = positions.iter().fold((first, first), |(l, h), p| (l.min(*p), h.max(*p)));
        let bounds = Some((Value::from(low.to_array().to_vec()), Value::from(high.to_array().to_vec())));
        self.accessor(positions, &Layout::floats(Type::Vec3), bounds)
    }

    pub(super) fn normals(&mut self, normals: &[Vec3]) -> Index<Accessor> {
        if self.grid.is_some() {
            let bytes: Vec<[i8; 4]> =
                normals.iter().map(|n| signed(unit(*n).extend(0.0).to_array())).collect();
            return self.accessor(&bytes, &Layout::integers(ComponentType::I8, Type::Vec3), None);
        }
        let units: Vec<Vec3> = normals.iter().map(|n| unit(*n)).collect();
        self.accessor(&units, &Layout::floats(Type::Vec3), None)
    }

    pub(super) fn tangents(&mut self, tangents: &[[f32; 4]]) -> Index<Accessor> {
        if self.grid.is_some() {
            let bytes: Vec<[i8; 4]> = tangents.iter().map(|t| signed(*t)).collect();
            return self.accessor(&bytes, &Layout::integers(ComponentType::I8, Type::Vec4), None);
        }
        self.accessor(tangents, &Layout::floats(Type::Vec4), None)
    }

    pub(super) fn uvs(&mut self, uvs: &[Vec2]) -> Index<Accessor> {
        // Coordinates that leave the picture repeat it, which integers cannot say.
        let inside = |uv: &Vec2| uv.cmpge(Vec2::ZERO).all() && uv.cmple(Vec2::ONE).all();
        if self.grid.is_some() && uvs.iter().all(inside) {
            let steps: Vec<[u16; 2]> =
                uvs.iter().map(|uv| uv.to_array().map(|x| (x * 65_535.0).round() as u16)).collect();
            return self.accessor(&steps, &Layout::integers(ComponentType::U16, Type::Vec2), None);
        }
        self.accessor(uvs, &Layout::floats(Type::Vec2), None)
    }

    pub(super) fn colors(&mut self, colors: &[Vec3]) -> Index<Accessor> {
        let colors: Vec<Vec3> = colors.iter().map(|c| Vec3::from(c.to_array().map(share))).collect();
        if self.grid.is_some() {
            // Linear light in 8 bits would band in the dark.
            let steps: Vec<[u16; 4]> = colors
                .iter()
                .map(|c| c.extend(1.0).to_array().map(|x| (x * 65_535.0).round() as u16))
                .collect();
            return self.accessor(&steps, &Layout::integers(ComponentType::U16, Type::Vec4), None);
        }
        self.accessor(&colors, &Layout::floats(Type::Vec3), None)
    }

    pub(super) fn indices(&mut self, part: &Mesh) -> Index<Accessor> {
        let flat = part.triangles.as_flattened();
        let scalars = |component| Layout { component, kind: Type::Scalar, normalized: false, stride: None };
        // 65535 restarts strips and is not allowed as an index.
        if part.positions.len() <= usize::from(u16::MAX) {
            let short: Vec<u16> = flat.iter().map(|&v| v as u16).collect();
            self.accessor(&short, &scalars(ComponentType::U16), None)
        } else {
            self.accessor(flat, &scalars(ComponentType::U32), None)
        }
    }
}

/// −1 … 1 as −127 … 127.
fn signed(values: [f32; 4]) -> [i8; 4] {
    values.map(|x| (x * 127.0).round() as i8)
}
