//! The words of the training captions.

use std::collections::BTreeSet;

use super::Dataset;
use super::caption::{self, COUNTS, Relation};
use super::edit::{COLORS, Edit, SUBSTANCES};
use crate::prior::vocabulary::Vocabulary;

const RELATIONS: [Relation; 4] = [Relation::On, Relation::Carrying, Relation::NextTo, Relation::Beside];

/// What the prior's folder keeps of its words.
#[derive(Debug, Default)]
pub struct Words {
    /// Every word of every caption, for warnings about others.
    pub seen: BTreeSet<String>,
    /// What the recipes name, by kind.
    pub vocabulary: Vocabulary,
}

impl Dataset {
    /// Captions that hold every word there is, for the tokenizer.
    pub fn captions(&self) -> Vec<String> {
        let mut out: BTreeSet<String> = RELATIONS.iter().map(|r| r.caption("a thing", "another")).collect();
        out.extend(Edit::words().map(|w| caption::described(Some(w), "thing", false)));
        for prop in &self.props {
            let recipe = &prop.recipe;
            for word in std::iter::once(None).chain(recipe.words().map(Some)) {
                out.extend(recipe.names().iter().map(|n| caption::described(word, n, recipe.plural())));
            }
            if !recipe.plural() {
                out.extend(COUNTS.map(|n| format!("{n} {}", caption::plural(prop.noun()))));
            }
        }
        out.extend(self.entries.iter().map(|e| e.caption.clone()));
        out.into_iter().collect()
    }

    /// The words of [`Dataset::captions`], and those that are taught systematically by kind: corpus models
    /// have names, too, but most are seen too rarely to be promised.
    pub fn words(&self) -> Words {
        let split = |c: &String| {
            let lower = c.to_lowercase();
            let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        let nouns: BTreeSet<&String> = self.props.iter().flat_map(|p| p.recipe.names()).collect();
        Words {
            seen: self.captions().iter().flat_map(split).collect(),
            vocabulary: Vocabulary {
                nouns: nouns.into_iter().cloned().collect(),
                colors: COLORS.iter().map(|c| c.0.to_owned()).collect(),
                materials: SUBSTANCES.iter().map(|s| s.word.to_owned()).collect(),
                counts: COUNTS.map(str::to_owned).to_vec(),
                relations: RELATIONS.iter().map(|r| r.caption("X", "Y")).collect(),
            },
        }
    }
}
