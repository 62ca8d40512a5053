//! Captions from names, colour words and relations.

use crate::asset::recipe::Recipe;

/// `noun` with an indefinite article, unless it is a plural or mass noun.
pub(super) fn with_article(noun: &str, plural: bool) -> String {
    if plural {
        return noun.to_owned();
    }
    let vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if vowel { "an" } else { "a" })
}

/// A caption of a recipe's asset: its `name`, with the colour word in front if one is given.
pub(super) fn of_recipe(recipe: &Recipe, name: usize, word: Option<&str>) -> String {
    let noun = &recipe.names()[name % recipe.names().len().max(1)];
    match word {
        Some(word) => with_article(&format!("{word} {noun}"), recipe.plural()),
        None => with_article(noun, recipe.plural()),
    }
}

/// How one thing stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// The first stands on top of the second.
    On,
    /// The first stands to the left (−X) of the second, both on the ground.
    Beside,
}

impl Relation {
    /// `first` and `second` are captions with their articles.
    pub(super) fn caption(self, first: &str, second: &str) -> String {
        match self {
            Self::On => format!("{first} on {second}"),
            Self::Beside => format!("{first} beside {second}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_follow_the_sound_and_plurals_take_none() {
        assert_eq!(with_article("blue jay", false), "a blue jay");
        assert_eq!(with_article("orange cat", false), "an orange cat");
        assert_eq!(with_article("macarons", true), "macarons");
        assert_eq!(Relation::On.caption("a blue jay", "macarons"), "a blue jay on macarons");
    }
}
