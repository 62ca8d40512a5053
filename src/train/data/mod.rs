//! Training data: named, posed, lit pictures of recipes, corpus models and small scenes.
//!
//! [`Dataset::sample`] is a pure function of `(seed, index)`. Pictures of indices below
//! [`HELD_OUT`] are never trained on: training starts there.

mod caption;
mod compose;
pub mod manifest;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use glam::{Mat4, Vec3};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::asset::recipe::{self, Recipe};
use crate::error::{Error, Result};
use crate::render::backdrop::background_color;
use crate::render::camera::Camera;
use crate::render::color::linear_to_srgb;
use crate::render::light::Lighting;
use crate::render::raster::{Instance, PreparedAsset, render_scene};
use crate::rng::{Rng, Stream};
use caption::Relation;
use manifest::Entry;

/// Indices below this are for evaluation.
pub const HELD_OUT: u64 = 10_000;
/// Looks (seeds) a recipe is built in.
const LOOKS: usize = 12;
/// Random numbers set aside for each sample.
const DRAWS: u64 = 64;
/// The camera rig: field of view, distance and its spread, elevations (degrees, world units).
pub(super) const FOV_Y: f32 = 40.0;
const DISTANCE: f32 = 2.4;
const SPREAD: f32 = 0.1;
const ELEVATION: (f32, f32) = (-10.0, 50.0);

/// How samples are drawn.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Side of the pictures; a training sets it from its own `image_size`.
    #[serde(skip)]
    pub image_size: u32,
    /// Samples a pixel each way.
    pub supersample: u32,
    /// Share of single recipes.
    pub recipes: f32,
    /// Share of scenes of two recipes; the rest is corpus models.
    pub scenes: f32,
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
            supersample: 4,
            recipes: 0.6,
            scenes: 0.3,
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

/// One training sample.
#[derive(Debug, Clone)]
pub struct Sample {
    /// `[3, size, size]`, sRGB in −1..1.
    pub rgb: Vec<f32>,
    /// What it shows.
    pub caption: String,
    /// [`Camera::embedding`].
    pub camera: [f32; 16],
}

/// A recipe and its looks, built when first needed.
struct Prop {
    recipe: Recipe,
    looks: Vec<OnceLock<PreparedAsset>>,
}

