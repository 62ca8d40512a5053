//! What a sample shows, decided before anything is built or drawn.

use super::caption::{self, COUNTS, Relation};
use super::config::DataConfig;
use super::edit::Edit;
use super::prop::Prop;
use super::{Dataset, Draw};
use crate::asset::recipe::Recipe;

/// One thing: which recipe in which look, and how the caption calls it.
#[derive(Debug, Clone)]
pub(super) struct Thing {
    /// Index of the recipe.
    pub(super) prop: usize,
    /// Seed of the recipe.
    pub(super) look: u64,
    /// Another colour or material.
    pub(super) edit: Option<Edit>,
    /// With its article.
    pub(super) caption: String,
}

/// The content of one picture.
#[derive(Debug, Clone)]
pub(super) enum Plan {
    /// A corpus model.
    Model(usize),
    /// One recipe.
    Single(Thing),
    /// Two to four of one recipe.
    Several {
        /// Index of the recipe.
        prop: usize,
        /// Their seeds.
        looks: Vec<u64>,
    },
    /// Two or three things.
    Scene {
        first: Thing,
        relation: Relation,
        second: Thing,
        /// Stands to the right of both.
        third: Option<Thing>,
        /// The main example's nouns.
        heroes: bool,
    },
}

impl Plan {
    /// Its compositions, in words that do not depend on files' order: `golden owl`, `three apple`,
    /// `on: robin, crate`, `next to: owl, crate`. Nouns are the recipes' first names.
    pub(super) fn compositions(&self, data: &Dataset) -> Vec<String> {
        let noun = |prop: usize| data.props[prop].noun();
        let edited = |thing: &Thing| {
            let natural = |word: &str| data.props[thing.prop].recipe.words().any(|w| w == word);
            let word = thing.edit.map(Edit::word).filter(|w| !natural(w))?;
            Some(format!("{word} {}", noun(thing.prop)))
        };
        match self {
            Self::Model(_) => Vec::new(),
            Self::Single(thing) => edited(thing).into_iter().collect(),
            Self::Several { prop, looks } => vec![format!("{} {}", COUNTS[looks.len() - 2], noun(*prop))],
            Self::Scene { first, relation, second, third, .. } => {
                let pair = |relation: Relation, a: &Thing, b: &Thing| {
                    let word = if relation.stacked() { "on" } else { "next to" };
                    format!("{word}: {}, {}", noun(a.prop), noun(b.prop))
                };
                let mut out = vec![pair(*relation, first, second)];
                out.extend(third.iter().map(|third| pair(Relation::NextTo, first, third)));
                out.extend(
                    [Some(first), Some(second), third.as_ref()].into_iter().flatten().filter_map(edited),
                );
                out
            }
        }
    }

    /// The recipes it shows, with their looks and edits; none for a corpus model.
    pub(super) fn things(&self) -> Vec<(usize, u64, Option<Edit>)> {
        let one = |thing: &Thing| (thing.prop, thing.look, thing.edit);
        match self {
            Self::Model(_) => Vec::new(),
            Self::Single(thing) => vec![one(thing)],
            Self::Several { prop, looks } => looks.iter().map(|look| (*prop, *look, None)).collect(),
            Self::Scene { first, second, third, .. } => {
                [Some(first), Some(second), third.as_ref()].into_iter().flatten().map(one).collect()
            }
        }
    }

    /// Whether the whole has a front: that of the thing it shows first.
    pub(super) fn fronted(&self, data: &Dataset) -> bool {
        let first = match self {
            Self::Model(i) => return data.entries[*i].has_front,
            Self::Single(thing) => thing.prop,
            Self::Several { prop, .. } => *prop,
            Self::Scene { first, .. } => first.prop,
        };
        data.props[first].recipe.has_front()
    }

    /// The caption.
    pub(super) fn caption(&self, data: &Dataset) -> String {
        match self {
            Self::Model(i) => data.entries[*i].caption.clone(),
            Self::Single(thing) => thing.caption.clone(),
            Self::Several { prop, looks } => {
                format!("{} {}", COUNTS[looks.len() - 2], caption::plural(data.props[*prop].noun()))
            }
            Self::Scene { first, relation, second, third, .. } => {
                let two = relation.caption(&first.caption, &second.caption);
                match third {
                    Some(third) => Relation::NextTo.caption(&two, &third.caption),
                    None => two,
                }
            }
        }
    }
}

/// Draws what a sample shows.
pub(super) struct Planner<'a> {
    pub(super) data: &'a Dataset,
    pub(super) draw: &'a Draw,
}

