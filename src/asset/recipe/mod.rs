//! Recipes: a small declarative TOML language for parametric props.
//!
//! A recipe lists `parts`: primitives (`shape`) or `group`s with `at`, `rot` (degrees), `scale`,
//! `size`, `color`, `paint`, `mirror` and `repeat`. Numbers may be expressions of `[params]`
//! (`"$beak * 0.5"`), drawn from their ranges by the seed; colours are `#rrggbb` sRGB, names, or
//! entries of `[palette]` (a list = alternatives), optionally times a brightness (`"shell*0.8"`);
//! `[[variants]]` name looks by a colour word. A group with `blend` becomes one skin (smooth union), from
//! which its parts with `cut = true` are taken away. +Y up, front +Z; any unit of length.
//!
//! ```toml
//! names = ["snowman"]
//! category = "character"
//! [params]
//! nose = [0.2, 0.35]
//! [palette]
//! scarf = ["#c22d2d", "#2d62c2"]
//! [[parts]]
//! shape = "ellipsoid"
//! size = 0.8
//! color = "white"
//! [[parts]]
//! shape = "cone"
//! size = [0.1, "$nose", 0.1]
//! at = [0, 0.7, 0.3]
//! rot = [90, 0, 0]
//! color = "orange"
//! ```

mod blend;
mod build;
mod expr;
mod layout;
mod outline;
mod paint;
mod shape;
mod spec;
mod surface;
#[cfg(test)]
mod tests;

use std::path::Path;

use crate::asset::Asset;
use crate::{Error, Result};

pub(crate) use surface::value_noise;

/// Triangles one build may have.
pub const MAX_TRIANGLES: usize = 1_000_000;
/// Bytes a recipe file may have.
const MAX_BYTES: u64 = 1 << 20;

/// A parsed recipe.
#[derive(Debug, Clone)]
pub struct Recipe {
    doc: spec::Document,
    /// File stem, or the first noun.
    stem: String,
}

/// Reads a recipe file.
///
/// # Errors
/// The file cannot be read, or [`Recipe::parse`] refuses it.
pub fn load(path: &Path) -> Result<Recipe> {
    let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if bytes > MAX_BYTES {
        return Err(Error::file(path, format!("a recipe has at most {MAX_BYTES} bytes, this one {bytes}")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let mut recipe = Recipe::parse(&text).map_err(|e| Error::file(path, e.to_string()))?;
    if let Some(stem) = path.file_stem() {
        recipe.stem = stem.to_string_lossy().into_owned();
    }
    Ok(recipe)
}

impl Recipe {
    /// Parses the text of a recipe and builds it once, so that its mistakes show here.
    ///
    /// # Errors
    /// Unknown keys, wrong types, unusable numbers; the message names the line or the part.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason: String| Error::invalid("recipe", reason);
        let doc: spec::Document = toml::from_str(text).map_err(|e| invalid(e.to_string()))?;
        let stem = match doc.names.first() {
            Some(name) if doc.names.iter().chain(&doc.phrases).all(|n| !n.trim().is_empty()) => name.clone(),
            _ => return Err(invalid("`names` needs at least one noun, and none may be empty".into())),
        };
        if let Some(v) = doc.variants.iter().find(|v| v.word.trim().is_empty()) {
            return Err(invalid(format!("a variant ({:?}) has an empty `word`", v.colors.keys())));
        }
        let recipe = Self { doc, stem };
        recipe.build(0)?;
        Ok(recipe)
    }

    /// The asset that `seed` gives: a pure function of the recipe and the seed.
    ///
    /// # Errors
    /// The numbers drawn make a part impossible.
    pub fn build(&self, seed: u64) -> Result<Asset> {
        let pieces = build::pieces(&self.doc, seed).map_err(|e| Error::invalid("recipe", e))?;
        if pieces.iter().all(|p| p.mesh.triangles.is_empty()) {
            return Err(Error::invalid("recipe", "it has no parts"));
        }
        Ok(build::assemble(pieces))
    }

    /// File stem or first noun: a name for lists and logs.
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// Nouns, the best first.
    pub fn names(&self) -> &[String] {
        &self.doc.names
    }

    /// Complete captions beyond the nouns.
    pub fn phrases(&self) -> &[String] {
        &self.doc.phrases
    }

    /// The nouns are plurals or masses and take no article.
    pub fn plural(&self) -> bool {
        self.doc.plural
    }

    /// Coarse kind: animal, food, plant…
    pub fn category(&self) -> &str {
        &self.doc.category
    }

    /// Has a front (+Z).
    pub fn has_front(&self) -> bool {
        self.doc.front
    }

    /// Other things can stand on it.
    pub fn is_support(&self) -> bool {
        self.doc.support
    }

    /// Share of its height by which it settles down on what it stands on.
    pub fn settle(&self) -> f32 {
        self.doc.settle
    }

    /// The colour word of the look that `seed` gives.
    pub fn word(&self, seed: u64) -> Option<&str> {
        build::variant(self.doc.variants.len(), seed).map(|v| self.doc.variants[v].word.as_str())
    }

    /// All colour words.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.doc.variants.iter().map(|v| v.word.as_str())
    }
}
