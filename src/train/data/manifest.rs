//! A folder's `manifest.csv`: named 3D models.
//!
//! Columns `path` (relative) and `caption` are needed; `kind` (only `model` is used), `category`, `faces`
//! and `front` (`none`: any side may be the front) may be absent.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// A model of the corpus.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// GLB or OBJ file.
    pub path: PathBuf,
    /// The path as the manifest writes it: its name in the split.
    pub key: String,
    /// Lower-case caption with its article, such as `a red armchair`.
    pub caption: String,
    /// Coarse kind.
    pub category: String,
    /// False if no side is the front.
    pub has_front: bool,
    /// Triangles.
    pub faces: u32,
}

#[derive(Deserialize)]
struct Row {
    path: String,
    caption: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    category: Option<String>,
    #[serde(default)]
    faces: Option<u32>,
    #[serde(default)]
    front: Option<String>,
}

/// Captions of more words than this name details that 64 pixels do not show.
const MAX_WORDS: usize = 6;
/// Finer models only cost time at training size.
const MAX_FACES: u32 = 12_000;
/// Kinds that are pieces of something larger, or flat.
const LEFT_OUT: [&str; 3] = ["building", "terrain", "sign-flag"];

/// The models that are worth training on, in the file's order.
///
/// # Errors
/// If the manifest is missing, is no CSV, or names nothing usable.
pub fn read(corpus: &Path) -> Result<Vec<Entry>> {
    let path = corpus.join("manifest.csv");
    let mut reader = csv::Reader::from_path(&path).map_err(|e| {
        Error::file(&path, e.to_string()).hint("--corpus is the unpacked folder that holds manifest.csv")
    })?;
    let mut out = Vec::new();
    for row in reader.deserialize() {
        let row: Row = row.map_err(|e| Error::file(&path, e.to_string()))?;
        let faces = row.faces.unwrap_or(1);
        let category = row.category.unwrap_or_default();
        let wanted = row.kind.as_deref().is_none_or(|kind| kind == "model")
            && row.caption.split_whitespace().count() <= MAX_WORDS
            && (1..=MAX_FACES).contains(&faces)
            && !LEFT_OUT.contains(&category.as_str());
        if wanted {
            out.push(Entry {
                path: corpus.join(&row.path),
                key: row.path,
                caption: row.caption.trim().to_lowercase(),
                category,
                has_front: row.front.as_deref() != Some("none"),
                faces,
            });
        }
    }
    if out.is_empty() {
        return Err(Error::file(&path, "lists no usable model"));
    }
    Ok(out)
}
