//! The way back from words to what they name: a caption's plan, and its compositions.

use super::Dataset;
use super::caption::{self, COUNTS, Relation};
use super::edit::Edit;
use super::plan::{Plan, Thing};
use super::prop::Prop;

impl Dataset {
    /// The compositions (see [`super::split::is_held_out`]) that a caption of this engine names, such as
    /// `a golden owl on a crate` gives `on: owl, crate` and `golden owl`. Nouns are the recipes' first
    /// names. `None` if the caption is not of this engine's making, or is a corpus model's.
    pub fn compositions_of(&self, caption: &str) -> Option<Vec<String>> {
        Some(self.plan_of(caption)?.compositions(self))
    }

    /// A plan that has this caption: of several recipes and looks that it fits, the first. `None` if the
    /// caption is not of this engine's making, or is a corpus model's.
    pub(super) fn plan_of(&self, caption: &str) -> Option<Plan> {
        if let Some((two, third)) = caption.split_once(" next to ").filter(|(two, _)| stacked(two).is_some())
        {
            return self.pair(two, Some(third));
        }
        if stacked(caption).is_some() {
            return self.pair(caption, None);
        }
        for (words, relation) in [(" next to ", Relation::NextTo), (" beside ", Relation::Beside)] {
            if let Some((first, second)) = caption.split_once(words) {
                let (first, second) = (self.thing_of(first)?, self.thing_of(second)?);
                return Some(Plan::Scene { first, relation, second, third: None, heroes: false });
            }
        }
        self.several_of(caption).or_else(|| Some(Plan::Single(self.thing_of(caption)?)))
    }

    /// Two things, one on the other, and perhaps a third.
    fn pair(&self, two: &str, third: Option<&str>) -> Option<Plan> {
        let (relation, [first, second]) = stacked(two)?;
        let third = match third {
            Some(third) => Some(self.thing_of(third)?),
            None => None,
        };
        let (first, second) = (self.thing_of(first)?, self.thing_of(second)?);
        let is = |thing: &Thing, i: usize| self.config.heroes[i] == self.props[thing.prop].noun();
        let heroes = is(&first, 0) && is(&second, 1) && relation == Relation::On && third.is_none();
        Some(Plan::Scene { first, relation, second, third, heroes })
    }

    fn several_of(&self, text: &str) -> Option<Plan> {
        let (word, noun) = text.split_once(' ')?;
        let more = COUNTS.iter().position(|c| *c == word)? as u64;
        let named = |p: &Prop| !p.recipe.plural() && caption::plural(p.noun()) == noun;
        let prop = self.props.iter().position(named)?;
        let first = self.config.split.looks().start;
        Some(Plan::Several { prop, looks: (first..first + 2 + more).collect() })
    }

    /// One thing in the first look that fits its words.
    fn thing_of(&self, text: &str) -> Option<Thing> {
        let bare = text.strip_prefix("a ").or_else(|| text.strip_prefix("an ")).unwrap_or(text);
        let thing = |prop: usize, look: u64, edit: Option<Edit>| {
            Some(Thing { prop, look, edit, caption: text.to_owned() })
        };
        let looks = self.config.split.looks();
        let known = |noun: &str| self.props.iter().position(|p| p.noun() == noun);
        if let Some(prop) = known(bare) {
            return thing(prop, looks.start, None);
        }
        // A further name may read like an edit: "a wooden barrel" is any barrel.
        if self.props.iter().any(|p| p.recipe.names().iter().any(|name| name == bare)) {
            return None;
        }
        let (word, noun) = bare.split_once(' ')?;
        let prop = known(noun)?;
        let recipe = &self.props[prop].recipe;
        if recipe.words().any(|w| w == word) {
            return thing(prop, looks.clone().find(|l| recipe.word(*l) == Some(word))?, None);
        }
        let edit = (0..Edit::COUNT).map(Edit::nth).find(|e| e.word() == word)?;
        thing(prop, looks.start, Some(edit))
    }
}

/// The two captions of "X on Y" or "Y with X on top", X first.
fn stacked(caption: &str) -> Option<(Relation, [&str; 2])> {
    if let Some((below, rest)) = caption.split_once(" with ") {
        return Some((Relation::Carrying, [rest.strip_suffix(" on top")?, below]));
    }
    caption.split_once(" on ").map(|(first, second)| (Relation::On, [first, second]))
}