impl Planner<'_> {
    /// The plan that the random numbers give, on either side of the split for compositions.
    pub(super) fn plan(&self) -> Plan {
        let (c, draw) = (&self.data.config, self.draw);
        let kind = draw.uniform(0);
        if kind < c.scenes {
            return self.scene(c);
        }
        let models = &self.data.models;
        if kind >= c.scenes + c.recipes && !models.is_empty() {
            return Plan::Model(models[draw.below(1, models.len())]);
        }
        let prop = self.data.weighted(draw, 3);
        let how = draw.uniform(2);
        if how < c.counts && !self.data.props[prop].recipe.plural() {
            let count = 2 + draw.below(4, COUNTS.len());
            let looks = (0..count as u64).map(|i| self.look(5 + i)).collect();
            return Plan::Several { prop, looks };
        }
        Plan::Single(self.thing(prop, 4, if how < c.counts + c.edits { 1.0 } else { 0.0 }))
    }

    fn look(&self, k: u64) -> u64 {
        let looks = self.data.config.split.looks();
        looks.start + self.draw.below(k, (looks.end - looks.start) as usize) as u64
    }

    /// Recipe `prop` in a random look, with probability `edits` in another colour or material; uses
    /// random numbers `k..k + 6`.
    fn thing(&self, prop: usize, k: u64, edits: f32) -> Thing {
        let (draw, recipe) = (self.draw, &self.data.props[prop].recipe);
        let look = self.look(k);
        let edit = (draw.uniform(k + 3) < edits && may_be_edited(recipe))
            .then(|| Edit::nth(draw.below(k + 4, Edit::COUNT)));
        // The first name is the usual one; others teach synonyms.
        let usual = edit.is_some() || draw.uniform(k + 1) < 0.8;
        let name = if usual { 0 } else { draw.below(k + 2, recipe.names().len()) };
        let noun = &recipe.names()[name];
        let natural = recipe.word(look).filter(|_| edit.is_none() && draw.uniform(k + 5) < 0.5);
        let adjective = edit.map(Edit::word).or(natural);
        Thing { prop, look, edit, caption: caption::described(adjective, noun, recipe.plural()) }
    }

    fn scene(&self, c: &DataConfig) -> Plan {
        let draw = self.draw;
        let heroes = draw.uniform(10) < c.hero_scenes;
        let hero = |i: usize, k: u64| self.hero(&c.heroes[i], i == 1, k).filter(|_| heroes);
        let relation = match draw.uniform(15) {
            _ if heroes => Relation::On,
            x if x < 0.45 => Relation::On,
            x if x < 0.6 => Relation::Carrying,
            x if x < 0.9 => Relation::NextTo,
            _ => Relation::Beside,
        };
        let animals = |r: &Recipe| r.has_front() && r.category() == "animal";
        let some_animal = || self.pick(12, animals).filter(|_| draw.uniform(26) < 0.6);
        let first = hero(0, 11).or_else(some_animal).unwrap_or_else(|| self.data.weighted(draw, 12));
        let second = hero(1, 13)
            .or_else(|| self.pick(14, Recipe::is_support).filter(|_| relation.stacked()))
            .unwrap_or_else(|| self.data.weighted(draw, 14));
        let edits = if heroes { 0.0 } else { 0.5 * c.edits };
        let third = (!heroes && relation.stacked() && draw.uniform(27) < c.thirds)
            .then(|| self.thing(self.data.weighted(draw, 28), 70, edits));
        let [first, second] = [(first, 16), (second, 60)].map(|(prop, k)| self.thing(prop, k, edits));
        Plan::Scene { first, relation, second, third, heroes }
    }

    /// A recipe first called `noun`; what stands below must carry.
    fn hero(&self, noun: &str, below: bool, k: u64) -> Option<usize> {
        self.pick(k, |r| r.names().first().is_some_and(|n| n == noun) && (!below || r.is_support()))
    }

    /// One of the recipes for which `fits`, all equally likely.
    fn pick(&self, k: u64, fits: impl Fn(&Recipe) -> bool) -> Option<usize> {
        let fits = |p: &(usize, &Prop)| fits(&p.1.recipe);
        let found: Vec<usize> = self.data.props.iter().enumerate().filter(fits).map(|p| p.0).collect();
        (!found.is_empty()).then(|| found[self.draw.below(k, found.len())])
    }
}

/// A "red blue jay" is nonsense, and so is a "golden wooden crate": what is called by its colour or
/// material keeps it.
fn may_be_edited(recipe: &Recipe) -> bool {
    let stems = Edit::words().map(|w| w.trim_end_matches("en"));
    let name = recipe.names().first().map_or("", String::as_str);
    !stems.into_iter().any(|stem| name.contains(stem))
}
