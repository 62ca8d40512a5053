//! A prior's folder: on disk, or included in the binary.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use sha2::{Digest, Sha256};

use super::weights::parse_safetensors;
use crate::error::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/mini.rs"));

/// The weight files a part may have, in the order they are looked for.
const WEIGHTS: [&str; 2] = ["diffusion_pytorch_model.safetensors", "model.safetensors"];
const PARTS: [&str; 3] = ["text_encoder", "unet", "vae"];

/// Where a prior's files are.
pub enum Folder {
    /// A folder of the file system.
    Disk(PathBuf),
    /// Files included in the binary: path below the folder, and bytes.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl Folder {
    /// The embedded prior.
    ///
    /// # Errors
    /// If the binary was built without `models/mini`.
    pub fn embedded() -> Result<Self> {
        if MINI.is_empty() {
            return Err(Error::invalid("--prior", "this binary was built without the embedded prior")
                .hint("train one with `gen3d train prior --out models/mini` and build again"));
        }
        Ok(Self::Embedded(MINI))
    }

    /// A file's path, as named in errors.
    pub fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Disk(dir) => dir.join(name),
            Self::Embedded(_) => Path::new("(embedded) mini").join(name),
        }
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// If it is missing or unreadable.
    pub fn bytes(&self, name: &str) -> Result<std::borrow::Cow<'static, [u8]>> {
        match self {
            Self::Disk(dir) => {
                let path = dir.join(name);
                std::fs::read(&path).map(Into::into).map_err(|e| Error::io(path, e))
            }
            Self::Embedded(files) => files
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, b)| (*b).into())
                .ok_or_else(|| Error::file(self.path(name), "missing")),
        }
    }

    /// A text file.
    ///
    /// # Errors
    /// If it is missing or no UTF-8.
    pub fn text(&self, name: &str) -> Result<String> {
        String::from_utf8(self.bytes(name)?.into_owned())
            .map_err(|_| Error::file(self.path(name), "is no UTF-8 text"))
    }

    /// A JSON config.
    ///
    /// # Errors
    /// If it is missing, or a value is of the wrong type.
    pub fn config<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_str(&self.text(name)?).map_err(|e| Error::file(self.path(name), e.to_string()))
    }

    /// All tensors of a part (`unet`, `vae`, `text_encoder`), and the file they came from.
    ///
    /// # Errors
    /// If the file is missing or corrupt.
    pub fn tensors(&self, part: &str) -> Result<(HashMap<String, Tensor>, PathBuf)> {
        let name = self.weight_file(part)?;
        let path = self.path(&name);
        Ok((parse_safetensors(&self.bytes(&name)?, &path)?, path))
    }

    fn weight_file(&self, part: &str) -> Result<String> {
        let has = |n: &String| match self {
            Self::Disk(dir) => dir.join(n).is_file(),
            Self::Embedded(files) => files.iter().any(|(f, _)| f == n),
        };
        let found = WEIGHTS.iter().map(|f| format!("{part}/{f}")).find(has);
        if let Some(name) = found {
            return Ok(name);
        }
        let error = Error::file(self.path(part), format!("no weights ({})", WEIGHTS.join(" or ")));
        let pickle = format!("{part}/diffusion_pytorch_model.bin");
        Err(if has(&pickle) {
            error.hint("only a pickle is there, which can run code when loaded: save it as safetensors first")
        } else {
            error
        })
    }

    /// SHA-256 over the weight files, hexadecimal.
    ///
    /// # Errors
    /// If one is missing.
    pub fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for part in PARTS {
            hash.update(self.bytes(&self.weight_file(part)?)?);
        }
        Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }
}
