//! What a prior of `gen3d train` was taught to name, by kind: `vocabulary.json` of its folder.

use serde::{Deserialize, Serialize};

/// Words and phrases by kind, each list in the order in which it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// Things, synonyms included, without articles.
    pub nouns: Vec<String>,
    /// Colours that anything can have ("a red teapot").
    pub colors: Vec<String>,
    /// Materials that anything can be made of ("a wooden owl").
    pub materials: Vec<String>,
    /// Numbers of things ("three apples").
    pub counts: Vec<String>,
    /// Relations of two things, X and Y.
    pub relations: Vec<String>,
}

impl Vocabulary {
    /// Kind and word or phrase of all entries.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let kinds = [
            ("noun", &self.nouns),
            ("color", &self.colors),
            ("material", &self.materials),
            ("count", &self.counts),
            ("relation", &self.relations),
        ];
        kinds.into_iter().flat_map(|(kind, all)| all.iter().map(move |word| (kind, word.as_str())))
    }
}
