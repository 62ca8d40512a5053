//! Where latents wait between steps: in memory, or on disk.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::{Device, Tensor};

use super::attention::lock;
use crate::prior::tensor_file::{read_safetensors, write_safetensors};
use crate::{Error, Result};

/// Tensors by key. Keys are words and numbers with slashes between: `inverted/012/0003`.
pub trait Store: Send + Sync {
    /// Keeps `tensor`; at once and whole, or not at all.
    ///
    /// # Errors
    /// A full disk, say.
    fn put(&self, key: &str, tensor: &Tensor) -> Result<()>;

    /// What was kept.
    ///
    /// # Errors
    /// If there is nothing, or it is damaged.
    fn get(&self, key: &str) -> Result<Tensor>;

    /// True if there is something.
    fn has(&self, key: &str) -> bool;

    /// Forgets it; nothing if there was none.
    ///
    /// # Errors
    /// If it cannot be removed.
    fn remove(&self, key: &str) -> Result<()>;
}

/// In memory: for short clips, and tests.
#[derive(Default)]
pub struct MemoryStore(Mutex<BTreeMap<String, Tensor>>);

impl Store for MemoryStore {
    fn put(&self, key: &str, tensor: &Tensor) -> Result<()> {
        lock(&self.0).insert(key.to_owned(), tensor.copy()?);
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Tensor> {
        lock(&self.0).get(key).cloned().ok_or_else(|| Error::Failed(format!("nothing is stored at {key}")))
    }

    fn has(&self, key: &str) -> bool {
        lock(&self.0).contains_key(key)
    }

    fn remove(&self, key: &str) -> Result<()> {
        lock(&self.0).remove(key);
        Ok(())
    }
}

/// One file a key below a folder.
pub struct FileStore {
    folder: PathBuf,
}

/// The tensor's name in its file.
const NAME: &str = "x";

impl FileStore {
    /// Below `folder`, which is made when it is needed.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.safetensors"))
    }
}

impl Store for FileStore {
    fn put(&self, key: &str, tensor: &Tensor) -> Result<()> {
        let path = self.path(key);
        let parent = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
        write_safetensors(&path, &HashMap::from([(NAME.to_owned(), tensor)]))
            .map_err(|e| e.hint("a clip's latents wait on disk: free some space, or choose another folder"))
    }

    fn get(&self, key: &str) -> Result<Tensor> {
        let path = self.path(key);
        read_safetensors(&path)?.remove(NAME).ok_or_else(|| Error::file(&path, "holds no tensor"))
    }

    fn has(&self, key: &str) -> bool {
        self.path(key).is_file()
    }

    fn remove(&self, key: &str) -> Result<()> {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path, e)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_stores_keep_bits() {
        let dir = tempfile::tempdir().unwrap();
        let file = FileStore::new(dir.path().join("state"));
        let x = Tensor::new(&[[1.5f32, -0.0, f32::MIN_POSITIVE / 4.0]], &Device::Cpu).unwrap();
        let stores: [&dyn Store; 2] = [&MemoryStore::default(), &file];
        for store in stores {
            assert!(!store.has("a/001/0000") && store.get("a/001/0000").is_err());
            store.put("a/001/0000", &x).unwrap();
            let got = store.get("a/001/0000").unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(
                got[0].iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
                [1.5f32.to_bits(), (-0.0f32).to_bits(), (f32::MIN_POSITIVE / 4.0).to_bits()]
            );
            store.remove("a/001/0000").unwrap();
            store.remove("a/001/0000").unwrap();
            assert!(!store.has("a/001/0000"));
        }
    }
}
