//! Training data: named, posed, lit pictures of recipes, corpus models and small scenes.
//!
//! [`Dataset::sample`] is a pure function of `(seed, split, index)`. It first plans what is shown
//! (`plan`: things, edits, relations), again and again until the plan belongs to its side of the
//! [`split`], then builds, composes and draws it.

mod caption;
mod compose;
mod config;
mod edit;
pub mod manifest;
mod picture;
mod plan;
mod prop;
mod reading;
mod scene;
pub mod split;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::asset::recipe::{self, Recipe};
use crate::error::{Error, Result};
use crate::rng::{Rng, Stream};
pub use config::DataConfig;
use edit::Edit;
use manifest::Entry;
use plan::{Plan, Planner};
use prop::Prop;
use split::ALL_LOOKS;
pub use vocabulary::Words;

/// Random numbers set aside for each sample.
const DRAWS: u64 = 128;
/// Plans drawn for a sample before giving up: held-out compositions are about one in twenty.
const ATTEMPTS: u32 = 2000;
/// The camera rig's field of view, degrees.
pub const FOV_Y: f32 = picture::FOV_Y;
/// The camera rig's mean distance from the scene's centre, world units.
pub const DISTANCE: f32 = picture::DISTANCE;
/// Largest side of every scene's bounds, world units.
pub const LARGEST_SIDE: f32 = compose::LARGEST_SIDE;

/// One training sample.
#[derive(Debug, Clone)]
pub struct Sample {
    /// `[3, size, size]`, sRGB in −1..1.
    pub rgb: Vec<f32>,
    /// `[size, size]`: distance along the viewing axis in world units, 0 where nothing is seen.
    pub depth: Vec<f32>,
    /// What it shows.
    pub caption: String,
    /// [`crate::render::camera::Camera::embedding`].
    pub camera: [f32; 16],
    /// Whether it has a front, seen at azimuth 0: what the camera's azimuth is relative to. False for
    /// things that look alike from everywhere, or were turned by chance.
    pub fronted: bool,
}

/// See the module's text.
pub struct Dataset {
    config: DataConfig,
    seed: u64,
    props: Vec<Prop>,
    /// Cumulative weights of `props`.
    weights: Vec<f32>,
    entries: Vec<Entry>,
    /// Indices of `entries` on this side of the split.
    models: Vec<usize>,
    digest: String,
}

impl Dataset {
    /// All recipes of `props` and the usable models of `corpus`.
    ///
    /// # Errors
    /// If a recipe or the manifest does not parse, or there is no recipe.
    pub fn open(corpus: Option<&Path>, props: &Path, config: DataConfig, seed: u64) -> Result<Self> {
        let mut files: Vec<_> = std::fs::read_dir(props)
            .map_err(|e| Error::io(props, e))?
            .filter_map(|f| Some(f.ok()?.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "toml"))
            .collect();
        files.sort();
        let found = files.iter().map(|f| recipe::load(f)).collect::<Result<Vec<_>>>()?;
        if found.is_empty() {
            return Err(Error::file(props, "holds no recipe"));
        }
        let nouns: BTreeSet<&String> = found.iter().filter_map(|r| r.names().first()).collect();
        if let Some(stranger) = config.favourites.iter().find(|f| !nouns.contains(f)) {
            return Err(Error::invalid("data.favourites", format!("no recipe is first called {stranger:?}")));
        }
        let weights = weights(&found, &config);
        let props = found.into_iter().map(Prop::new).collect();
        let entries = corpus.map(manifest::read).transpose()?.unwrap_or_default();
        let models = (0..entries.len()).filter(|&i| config.split.shows_model(&entries[i].key)).collect();
        let digest = digest(&config, seed, &files, &entries)?;
        Ok(Self { config, seed, props, weights, entries, models, digest })
    }

    /// SHA-256 of all that decides the samples but the code: settings, seed, recipes and the corpus's list.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Sample `index`.
    ///
    /// # Errors
    /// If a recipe cannot be built, or nothing fits the split. A corpus model that cannot be read is
    /// replaced by the next attempt's plan.
    pub fn sample(&self, index: u64) -> Result<Sample> {
        for attempt in 0..ATTEMPTS {
            let rng = Rng::new(self.seed, Stream::Data, u32::MAX - attempt);
            let draw = Draw { rng, base: index * DRAWS };
            let plan = Planner { data: self, draw: &draw }.plan();
            if !self.config.split.admits(&plan.compositions(self)) {
                continue;
            }
            if let Some(sample) = self.shown(&plan, &draw)? {
                return Ok(sample);
            }
        }
        Err(Error::Failed(format!("no sample of {:?} in {ATTEMPTS} draws", self.config.split))
            .hint("the shares of edits, counts and scenes decide how many compositions there are"))
    }

