//! The drawn training set on disk, so that a run that is continued does not draw it again.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::pictures::Pictures;
use crate::error::{Error, Result};

/// Changes when the pictures of equal settings do.
const FORMAT: &str = "gen3d-pictures-2";

/// Writes `pictures` to `path` by a temporary file and a rename; `key` tells what they were drawn from.
///
/// # Errors
/// [`Error::Io`] if the folder is missing or full.
pub(super) fn save(path: &Path, key: &str, pictures: &Pictures) -> Result<()> {
    let n = pictures.len();
    let captions = pictures.captions.join("\n");
    let metadata = HashMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("key".to_owned(), key.to_owned()),
        ("captions".to_owned(), captions),
    ]);
    let to_error = |e: safetensors::SafeTensorError| Error::Failed(format!("pictures: {e}"));
    let view = |dtype, shape: Vec<usize>, bytes| TensorView::new(dtype, shape, bytes).map_err(to_error);
    let size = pictures.size;
    let fronted: Vec<u8> = pictures.fronted.iter().map(|&f| u8::from(f)).collect();
    let mut tensors = vec![
        ("rgb", view(Dtype::U8, vec![n, 3, size, size], &pictures.bytes)?),
        ("cameras", view(Dtype::F32, vec![n, 16], bytemuck::cast_slice(&pictures.cameras))?),
        ("caption", view(Dtype::U32, vec![n], bytemuck::cast_slice(&pictures.caption_of))?),
        ("fronted", view(Dtype::U8, vec![n], &fronted)?),
    ];
    if !pictures.depth.is_empty() {
        tensors.push(("depth", view(Dtype::U8, vec![n, size, size], &pictures.depth)?));
    }
    let temporary = path.with_extension("partial");
    safetensors::serialize_to_file(tensors, Some(metadata), &temporary).map_err(to_error)?;
    std::fs::rename(&temporary, path).map_err(|e| Error::io(path, e))
}

/// What [`save`] wrote under the same key; nothing if the file is missing, damaged, of another key or without
/// the depth that is wanted: then the pictures are drawn again.
pub(super) fn load(path: &Path, key: &str, with_depth: bool) -> Option<Pictures> {
    let bytes = std::fs::read(path).ok()?;
    let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
    let metadata = header.metadata().as_ref()?;
    if metadata.get("format")? != FORMAT || metadata.get("key")? != key {
        return None;
    }
    let captions: Vec<String> = metadata.get("captions")?.split('\n').map(str::to_owned).collect();
    let tensors = SafeTensors::deserialize(&bytes).ok()?;
    let rgb = tensors.tensor("rgb").ok()?;
    let &[n, 3, size, _] = rgb.shape() else { return None };
    let numbers = |name: &str| -> Option<Vec<[u8; 4]>> {
        let tensor = tensors.tensor(name).ok()?;
        Some(tensor.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]).collect())
    };
    let floats: Vec<f32> = numbers("cameras")?.into_iter().map(f32::from_le_bytes).collect();
    let cameras: Vec<[f32; 16]> = floats.chunks_exact(16).map(|c| std::array::from_fn(|i| c[i])).collect();
    let caption_of: Vec<u32> = numbers("caption")?.into_iter().map(u32::from_le_bytes).collect();
    let fronted: Vec<bool> = tensors.tensor("fronted").ok()?.data().iter().map(|&b| b != 0).collect();
    let depth = if with_depth { tensors.tensor("depth").ok()?.data().to_vec() } else { Vec::new() };
    let complete = cameras.len() == n && caption_of.len() == n && fronted.len() == n;
    let named = caption_of.iter().all(|&c| (c as usize) < captions.len());
    let bytes = rgb.data().to_vec();
    (complete && named).then_some(Pictures { size, bytes, depth, cameras, caption_of, fronted, captions })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures() -> Pictures {
        Pictures {
            size: 2,
            bytes: (0..36).collect(),
            depth: (0..12).collect(),
            cameras: vec![[0.5; 16], [1.0; 16], [-2.0; 16]],
            caption_of: vec![0, 1, 0],
            fronted: vec![true, false, true],
            captions: vec!["a fox".into(), "a ü".into()],
        }
    }

    #[test]
    fn what_was_saved_is_loaded_under_the_same_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.safetensors");
        assert!(load(&path, "k", true).is_none());
        save(&path, "k", &pictures()).unwrap();
        let (a, b) = (pictures(), load(&path, "k", true).unwrap());
        assert_eq!((a.size, &a.bytes, &a.cameras), (b.size, &b.bytes, &b.cameras));
        assert_eq!(a.depth, b.depth);
        assert_eq!((&a.caption_of, &a.captions, &a.fronted), (&b.caption_of, &b.captions, &b.fronted));
        assert!(load(&path, "other", true).is_none());
        assert!(load(&path, "k", false).unwrap().depth.is_empty());
        save(&path, "flat", &Pictures { depth: Vec::new(), ..pictures() }).unwrap();
        assert!(load(&path, "flat", true).is_none() && load(&path, "flat", false).is_some());
        save(&path, "k", &pictures()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 7, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(load(&path, "k", true).is_none(), "cut at {cut}");
        }
    }
}
