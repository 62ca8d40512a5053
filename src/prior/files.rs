//! A prior's folder: on disk, or included in the binary.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use sha2::{Digest, Sha256};

pub use super::reading::parse_json;
use super::reading::renamed;
use super::tensor_file::{count, count_in, hash_file, parse_safetensors, read_safetensors, sha256};
use super::{registry, single_config, single_file};
use crate::error::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/mini.rs"));

/// How weight files are called, before `.safetensors`.
const WEIGHTS: [&str; 2] = ["diffusion_pytorch_model", "model"];
const PARTS: [&str; 4] = ["text_encoder", "text_encoder_2", "unet", "vae"];

/// Where a prior's files are.
pub enum Folder {
    /// A folder of the file system.
    Disk(PathBuf),
    /// Files included in the binary: path below the folder, and bytes.
    Embedded(&'static [(&'static str, &'static [u8])]),
    /// A single-file checkpoint; what it does not hold (the tokenizer) is looked for beside it.
    Single(Box<Single>),
}

/// A single-file checkpoint, taken apart.
pub struct Single {
    file: PathBuf,
    sha256: String,
    configs: HashMap<String, String>,
    parts: single_file::Parts,
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

    /// `mini` (the embedded prior), or as [`Folder::open`].
    ///
    /// # Errors
    /// As [`Folder::embedded`] and [`Folder::open`].
    pub fn named(name: &str) -> Result<Self> {
        if name == "mini" { Self::embedded() } else { Self::open(name) }
    }

    /// A folder in diffusers' layout, a single-file checkpoint, or the name of one that
    /// [`super::registry`] knows.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is none of them, and as [`Folder::single`].
    pub fn open(name: &str) -> Result<Self> {
        let given = PathBuf::from(name);
        let path = if given.exists() { given } else { registry::find(name).unwrap_or(given) };
        if path.is_dir() {
            return Ok(Self::Disk(path));
        }
        if path.is_file() {
            return Self::single(&path);
        }
        Err(Error::invalid("--prior", format!("no prior {name:?}")).hint(
            "give `mini` (the embedded prior), a name of `gen3d models list`, a folder in diffusers' layout \
             (with unet/, vae/, text_encoder/, tokenizer/, scheduler/) or a .safetensors checkpoint with \
             tokenizer/ beside it",
        ))
    }

    /// A single-file checkpoint (original names), taken apart and given the configs that its shapes imply.
    ///
    /// # Errors
    /// [`Error::File`] if it is damaged or no Stable Diffusion checkpoint.
    pub fn single(file: &Path) -> Result<Self> {
        let tensors = read_safetensors(file)?;
        if !single_file::is_single_file(tensors.keys()) {
            return Err(Error::file(file, "holds no U-Net under the names of a Stable Diffusion checkpoint")
                .hint(
                    "give the folder in diffusers' layout, or the checkpoint that has all parts in one file",
                ));
        }
        let named = |e: Error| Error::file(file, e.to_string());
        let parts = single_file::split(tensors).map_err(named)?;
        let mut configs = single_config::configs(&parts).map_err(named)?;
        // What lies beside the file knows better than its shapes.
        let beside = file.parent().unwrap_or(Path::new("."));
        configs.retain(|name, _| !beside.join(name).is_file());
        Ok(Self::Single(Box::new(Single { file: file.into(), sha256: sha256(file)?, configs, parts })))
    }

    /// A file's path, as named in errors.
    pub fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Single(s) if s.configs.contains_key(name) => s.file.join(name),
            Self::Single(s) => s.file.parent().unwrap_or(Path::new(".")).join(name),
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
            Self::Single(s) if s.configs.contains_key(name) => {
                Ok(s.configs[name].clone().into_bytes().into())
            }
            Self::Disk(_) | Self::Single(_) => {
                let path = self.path(name);
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
        parse_json(&self.text(name)?).map_err(|e| Error::file(self.path(name), e.to_string()))
    }

