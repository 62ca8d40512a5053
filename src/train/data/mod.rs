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
mod reading;
pub mod split;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use glam::Mat4;
use sha2::{Digest, Sha256};

use crate::asset::recipe::{self, Recipe};
use crate::error::{Error, Result};
use crate::render::raster::{Instance, PreparedAsset};
use crate::rng::{Rng, Stream};
use caption::Relation;
pub use config::DataConfig;
use edit::Edit;
use manifest::Entry;
use plan::{Plan, Planner, Thing};
use split::ALL_LOOKS;

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
    /// What it shows.
    pub caption: String,
    /// [`crate::render::camera::Camera::embedding`].
    pub camera: [f32; 16],
    /// Whether it has a front, seen at azimuth 0: what the camera's azimuth is relative to. False for
    /// things that look alike from everywhere, or were turned by chance.
    pub fronted: bool,
}

/// A recipe and its looks, built when first needed.
struct Prop {
    recipe: Recipe,
    looks: Vec<OnceLock<Arc<PreparedAsset>>>,
}

impl Prop {
    /// What it is called first.
    fn noun(&self) -> &str {
        self.recipe.names().first().map_or("", String::as_str)
    }

    /// It in a look, kept for next time.
    fn plain(&self, look: u64) -> Result<Arc<PreparedAsset>> {
        let build = || Ok(Arc::new(PreparedAsset::new(&self.recipe.build(look)?)));
        let Some(cell) = self.looks.get(look as usize) else { return build() };
        if let Some(asset) = cell.get() {
            return Ok(asset.clone());
        }
        // Another thread may be faster: then its equal asset stays.
        let asset = build()?;
        Ok(cell.get_or_init(|| asset).clone())
    }

    /// It in a look and another colour or material.
    fn edited(&self, look: u64, edit: Edit) -> Result<Arc<PreparedAsset>> {
        let mut asset = self.recipe.build(look)?;
        edit.apply(&mut asset);
        Ok(Arc::new(PreparedAsset::new(&asset)))
    }
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
        let empty = || (0..ALL_LOOKS).map(|_| OnceLock::new()).collect();
        let props = found.into_iter().map(|recipe| Prop { recipe, looks: empty() }).collect();
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
        let turn = |prop: &Prop| if prop.recipe.has_front() { 0.0 } else { draw.uniform(8) * 360.0 };
        let sample = match plan {
            Plan::Model(i) => {
                let entry = &self.entries[*i];
                let Ok(asset) = crate::asset::load(&entry.path) else { return Ok(None) };
                let asset = PreparedAsset::with_texture_limit(&asset, 128);
                let yaw = if entry.has_front { 0.0 } else { draw.uniform(8) * 360.0 };
                self.picture(draw, &mut [Instance::new(&asset, Mat4::IDENTITY)], yaw, text)
            }
            Plan::Single(thing) => {
                let asset = self.asset(thing)?;
                let yaw = turn(&self.props[thing.prop]);
                self.picture(draw, &mut [Instance::new(&asset, Mat4::IDENTITY)], yaw, text)
            }
            Plan::Several { prop, looks } => {
                let prop = &self.props[*prop];
                let assets = looks.iter().map(|l| prop.plain(*l)).collect::<Result<Vec<_>>>()?;
                let yaws = (0..4).map(|i| turn(prop) + 40.0 * (draw.uniform(80 + i) - 0.5));
                let places = compose::arrange(&assets, &yaws.collect::<Vec<_>>());
                let scene = assets.iter().zip(places);
                let mut scene: Vec<_> = scene.map(|(a, place)| Instance::new(a, place)).collect();
                self.picture(draw, &mut scene, 0.0, text)
            }
            Plan::Scene { first, relation, second, third, heroes } => {
                let settle = self.props[first.prop].recipe.settle();
                let share = match relation {
                    // The hero is what the picture is about.
                    _ if *heroes => 0.95 + 0.3 * draw.uniform(24),
                    Relation::On | Relation::Carrying => 0.75 + 0.35 * draw.uniform(24),
                    Relation::NextTo | Relation::Beside => 0.8 + 0.4 * draw.uniform(24),
                };
                let assets = [Some(first), Some(second), third.as_ref()].into_iter().flatten();
                let assets = assets.map(|t| self.asset(t)).collect::<Result<Vec<_>>>()?;
                let pair = compose::place(&assets[0], &assets[1], *relation, share, settle);
                let mut scene: Vec<_> =
                    assets.iter().zip(pair).map(|(a, place)| Instance::new(a, place)).collect();
                if let Some(third) = assets.get(2) {
                    let place = compose::right_of(third, &scene, 0.6 + 0.3 * draw.uniform(29));
                    scene.push(Instance::new(third, place));
                }
                self.picture(draw, &mut scene, 0.0, text)
            }
        };
        Ok(Some(sample))
    }

    fn asset(&self, thing: &Thing) -> Result<Arc<PreparedAsset>> {
        let prop = &self.props[thing.prop];
        match thing.edit {
            Some(edit) => prop.edited(thing.look, edit),
            None => prop.plain(thing.look),
        }
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

    /// Captions that hold every word there is, for the tokenizer.
    pub fn captions(&self) -> Vec<String> {
        let relations = [Relation::On, Relation::Carrying, Relation::NextTo, Relation::Beside];
        let mut out: BTreeSet<String> = relations.iter().map(|r| r.caption("a thing", "another")).collect();
        out.extend(Edit::words().map(|w| caption::described(Some(w), "thing", false)));
        for prop in &self.props {
            let recipe = &prop.recipe;
            for word in std::iter::once(None).chain(recipe.words().map(Some)) {
                out.extend(recipe.names().iter().map(|n| caption::described(word, n, recipe.plural())));
            }
            if !recipe.plural() {
                out.extend(caption::COUNTS.map(|n| format!("{n} {}", caption::plural(prop.noun()))));
            }
        }
        out.extend(self.entries.iter().map(|e| e.caption.clone()));
        out.into_iter().collect()
    }

    /// Every word of [`Dataset::captions`].
    pub fn vocabulary(&self) -> BTreeSet<String> {
        let words = |c: &String| {
            let split = c.to_lowercase();
            let split = split.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
            split.map(str::to_owned).collect::<Vec<_>>()
        };
        self.captions().iter().flat_map(words).collect()
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
