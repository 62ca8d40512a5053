//! What training samples show: shares, weights and the side of the split.

use serde::{Deserialize, Serialize};

use super::split::Split;
use crate::error::{Error, Result};

/// How samples are drawn.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Side of the pictures; a training sets it from its own `image_size`.
    #[serde(skip)]
    pub image_size: u32,
    /// Which side of the split.
    #[serde(skip)]
    pub split: Split,
    /// Samples a pixel each way.
    pub supersample: u32,
    /// Share of single recipes.
    pub recipes: f32,
    /// Share of scenes of two recipes; the rest is corpus models.
    pub scenes: f32,
    /// Share of the single recipes (and of things in scenes, half as often) in another colour or material.
    pub edits: f32,
    /// Share of the single recipes that are shown two to four times.
    pub counts: f32,
    /// Share of the scenes that have a third thing.
    pub thirds: f32,
    /// Weight of [`DataConfig::heroes`] among the recipes, relative to 1 for another noun.
    pub hero_weight: f32,
    /// Share of "hero on hero" among the scenes.
    pub hero_scenes: f32,
    /// The two nouns of the main example: the first stands on the second.
    pub heroes: [String; 2],
    /// First nouns of recipes that are drawn more often than others: a small model learns some words
    /// well sooner than all of them a little.
    pub favourites: Vec<String>,
    /// Weight of [`DataConfig::favourites`] among the recipes, relative to 1 for another noun.
    pub favourite_weight: f32,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            image_size: 64,
            split: Split::Train,
            supersample: 4,
            recipes: 0.6,
            scenes: 0.3,
            edits: 0.3,
            counts: 0.08,
            thirds: 0.12,
            hero_weight: 4.0,
            hero_scenes: 0.3,
            heroes: ["blue jay".into(), "macarons".into()],
            favourites: Vec::new(),
            favourite_weight: 3.0,
        }
    }
}

impl DataConfig {
    /// # Errors
    /// [`Error::Invalid`] naming the key that is out of its range.
    pub fn check(&self) -> Result<()> {
        let share = |name, x: f32| match (0.0..=1.0).contains(&x) {
            true => Ok(()),
            false => Err(Error::invalid(name, format!("{x} is no share in 0..1"))),
        };
        share("data.recipes", self.recipes)?;
        share("data.scenes", self.scenes)?;
        share("data.recipes + data.scenes", self.recipes + self.scenes)?;
        share("data.hero_scenes", self.hero_scenes)?;
        share("data.edits", self.edits)?;
        share("data.counts", self.counts)?;
        share("data.thirds", self.thirds)?;
        share("data.edits + data.counts", self.edits + self.counts)?;
        if !(1..=16).contains(&self.supersample) {
            return Err(Error::invalid("data.supersample", "must be 1 to 16"));
        }
        for (name, weight) in
            [("data.hero_weight", self.hero_weight), ("data.favourite_weight", self.favourite_weight)]
        {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(Error::invalid(name, "must be finite and not negative"));
            }
        }
        Ok(())
    }
}