    /// All tensors of a part (`unet`, `vae`, `text_encoder`), and the file they came from (the first,
    /// if there are several).
    ///
    /// # Errors
    /// If a file is missing or corrupt.
    pub fn tensors(&self, part: &str) -> Result<(HashMap<String, Tensor>, PathBuf)> {
        if let Self::Single(s) = self {
            let tensors = match part {
                "unet" => &s.parts.unet,
                "vae" => &s.parts.vae,
                "text_encoder" => &s.parts.text,
                "text_encoder_2" => &s.parts.text2,
                _ => return Err(Error::file(&s.file, format!("has no {part}"))),
            };
            return Ok((tensors.clone(), s.file.clone()));
        }
        let names = self.weight_files(part)?;
        let mut all = HashMap::new();
        for name in &names {
            all.extend(match self {
                Self::Embedded(_) => parse_safetensors(&self.bytes(name)?, &self.path(name))?,
                _ => read_safetensors(&self.path(name))?,
            });
        }
        Ok((renamed(all)?, self.path(&names[0])))
    }

    /// Numbers in the weights of a part.
    ///
    /// # Errors
    /// If a file is missing or its header is damaged.
    pub fn parameters(&self, part: &str) -> Result<u64> {
        if let Self::Single(_) = self {
            return Ok(self.tensors(part)?.0.values().map(|t| t.elem_count() as u64).sum());
        }
        let one = |name: &String| match self {
            Self::Embedded(_) => count_in(&self.bytes(name)?, &self.path(name)),
            _ => count(&self.path(name)),
        };
        self.weight_files(part)?.iter().map(one).sum()
    }

    /// True if there is such a part.
    pub fn has(&self, part: &str) -> bool {
        match self {
            Self::Single(s) if part == "text_encoder_2" => !s.parts.text2.is_empty(),
            Self::Single(_) => PARTS.contains(&part),
            _ => !self.listing(part).is_empty(),
        }
    }

    /// Names of the files of a part, without the part.
    fn listing(&self, part: &str) -> Vec<String> {
        let mut names: Vec<String> = match self {
            Self::Disk(dir) => std::fs::read_dir(dir.join(part))
                .map(|files| files.filter_map(|f| f.ok()?.file_name().into_string().ok()).collect())
                .unwrap_or_default(),
            Self::Single(_) => Vec::new(),
            Self::Embedded(files) => files
                .iter()
                .filter_map(|(name, _)| Some(name.strip_prefix(part)?.strip_prefix('/')?.to_owned()))
                .collect(),
        };
        names.sort();
        names
    }

    /// The weight files of a part: whole, else in shards, else of a variant such as `fp16`.
    fn weight_files(&self, part: &str) -> Result<Vec<String>> {
        let names = self.listing(part);
        let whole = WEIGHTS.iter().map(|f| format!("{f}.safetensors")).find(|f| names.contains(f));
        if let Some(name) = whole {
            return Ok(vec![format!("{part}/{name}")]);
        }
        let starts =
            |n: &String| WEIGHTS.iter().any(|w| n.strip_prefix(w).is_some_and(|r| r.starts_with('.')));
        // `model.safetensors.index.json` comes before `model.safetensors.index.fp16.json`.
        let mut indices: Vec<&String> =
            names.iter().filter(|n| starts(n) && n.contains(".safetensors.index.")).collect();
        indices.sort_by_key(|n| n.len());
        if let Some(index) = indices.first() {
            return self.shards(part, index);
        }
        if let Some(variant) = names.iter().find(|n| starts(n) && n.ends_with(".safetensors")) {
            return Ok(vec![format!("{part}/{variant}")]);
        }
        let error =
            Error::file(self.path(part), format!("no weights ({}, .safetensors)", WEIGHTS.join(" or ")));
        Err(if names.iter().any(|n| n.ends_with(".bin") || n.ends_with(".ckpt")) {
            error.hint("only a pickle is there, which can run code when loaded: save it as safetensors first")
        } else {
            error
        })
    }

