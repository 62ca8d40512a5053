//! Numbers out of glTF buffers, with every offset checked.

use gltf::accessor::{DataType, sparse::IndexType};

use super::load::{MAX_ELEMENTS, Read};

/// `N` numbers per element; integers are scaled to [0, 1] or [−1, 1] if the accessor says so.
///
/// The accessor may have more than `N` components (colours with alpha); the rest is skipped.
pub(super) fn floats<const N: usize>(
    accessor: &gltf::Accessor<'_>,
    buffers: &[Vec<u8>],
) -> Read<Vec<[f32; N]>> {
    let kind = accessor.data_type();
    let width = kind.size();
    let normalized = accessor.normalized();
    elements(accessor, buffers, N, |bytes| {
        std::array::from_fn(|i| number(&bytes[i * width..], kind, normalized))
    })
}

/// Vertex numbers.
pub(super) fn indices(accessor: &gltf::Accessor<'_>, buffers: &[Vec<u8>]) -> Read<Vec<u32>> {
    match accessor.data_type() {
        DataType::U8 => elements(accessor, buffers, 1, |b| u32::from(b[0])),
        DataType::U16 => elements(accessor, buffers, 1, |b| u32::from(u16::from_le_bytes([b[0], b[1]]))),
        DataType::U32 => elements(accessor, buffers, 1, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        other => Err(format!("indices cannot be of type {other:?}").into()),
    }
}

/// Decodes all elements; `decode` is given at least `accessor.size()` bytes.
fn elements<T: Clone>(
    accessor: &gltf::Accessor<'_>,
    buffers: &[Vec<u8>],
    components: usize,
    decode: impl Fn(&[u8]) -> T,
) -> Read<Vec<T>> {
    let name = format!("accessor {}", accessor.index());
    let (count, size) = (accessor.count(), accessor.size());
    if accessor.dimensions().multiplicity() < components {
        return Err(
            format!("{name} is {:?}, {components} components are needed", accessor.dimensions()).into()
        );
    }
    if count > MAX_ELEMENTS {
        return Err(format!("{name} claims {count} elements").into());
    }
    let mut values = match accessor.view() {
        Some(view) => {
            let stride = view.stride().unwrap_or(size);
            let bytes = slice(&view, buffers, accessor.offset(), count, stride, size)
                .ok_or_else(|| format!("{name} reaches beyond its buffer"))?;
            (0..count).map(|i| decode(&bytes[i * stride..])).collect()
        }
        None if accessor.sparse().is_some() => vec![decode(&vec![0; size]); count],
        None => return Err(format!("{name} has no data").into()),
    };
    if let Some(sparse) = accessor.sparse() {
        let (at, of) = (sparse.indices(), sparse.values());
        let width = match at.index_type() {
            IndexType::U8 => 1,
            IndexType::U16 => 2,
            IndexType::U32 => 4,
        };
        let beyond = || format!("the sparse part of {name} reaches beyond its buffer");
        let keys =
            slice(&at.view(), buffers, at.offset(), sparse.count(), width, width).ok_or_else(beyond)?;
        let data = slice(&of.view(), buffers, of.offset(), sparse.count(), size, size).ok_or_else(beyond)?;
        for (key, bytes) in keys.chunks_exact(width).zip(data.chunks_exact(size)) {
            let key = key.iter().rev().fold(0, |sum, &b| sum << 8 | usize::from(b));
            *values.get_mut(key).ok_or_else(|| format!("{name} has no element {key}"))? = decode(bytes);
        }
    }
    Ok(values)
}

/// The bytes of `count` elements of `size` bytes every `stride`, from `offset` in a buffer view.
fn slice<'a>(
    view: &gltf::buffer::View<'_>,
    buffers: &'a [Vec<u8>],
    offset: usize,
    count: usize,
    stride: usize,
    size: usize,
) -> Option<&'a [u8]> {
    let whole = view_bytes(view, buffers)?;
    if count == 0 {
        return Some(&[]);
    }
    let end = stride.checked_mul(count - 1)?.checked_add(size)?.checked_add(offset)?;
    // A stride below the element's size would make elements overlap, which glTF forbids.
    (stride >= size).then(|| whole.get(offset..end))?
}

/// The bytes of a buffer view.
pub(super) fn view_bytes<'a>(view: &gltf::buffer::View<'_>, buffers: &'a [Vec<u8>]) -> Option<&'a [u8]> {
    let end = view.offset().checked_add(view.length())?;
    buffers.get(view.buffer().index())?.get(view.offset()..end)
}

fn number(b: &[u8], kind: DataType, normalized: bool) -> f32 {
    let (value, scale) = match kind {
        DataType::I8 => (f32::from(b[0] as i8), 127.0),
        DataType::U8 => (f32::from(b[0]), 255.0),
        DataType::I16 => (f32::from(i16::from_le_bytes([b[0], b[1]])), 32_767.0),
        DataType::U16 => (f32::from(u16::from_le_bytes([b[0], b[1]])), 65_535.0),
        DataType::U32 => return u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32,
        DataType::F32 => return f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
    };
    if normalized { (value / scale).max(-1.0) } else { value }
}