    /// The picture of `plan`; `None` if a corpus model cannot be read.
    fn shown(&self, plan: &Plan, draw: &Draw) -> Result<Option<Sample>> {
        let text = Text { caption: plan.caption(self), fronted: plan.fronted(self) };
        let Some(scene) = self.scene(plan, draw)? else { return Ok(None) };
        Ok(Some(self.picture(draw, &mut scene.instances(), scene.yaw, text)))
    }

    /// What is held out, by name: models of the corpus, looks of recipes, and compositions of the recipes'
    /// first names (pairs only with what things stand on; the others follow from the same rule).
    pub fn held_out(&self) -> serde_json::Value {
        let unseen = |c: &String| split::is_held_out(c);
        let nouns: BTreeSet<&str> = self.props.iter().map(Prop::noun).collect();
        let supports: BTreeSet<&str> =
            self.props.iter().filter(|p| p.recipe.is_support()).map(Prop::noun).collect();
        let with = |words: Vec<&str>| -> Vec<String> {
            let all = words.iter().flat_map(|w| nouns.iter().map(move |n| format!("{w} {n}")));
            all.filter(unseen).collect()
        };
        let pairs = nouns.iter().flat_map(|a| supports.iter().map(move |b| format!("on: {a}, {b}")));
        let models = self.entries.iter().map(|e| e.key.as_str());
        serde_json::json!({
            "rule": "the first 4 bytes of SHA-256, little-endian, are divisible by 20 (models) or 10 (compositions)",
            "looks": format!("{}..{}", split::LOOKS, ALL_LOOKS),
            "models": models.filter(|k| split::Split::Objects.shows_model(k)).collect::<Vec<_>>(),
            "edits": with(Edit::words().collect()),
            "counts": with(caption::COUNTS.to_vec()),
            "pairs": pairs.filter(unseen).collect::<Vec<_>>(),
        })
    }

    /// A recipe by weight, from random number `k`.
    fn weighted(&self, draw: &Draw, k: u64) -> usize {
        let total = self.weights.last().copied().unwrap_or(1.0);
        let at = draw.uniform(k) * total;
        self.weights.partition_point(|w| *w <= at).min(self.props.len() - 1)
    }
}

/// What a sample is told beside its picture.
struct Text {
    caption: String,
    fronted: bool,
}

/// The random numbers of one sample.
struct Draw {
    rng: Rng,
    base: u64,
}

impl Draw {
    fn uniform(&self, k: u64) -> f32 {
        self.rng.uniform(self.base + k)
    }

    fn below(&self, k: u64, n: usize) -> usize {
        self.rng.below(self.base + k, n.max(1) as u32) as usize
    }
}

fn digest(config: &DataConfig, seed: u64, recipes: &[PathBuf], entries: &[Entry]) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{config:?} {seed}"));
    for path in recipes {
        hash.update(std::fs::read(path).map_err(|e| Error::io(path, e))?);
    }
    for entry in entries {
        hash.update(format!("{:?} {} {}\n", entry.path, entry.caption, entry.has_front));
    }
    Ok(format!("{:x}", hash.finalize()))
}

/// Cumulative weights: every first noun has the same share however many recipes draw it, heroes and
/// favourites more.
fn weights(recipes: &[Recipe], config: &DataConfig) -> Vec<f32> {
    let noun = |r: &Recipe| r.names().first().cloned().unwrap_or_default();
    let mut sum = 0.0;
    recipes
        .iter()
        .map(|r| {
            let same = recipes.iter().filter(|o| noun(o) == noun(r)).count() as f32;
            let weight = if config.heroes.contains(&noun(r)) {
                config.hero_weight
            } else if config.favourites.contains(&noun(r)) {
                config.favourite_weight
            } else {
                1.0
            };
            sum += weight / same;
            sum
        })
        .collect()
}