    /// The files that an index lists.
    fn shards(&self, part: &str, index: &str) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: std::collections::BTreeMap<String, String>,
        }
        let file = format!("{part}/{index}");
        let Index { weight_map } = self.config(&file)?;
        let shards: std::collections::BTreeSet<String> = weight_map.into_values().collect();
        let plain = |n: &String| n.ends_with(".safetensors") && !n.contains(['/', '\\']);
        if shards.is_empty() || !shards.iter().all(plain) {
            return Err(Error::file(
                self.path(&file),
                "lists something that is no .safetensors file beside it",
            ));
        }
        Ok(shards.into_iter().map(|n| format!("{part}/{n}")).collect())
    }

    /// SHA-256 over the weight files of a prior, hexadecimal.
    ///
    /// # Errors
    /// If one is missing.
    pub fn digest(&self) -> Result<String> {
        let parts = PARTS.into_iter().filter(|p| *p != "text_encoder_2" || self.has(p));
        self.digest_of(parts)
    }

    /// SHA-256 over the weight files of one part, hexadecimal.
    ///
    /// # Errors
    /// If one is missing.
    pub fn part_digest(&self, part: &str) -> Result<String> {
        self.digest_of(std::iter::once(part))
    }

    fn digest_of<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Result<String> {
        if let Self::Single(s) = self {
            return Ok(s.sha256.clone());
        }
        let mut hash = Sha256::new();
        for part in parts {
            for name in self.weight_files(part)? {
                match self {
                    Self::Embedded(_) => hash.update(self.bytes(&name)?),
                    _ => hash_file(&mut hash, &self.path(&name))?,
                }
            }
        }
        Ok(format!("{:x}", hash.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn put(dir: &Path, file: &str, tensors: &[(&str, &[usize])]) {
        let tensors: HashMap<String, Tensor> = tensors
            .iter()
            .map(|(n, s)| (n.to_string(), Tensor::zeros(*s, DType::F32, &Device::Cpu).unwrap()))
            .collect();
        std::fs::create_dir_all(dir.join("part")).unwrap();
        candle_core::safetensors::save(&tensors, dir.join("part").join(file)).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = Folder::Disk(dir.into()).tensors("part").unwrap().0.into_keys().collect();
        names.sort();
        names
    }

    #[test]
    fn whole_files_come_before_shards_and_shards_before_variants() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        put(dir, "model.fp16.safetensors", &[("variant", &[1])]);
        assert_eq!(names(dir), ["variant"]);
        put(dir, "model-00001-of-00002.safetensors", &[("first", &[1])]);
        put(dir, "model-00002-of-00002.safetensors", &[("second", &[1])]);
        let index = |second: &str| {
            let map = serde_json::json!({"weight_map": {
                "first": "model-00001-of-00002.safetensors", "second": second }});
            std::fs::write(dir.join("part/model.safetensors.index.json"), map.to_string()).unwrap();
        };
        index("model-00002-of-00002.safetensors");
        assert_eq!(names(dir), ["first", "second"]);
        for hostile in ["../secret.safetensors", "/etc/passwd", "model.bin"] {
            index(hostile);
            let error = Folder::Disk(dir.into()).tensors("part").unwrap_err();
            assert!(error.to_string().contains("no .safetensors file beside it"), "{error}");
        }
        put(dir, "model.safetensors", &[("whole", &[1])]);
        assert_eq!(names(dir), ["whole"]);
    }

    #[test]
    fn old_and_new_names_are_understood() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        put(dir, "model.safetensors", &[("mid.attentions.0.proj_attn.weight", &[4, 4, 1, 1])]);
        assert_eq!(names(dir), ["mid.attentions.0.to_out.0.weight"]);
        let (tensors, _) = Folder::Disk(dir.into()).tensors("part").unwrap();
        assert_eq!(tensors["mid.attentions.0.to_out.0.weight"].dims(), [4, 4]);
        let text = ["embeddings.token_embedding.weight", "encoder.x", "text_projection.weight"];
        put(dir, "model.safetensors", &text.map(|n| (n, &[2usize][..])));
        let want = [
            "text_model.embeddings.token_embedding.weight",
            "text_model.encoder.x",
            "text_projection.weight",
        ];
        assert_eq!(names(dir), want);
    }
}
