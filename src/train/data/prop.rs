//! A recipe among the training data.

use std::sync::{Arc, OnceLock};

use super::edit::Edit;
use super::split::ALL_LOOKS;
use crate::asset::Asset;
use crate::asset::recipe::Recipe;
use crate::error::Result;
use crate::render::raster::PreparedAsset;

/// A recipe and its looks, built when first needed.
pub(super) struct Prop {
    pub(super) recipe: Recipe,
    looks: Vec<OnceLock<Arc<PreparedAsset>>>,
}

impl Prop {
    pub(super) fn new(recipe: Recipe) -> Self {
        Self { recipe, looks: (0..ALL_LOOKS).map(|_| OnceLock::new()).collect() }
    }

    /// What it is called first.
    pub(super) fn noun(&self) -> &str {
        self.recipe.names().first().map_or("", String::as_str)
    }

    /// It in a look and, if so edited, another colour or material.
    pub(super) fn build(&self, look: u64, edit: Option<Edit>) -> Result<Asset> {
        let mut asset = self.recipe.build(look)?;
        if let Some(edit) = edit {
            edit.apply(&mut asset);
        }
        Ok(asset)
    }

    /// [`Prop::build`], ready to draw; what is not edited is kept for next time.
    pub(super) fn prepared(&self, look: u64, edit: Option<Edit>) -> Result<Arc<PreparedAsset>> {
        let build = || Ok(Arc::new(PreparedAsset::new(&self.build(look, edit)?)));
        let cell = self.looks.get(look as usize).filter(|_| edit.is_none());
        let Some(cell) = cell else { return build() };
        if let Some(asset) = cell.get() {
            return Ok(asset.clone());
        }
        // Another thread may be faster: then its equal asset stays.
        let asset = build()?;
        Ok(cell.get_or_init(|| asset).clone())
    }
}
