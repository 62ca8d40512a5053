//! What compositions a caption names: the way back from words to the split's names.

use super::caption::{self, COUNTS, Relation};
use super::edit::Edit;
use super::{Dataset, Prop};

impl Dataset {
    /// The compositions (see [`super::split::is_held_out`]) that a caption of this engine names, such as
    /// `a golden owl on a crate` gives `on: owl, crate` and `golden owl`. Nouns are the recipes' first
    /// names. `None` if the caption is not of this engine's making, or is a corpus model's.
    pub fn compositions_of(&self, caption: &str) -> Option<Vec<String>> {
        if let Some((two, third)) = caption.split_once(" next to ").filter(|(two, _)| stacked(two).is_some())
        {
            let ([first, second], third) = (stacked(two)?, self.thing_of(third)?);
            let mut out = self.pair(Relation::On, first, second)?;
            out.push(format!("next to: {}, {}", self.thing_of(first)?.0, third.0));
            out.extend(third.1);
            return Some(out);
        }
        if let Some([first, second]) = stacked(caption) {
            return self.pair(Relation::On, first, second);
        }
        for relation in [" next to ", " beside "] {
            if let Some((first, second)) = caption.split_once(relation) {
                return self.pair(Relation::NextTo, first, second);
            }
        }
        Some(self.thing_of(caption)?.1.into_iter().collect())
    }

    fn pair(&self, relation: Relation, first: &str, second: &str) -> Option<Vec<String>> {
        let (first, second) = (self.thing_of(first)?, self.thing_of(second)?);
        let word = if relation.stacked() { "on" } else { "next to" };
        let mut out = vec![format!("{word}: {}, {}", first.0, second.0)];
        out.extend([first.1, second.1].into_iter().flatten());
        Some(out)
    }

    /// The noun, and the composition that one thing or several of it are.
    fn thing_of(&self, text: &str) -> Option<(&str, Option<String>)> {
        let bare = text.strip_prefix("a ").or_else(|| text.strip_prefix("an ")).unwrap_or(text);
        let known = |noun: &str| self.props.iter().find(|p| p.noun() == noun);
        if let Some(prop) = known(bare) {
            return Some((prop.noun(), None));
        }
        // A further name may read like an edit: "a wooden barrel" is any barrel.
        if self.props.iter().any(|p| p.recipe.names().iter().any(|name| name == bare)) {
            return None;
        }
        let (word, noun) = bare.split_once(' ')?;
        if COUNTS.contains(&word) {
            let prop = self.props.iter().find(|p| caption::plural(p.noun()) == noun)?;
            return Some((prop.noun(), Some(format!("{word} {}", prop.noun()))));
        }
        let prop = known(noun)?;
        let natural = |p: &Prop| p.recipe.words().any(|w| w == word);
        let edited = Edit::words().any(|w| w == word) && !natural(prop);
        (edited || natural(prop)).then(|| (prop.noun(), edited.then(|| format!("{word} {noun}"))))
    }
}

/// The two captions of "X on Y" or "Y with X on top".
fn stacked(caption: &str) -> Option<[&str; 2]> {
    if let Some((below, rest)) = caption.split_once(" with ") {
        return Some([rest.strip_suffix(" on top")?, below]);
    }
    caption.split_once(" on ").map(|(first, second)| [first, second])
}
