//! Prompt debiasing: for each view, the prompt without the words that contradict it (Hong et al. 2023, "Debiasing
//! Scores and Prompts of 2D Diffusion for View-consistent Text-to-3D Generation").
//!
//! "A smiling dog" asks for a smile from behind as well, and gets one: a second face. The authors ask a masked
//! language model (BERT) which words go with which view. There is none here, so a vocabulary stands in for it:
//! words for what only some sides of a thing show, and whoever knows better adds their own.

use super::view::View;
use crate::{Error, Result};

/// What only the front shows, or front and sides: a word that is left out alone.
const QUALITIES: &str = "smiling grinning laughing crying frowning winking blinking staring gazing scowling \
    snarling yawning singing talking screaming shouting sneering bearded freckled frontal";
/// The same as things: left out with what introduces and describes them.
const PARTS: &str = "face faces smile grin frown eye eyes eyebrow eyebrows eyelashes eyelids nose snout muzzle \
    mouth lips teeth fangs tongue beard moustache mustache cheeks forehead chin jaw visage expression portrait \
    selfie chest belly navel breastplate tie necktie bowtie bib monocle dimples freckles whiskers beak bill";
/// What is not seen from the front.
const BEHIND: &str = "backpack tail rear bottom butt backside spine";
/// What introduces a thing that can be left out.
const JOINERS: [&str; 8] = ["with", "and", "having", "showing", "wearing", "its", "a", "an"];

/// A word and the views that may show it.
#[derive(Debug, Clone, PartialEq)]
struct Word {
    text: String,
    views: Vec<View>,
    /// A thing, and not only a quality of one.
    part: bool,
}

/// Words that belong to some views.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary(Vec<Word>);

impl Vocabulary {
    /// The words known here, and `more`: `"word: view …"` with the views front, side, back and overhead that
    /// may show a thing of that name, or `"word! view …"` for a quality. A word given again replaces the known.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a line that is neither.
    pub fn with(more: &[String]) -> Result<Self> {
        let known = |list: &str, views: &[View], part| -> Vec<Word> {
            let word = |text: &str| Word { text: text.into(), views: views.to_vec(), part };
            list.split_whitespace().map(word).collect()
        };
        let front = [View::Front, View::Side];
        let mut words = known(QUALITIES, &front, false);
        words.extend(known(PARTS, &front, true));
        words.extend(known(BEHIND, &[View::Back, View::Side, View::Overhead], true));
        for line in more {
            let word = parse(line)?;
            words.retain(|w| w.text != word.text);
            words.push(word);
        }
        Ok(Self(words))
    }

    /// `prompt` for `view`. Of a prompt in which nothing else would be left, all is kept.
    pub fn without_contradictions(&self, prompt: &str, view: View) -> String {
        let tokens: Vec<&str> = prompt.split_whitespace().collect();
        let mut kept = vec![true; tokens.len()];
        for (i, token) in tokens.iter().enumerate() {
            let Some(word) = self.0.iter().find(|w| w.text == bare(token)) else { continue };
            if word.views.contains(&view) {
                continue;
            }
            kept[i] = false;
            if word.part
                && let Some(start) = group(&tokens, i)
            {
                kept[start..i].fill(false);
            }
        }
        // At least one word beside articles and the like has to remain.
        let content = |(token, kept): (&&str, &bool)| *kept && !JOINERS.contains(&bare(token).as_str());
        if !tokens.iter().zip(&kept).any(content) {
            return prompt.to_owned();
        }
        let text: Vec<&str> = tokens.iter().zip(&kept).filter(|(_, k)| **k).map(|(t, _)| *t).collect();
        text.join(" ").trim_end_matches([',', ' ']).to_owned()
    }
}

/// Where the group begins that the part at `i` ends: at the joiner before it, if no other group begins between
/// (`with a big red smile`). Nothing if the part stands for itself (`a dog face`).
fn group(tokens: &[&str], i: usize) -> Option<usize> {
    let mut start = None;
    for at in (0..i).rev() {
        let token = bare(tokens[at]);
        let ends = tokens[at].ends_with([',', ';']);
        match token.as_str() {
            "with" | "having" | "showing" | "wearing" if !ends => return Some(at),
            "and" if !ends => {
                start = Some(at);
                break;
            }
            _ if ends => {
                start = Some(at + 1);
                break;
            }
            _ => {}
        }
    }
    start
}

/// A word without its punctuation, in lower case.
fn bare(token: &str) -> String {
    token.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

fn parse(line: &str) -> Result<Word> {
    let bad = |why: &str| {
        Err(Error::invalid("sds.view_words", format!("{line:?}: {why}"))
            .hint("write \"antlers: front side overhead\", or \"antlered! front side\" for a quality"))
    };
    let Some((text, views)) = line.split_once([':', '!']) else { return bad("has neither `:` nor `!`") };
    let text = bare(text);
    if text.is_empty() || text.contains(char::is_whitespace) {
        return bad("is not about one word");
    }
    let mut seen = Vec::new();
    for name in views.split_whitespace() {
        match name {
            "front" => seen.push(View::Front),
            "side" => seen.push(View::Side),
            "back" => seen.push(View::Back),
            "overhead" => seen.push(View::Overhead),
            _ => return bad("the views are front, side, back and overhead"),
        }
    }
    Ok(Word { text, views: seen, part: line.contains(':') })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_view_cannot_show_is_left_out() {
        let words = Vocabulary::with(&[]).unwrap();
        let of = |prompt: &str, view| words.without_contradictions(prompt, view);
        for (prompt, front, back) in [
            ("a smiling dog", "a smiling dog", "a dog"),
            ("a dog with a big red smile", "a dog with a big red smile", "a dog"),
            ("a dog with a hat and blue eyes", "a dog with a hat and blue eyes", "a dog with a hat"),
            ("a cat, green eyes, on a box", "a cat, green eyes, on a box", "a cat, on a box"),
            ("an astronaut with a backpack", "an astronaut", "an astronaut with a backpack"),
            ("A Grinning knight, grinning.", "A Grinning knight, grinning.", "A knight"),
            ("a blue jay on macarons", "a blue jay on macarons", "a blue jay on macarons"),
            ("a facade", "a facade", "a facade"),
            ("a smile", "a smile", "a smile"),
            ("", "", ""),
        ] {
            assert_eq!(of(prompt, View::Front), front);
            assert_eq!(of(prompt, View::Back), back);
            assert_eq!(of(prompt, View::Side).is_empty(), prompt.is_empty());
        }
        assert_eq!(of("a bird with a yellow beak", View::Side), "a bird with a yellow beak");
        assert_eq!(of("a bird with a yellow beak", View::Overhead), "a bird");
    }

    #[test]
    fn further_words_add_and_replace() {
        let more = ["antlers: front side".into(), "Happy! front".into(), "tail: front side back".to_owned()];
        let words = Vocabulary::with(&more).unwrap();
        let of = |prompt: &str, view| words.without_contradictions(prompt, view);
        assert_eq!(of("a happy deer with antlers", View::Back), "a deer");
        assert_eq!(of("a happy deer with antlers", View::Side), "a deer with antlers");
        assert_eq!(of("a fox with a tail", View::Front), "a fox with a tail");
        assert_eq!(of("a fox with a tail", View::Overhead), "a fox");
        for bad in ["antlers", "two words: front", ": front", "antlers: behind"] {
            let e = Vocabulary::with(&[bad.to_owned()]).unwrap_err();
            assert!(e.is_usage() || e.hint_text().is_some(), "{bad}");
        }
    }
}
