//! What is never trained on: some individuals of every kind, and some compositions.
//!
//! Both follow from names alone, so that the split stands before any training and cannot drift with
//! the order of files: of every ten compositions one is held out, by the SHA-256 of its words.

use clap::ValueEnum;
use sha2::{Digest, Sha256};

/// Which samples are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Split {
    /// Individuals and compositions that may be trained on.
    #[default]
    Train,
    /// Individuals never trained on (looks of recipes, models), in compositions that were.
    Objects,
    /// Compositions never trained on, of individuals never trained on.
    Compositions,
}

/// Looks (seeds) in which a recipe is trained on; those from here to [`ALL_LOOKS`] are held out.
pub(super) const LOOKS: u64 = 12;
/// Looks of a recipe in all.
pub(super) const ALL_LOOKS: u64 = 16;

impl Split {
    /// The looks of a recipe on this side.
    pub(in crate::train) fn looks(self) -> std::ops::Range<u64> {
        match self {
            Self::Train => 0..LOOKS,
            Self::Objects | Self::Compositions => LOOKS..ALL_LOOKS,
        }
    }

    /// Whether a corpus model may be shown on this side; one in twenty is held out.
    pub(super) fn shows_model(self, path_in_corpus: &str) -> bool {
        (one_in(20, path_in_corpus)) != (self == Self::Train)
    }

    /// Whether a picture of these compositions belongs here.
    pub(super) fn admits(self, compositions: &[String]) -> bool {
        let any = compositions.iter().any(|c| is_held_out(c));
        any == (self == Self::Compositions)
    }
}

/// Whether a composition (see `plan.rs`) is never trained on.
pub fn is_held_out(composition: &str) -> bool {
    one_in(10, composition)
}

fn one_in(n: u64, text: &str) -> bool {
    let hash = Sha256::digest(text.as_bytes());
    let [a, b, c, d, ..] = hash[..] else { return false };
    u64::from(u32::from_le_bytes([a, b, c, d])) % n == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_exclude_each_other_and_a_tenth_is_held_out() {
        let words: Vec<String> = (0..2000).map(|i| format!("red thing{i}")).collect();
        let held = words.iter().filter(|w| is_held_out(w)).count();
        assert!((150..250).contains(&held), "{held}");
        for word in &words {
            let one = std::slice::from_ref(word);
            assert_ne!(Split::Train.admits(one), Split::Compositions.admits(one));
            assert_eq!(Split::Train.admits(one), Split::Objects.admits(one));
            assert_ne!(Split::Train.shows_model(word), Split::Objects.shows_model(word));
        }
        assert!(Split::Train.admits(&[]) && !Split::Compositions.admits(&[]));
        let out = words.iter().find(|w| is_held_out(w)).unwrap();
        assert!(!Split::Train.admits(&["on: a, b".into(), out.clone()]), "one is enough");
        assert!(Split::Train.looks().all(|l| !Split::Objects.looks().contains(&l)));
    }
}