/// See the module's text.
pub struct Dataset {
    config: DataConfig,
    seed: u64,
    props: Vec<Prop>,
    /// Cumulative weights of `props`.
    weights: Vec<f32>,
    entries: Vec<Entry>,
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
        let props_found = files.iter().map(|f| recipe::load(f)).collect::<Result<Vec<_>>>()?;
        if props_found.is_empty() {
            return Err(Error::file(props, "holds no recipe"));
        }
        let nouns: BTreeSet<&String> = props_found.iter().filter_map(|r| r.names().first()).collect();
        if let Some(stranger) = config.favourites.iter().find(|f| !nouns.contains(f)) {
            return Err(Error::invalid("data.favourites", format!("no recipe is first called {stranger:?}")));
        }
        let weights = weights(&props_found, &config);
        let empty = || (0..LOOKS).map(|_| OnceLock::new()).collect();
        let props = props_found.into_iter().map(|recipe| Prop { recipe, looks: empty() }).collect();
        let entries = corpus.map(manifest::read).transpose()?.unwrap_or_default();
        let digest = digest(&config, seed, &files, &entries)?;
        Ok(Self { config, seed, props, weights, entries, digest })
    }

    /// SHA-256 of all that decides the samples but the code: settings, seed, recipes and the corpus's list.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Sample `index`: a pure function of the seed and the index.
    ///
    /// # Errors
    /// If a recipe cannot be built. Corpus models that cannot be read are replaced by a recipe.
    pub fn sample(&self, index: u64) -> Result<Sample> {
        let draw = Draw { rng: Rng::new(self.seed, Stream::Data, u32::MAX), base: index * DRAWS };
        let kind = draw.uniform(0);
        let c = &self.config;
        if kind < c.scenes {
            return self.scene(&draw);
        }
        if kind >= c.scenes + c.recipes && !self.entries.is_empty() {
            let entry = &self.entries[draw.below(1, self.entries.len())];
            if let Ok(asset) = crate::asset::load(&entry.path) {
                let asset = PreparedAsset::with_texture_limit(&asset, 128);
                let yaw = if entry.has_front { 0.0 } else { draw.uniform(2) * 360.0 };
                return Ok(self.picture(
                    &draw,
                    &mut [Instance::new(&asset, Mat4::IDENTITY)],
                    yaw,
                    &entry.caption,
                ));
            }
        }
        let prop = self.weighted(&draw, 3);
        let (asset, text) = self.dressed(prop, &draw, 4)?;
        let yaw = if prop.recipe.has_front() { 0.0 } else { draw.uniform(8) * 360.0 };
        Ok(self.picture(&draw, &mut [Instance::new(asset, Mat4::IDENTITY)], yaw, &text))
    }

    /// Every caption that single objects can have, for the tokenizer.
    pub fn captions(&self) -> Vec<String> {
        let mut out = BTreeSet::from(["a thing on another beside".to_owned()]);
        for prop in &self.props {
            let names = prop.recipe.names().len();
            for word in std::iter::once(None).chain(prop.recipe.words().map(Some)) {
                out.extend((0..names).map(|n| caption::of_recipe(&prop.recipe, n, word)));
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
    fn weighted(&self, draw: &Draw, k: u64) -> &Prop {
        let total = self.weights.last().copied().unwrap_or(1.0);
        let at = draw.uniform(k) * total;
        let i = self.weights.partition_point(|w| *w <= at);
        &self.props[i.min(self.props.len() - 1)]
    }

    /// A recipe's asset in a random look, and a caption for it; uses random numbers `k..k + 4`.
    fn dressed<'a>(&self, prop: &'a Prop, draw: &Draw, k: u64) -> Result<(&'a PreparedAsset, String)> {
        let look = draw.below(k, LOOKS);
        let cell = &prop.looks[look];
        if cell.get().is_none() {
            let asset = PreparedAsset::new(&prop.recipe.build(look as u64)?);
            // Another thread may have been faster: then its equal asset stays.
            let _ = cell.set(asset);
        }
        let asset = cell.get().ok_or_else(|| Error::Failed("recipe".into()))?;
        // The first name is the usual one; others teach synonyms.
        let name = if draw.uniform(k + 1) < 0.8 { 0 } else { draw.below(k + 2, prop.recipe.names().len()) };
        let word = prop.recipe.word(look as u64).filter(|_| draw.uniform(k + 3) < 0.5);
        Ok((asset, caption::of_recipe(&prop.recipe, name, word)))
    }

    fn scene(&self, draw: &Draw) -> Result<Sample> {
        let heroes = draw.uniform(10) < self.config.hero_scenes;
        let named = |i: usize, k: u64| self.hero(i, draw, k).filter(|_| heroes);
        let first = match named(0, 11) {
            Some(prop) => prop,
            None => self
                .pick(draw, 12, |r| r.has_front() && matches!(r.category(), "animal" | "bird"))
                .unwrap_or_else(|| self.weighted(draw, 12)),
        };
        let second = match named(1, 13) {
            Some(prop) => prop,
            None => self.pick(draw, 14, Recipe::is_support).unwrap_or_else(|| self.weighted(draw, 14)),
        };
        let relation = if heroes || draw.uniform(15) < 0.75 { Relation::On } else { Relation::Beside };
        let (asset1, text1) = self.dressed(first, draw, 16)?;
        let (asset2, text2) = self.dressed(second, draw, 20)?;
        let share = match relation {
            // The hero is what the picture is about.
            Relation::On if heroes => 0.95 + 0.3 * draw.uniform(24),
            Relation::On => 0.75 + 0.35 * draw.uniform(24),
            Relation::Beside => 0.8 + 0.4 * draw.uniform(24),
        };
        let [t1, t2] =
            compose::place(asset1, asset2, relation, share, first.recipe.settle().max(compose::SINK));
        let mut scene = [Instance::new(asset1, t1), Instance::new(asset2, t2)];
        Ok(self.picture(draw, &mut scene, 0.0, &relation.caption(&text1, &text2)))
    }

    /// A recipe named after hero `i`.
    fn hero(&self, i: usize, draw: &Draw, k: u64) -> Option<&Prop> {
        let noun = &self.config.heroes[i];
        // The second carries the first.
        self.pick(draw, k, |r| r.names().first() == Some(noun) && (i == 0 || r.is_support()))
    }

    /// One of the recipes for which `fits`, all equally likely.
    fn pick(&self, draw: &Draw, k: u64, fits: impl Fn(&Recipe) -> bool) -> Option<&Prop> {
        let found: Vec<&Prop> = self.props.iter().filter(|p| fits(&p.recipe)).collect();
        if found.is_empty() { None } else { Some(found[draw.below(k, found.len())]) }
    }

    /// Draws the scene from a random camera, under a random light, on a random background.
    fn picture(&self, draw: &Draw, scene: &mut [Instance<'_>], yaw: f32, text: &str) -> Sample {
        compose::normalize(scene, yaw);
        let size = self.config.image_size;
        let azimuth = 360.0 * draw.uniform(32);
        let elevation = ELEVATION.0 + (ELEVATION.1 - ELEVATION.0) * draw.uniform(33);
        let distance = DISTANCE * (1.0 + SPREAD * (2.0 * draw.uniform(34) - 1.0));
        let camera = Camera::orbit(azimuth, elevation, distance, Vec3::ZERO, FOV_Y.to_radians(), size);
        let frame = render_scene(scene, &camera, &light(draw), background(draw), self.config.supersample);
        let pixels = (size * size) as usize;
        let mut rgb = vec![0.0; 3 * pixels];
        for (i, color) in frame.rgb.iter().enumerate() {
            for (c, v) in color.to_array().into_iter().enumerate() {
                rgb[c * pixels + i] = 2.0 * linear_to_srgb(v.clamp(0.0, 1.0)) - 1.0;
            }
        }
        Sample { rgb, caption: text.to_owned(), camera: camera.embedding() }
    }
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

/// Studio light, a little stronger or weaker and warmer or cooler.
fn light(draw: &Draw) -> Lighting {
    let mut light = Lighting::studio();
    let strength = 0.9 + 0.2 * draw.uniform(40);
    let warmth = 0.04 * (2.0 * draw.uniform(41) - 1.0);
    let tint = Vec3::new(1.0 + warmth, 1.0, 1.0 - warmth) * strength;
    light.sky *= tint;
    light.ground *= tint;
    for (_, color) in &mut light.lights {
        *color *= tint;
    }
    light
}

/// A plain background, linear RGB: mostly light and neutral, so that any object stands out.
fn background(draw: &Draw) -> Vec3 {
    background_color([draw.uniform(48), draw.uniform(49), draw.uniform(50), draw.uniform(51)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(seed: u64) -> Dataset {
        let props = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props");
        let config = DataConfig { image_size: 16, supersample: 1, ..DataConfig::default() };
        Dataset::open(None, &props, config, seed).unwrap()
    }

    #[test]
    fn a_sample_is_a_pure_function_of_seed_and_index() {
        let (a, b, other) = (dataset(1), dataset(1), dataset(2));
        let mut same = 0;
        for i in (0..20).rev() {
            let (x, y, z) = (a.sample(i).unwrap(), b.sample(i).unwrap(), other.sample(i).unwrap());
            assert_eq!((&x.rgb, &x.caption, x.camera), (&y.rgb, &y.caption, y.camera));
            same += usize::from(x.rgb == z.rgb);
        }
        assert_eq!(same, 0, "another seed gives other pictures");
    }

    #[test]
    fn favourites_are_drawn_more_often_and_must_be_known() {
        let props = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props");
        let open = |favourites: &[&str]| {
            let favourites = favourites.iter().map(|f| (*f).to_owned()).collect();
            let config = DataConfig {
                image_size: 8,
                supersample: 1,
                recipes: 1.0,
                scenes: 0.0,
                favourites,
                favourite_weight: 30.0,
                ..DataConfig::default()
            };
            Dataset::open(None, &props, config, 1)
        };
        let count =
            |data: &Dataset| (0..100).filter(|i| data.sample(*i).unwrap().caption.contains("apple")).count();
        let (plain, often) = (count(&open(&[]).unwrap()), count(&open(&["apple"]).unwrap()));
        assert!(plain <= 8 && often >= 15, "{plain} {often}");
        assert!(open(&["zebra"]).err().unwrap().to_string().contains("zebra"));
    }

    #[test]
    fn pictures_show_something_and_heroes_are_frequent() {
        let data = dataset(3);
        let samples: Vec<Sample> = (0..300).map(|i| data.sample(i).unwrap()).collect();
        for s in &samples {
            let first = s.rgb[0];
            assert!(s.rgb.iter().all(|v| v.is_finite() && v.abs() <= 1.0));
            assert!(s.rgb.iter().any(|v| (v - first).abs() > 0.05), "empty picture of {}", s.caption);
        }
        let share = |text: &str| samples.iter().filter(|s| s.caption.contains(text)).count();
        assert!(share("blue jay on macarons") >= 10 && share("macarons") >= 20, "{}", share("macarons"));
        let words = data.vocabulary();
        assert!(["blue", "jay", "macarons", "on", "beside"].iter().all(|w| words.contains(*w)));
    }
}
