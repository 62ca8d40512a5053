//! CLIP's byte-pair tokenizer (`tokenizer/vocab.json` and `merges.txt`), loaded or trained.

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer as Hub, Trainer};

use crate::error::{Error, Result};

const BOS: &str = "<|startoftext|>";
const EOS: &str = "<|endoftext|>";
const WORD_END: &str = "</w>";
/// CLIP's splitting: contractions, runs of letters, single digits, runs of anything else.
const PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Text to token ids.
pub struct Tokenizer {
    hub: Hub,
    bos: u32,
    eos: u32,
    pad: u32,
    /// Length that every sequence is padded or cut to, with start and end tokens.
    pub max_length: usize,
    vocab: String,
    merges: String,
}

impl Tokenizer {
    /// From the texts of `vocab.json`, `merges.txt` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`Error::File`] naming the file that does not parse.
    pub fn from_texts(vocab: &str, merges: &str, config: &str, dir: &Path) -> Result<Self> {
        let fault = |name: &str, e: &dyn std::fmt::Display| Error::file(dir.join(name), e.to_string());
        let ids: std::collections::HashMap<String, u32> =
            serde_json::from_str(vocab).map_err(|e| fault("vocab.json", &e))?;
        let config: Value = serde_json::from_str(config).map_err(|e| fault("tokenizer_config.json", &e))?;
        let pairs = merges
            .lines()
            .filter(|l| !l.starts_with("#version") && !l.trim().is_empty())
            .map(|l| l.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| fault("merges.txt", &"a line is not a pair"))?;
        let find = |t: &str| ids.get(t).copied().ok_or_else(|| fault("vocab.json", &format!("no token {t}")));
        let (bos, eos) = (find(BOS)?, find(EOS)?);
        let pad = match &config["pad_token"] {
            Value::String(t) => find(t)?,
            _ => eos,
        };
        let max_length = config["model_max_length"].as_u64().unwrap_or(77).clamp(2, 4096) as usize;
        let model = BPE::builder()
            .vocab_and_merges(ids.clone().into_iter().collect::<tokenizers::models::bpe::Vocab>(), pairs)
            .unk_token(EOS.into())
            .end_of_word_suffix(WORD_END.into())
            .build()
            .map_err(|e| fault("merges.txt", &e))?;
        let hub = pipeline(model)?;
        Ok(Self { hub, bos, eos, pad, max_length, vocab: vocab.into(), merges: merges.into() })
    }

    /// Learns a vocabulary of at most `size` tokens from captions; words seen often become one token.
    ///
    /// # Errors
    /// If the trainer fails.
    pub fn train(captions: &[String], size: usize, max_length: usize) -> Result<Self> {
        let mut counts: Vec<String> = captions.to_vec();
        counts.sort();
        let mut trainer = BpeTrainer::builder()
            .vocab_size(size)
            .min_frequency(1)
            .show_progress(false)
            .end_of_word_suffix(WORD_END.into())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let pre = pipeline(BPE::default())?;
        trainer
            .feed(counts.iter(), |text| {
                let mut s = tokenizers::NormalizedString::from(text);
                if let Some(n) = pre.get_normalizer() {
                    tokenizers::Normalizer::normalize(n, &mut s)?;
                }
                let mut p = tokenizers::PreTokenizedString::from(s);
                if let Some(t) = pre.get_pre_tokenizer() {
                    tokenizers::PreTokenizer::pre_tokenize(t, &mut p)?;
                }
                let splits =
                    p.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
                Ok(splits.into_iter().map(|(s, _, _)| s.to_owned()).collect())
            })
            .and_then(|()| {
                let mut model = BPE::default();
                trainer.train(&mut model)?;
                Ok(model)
            })
            .map_err(|e| Error::Failed(format!("tokenizer training: {e}")))
            .and_then(|model| Self::from_trained(&model, max_length))
    }

    /// Writes the model in CLIP's layout: bytes, bytes ending a word, merges, then the two specials.
    fn from_trained(model: &BPE, max_length: usize) -> Result<Self> {
        let text = serde_json::to_value(model).map_err(|e| Error::Failed(e.to_string()))?;
        let merges: Vec<(String, String)> = match &text["merges"] {
            Value::Array(list) => list.iter().filter_map(merge_pair).collect(),
            _ => Vec::new(),
        };
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let mut tokens: Vec<String> = alphabet.iter().map(char::to_string).collect();
        tokens.extend(alphabet.iter().map(|c| format!("{c}{WORD_END}")));
        for (a, b) in &merges {
            let joined = format!("{a}{b}");
            if !tokens.contains(&joined) {
                tokens.push(joined);
            }
        }
        tokens.extend([BOS.to_owned(), EOS.to_owned()]);
        let vocab: serde_json::Map<String, Value> =
            tokens.iter().enumerate().map(|(i, t)| (t.clone(), json!(i))).collect();
        let lines: String = merges.iter().map(|(a, b)| format!("{a} {b}\n")).collect();
        let config = json!({"model_max_length": max_length}).to_string();
        let vocab = serde_json::to_string(&vocab).map_err(|e| Error::Failed(e.to_string()))?;
        Self::from_texts(&vocab, &format!("#version: 0.2\n{lines}"), &config, Path::new("tokenizer"))
    }

    /// The three files of the `tokenizer` folder: name and text.
    pub fn files(&self) -> [(&'static str, String); 3] {
        let config = json!({
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": self.max_length,
            "bos_token": BOS,
            "eos_token": EOS,
            "unk_token": EOS,
            "pad_token": EOS,
            "do_lower_case": true,
        });
        [
            ("vocab.json", self.vocab.clone()),
            ("merges.txt", self.merges.clone()),
            ("tokenizer_config.json", format!("{config:#}\n")),
        ]
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.hub.get_vocab_size(false)
    }

    /// Start token, the text's tokens (cut if too long), end token, padding: `max_length` ids.
    ///
    /// # Errors
    /// If the text cannot be tokenized.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let tokens: Vec<u32> = self.words(text)?.concat();
        Ok(self.window(&tokens[..tokens.len().min(self.max_length - 2)]))
    }

    /// The text's tokens, word by word.
    ///
    /// # Errors
    /// If the text cannot be tokenized.
    pub fn words(&self, text: &str) -> Result<Vec<Vec<u32>>> {
        let encoding =
            self.hub.encode(text, false).map_err(|e| Error::invalid("prompt", format!("tokenizer: {e}")))?;
        let mut words: Vec<Vec<u32>> = Vec::new();
        let mut open = false;
        for (id, token) in encoding.get_ids().iter().zip(encoding.get_tokens()) {
            match words.last_mut().filter(|_| open) {
                Some(word) => word.push(*id),
                None => words.push(vec![*id]),
            }
            open = !token.ends_with(WORD_END);
        }
        Ok(words)
    }

    /// Start token, `tokens` (at most `max_length` − 2), end token, padding: `max_length` ids.
    pub fn window(&self, tokens: &[u32]) -> Vec<u32> {
        let mut ids = vec![self.bos];
        ids.extend(tokens.iter().take(self.max_length - 2));
        ids.push(self.eos);
        ids.resize(self.max_length, self.pad);
        ids
    }
}

fn merge_pair(value: &Value) -> Option<(String, String)> {
    match value {
        Value::String(s) => s.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
        Value::Array(a) => Some((a.first()?.as_str()?.to_owned(), a.get(1)?.as_str()?.to_owned())),
        _ => None,
    }
}

fn pipeline(model: BPE) -> Result<Hub> {
    let fault = |e: Box<dyn std::error::Error + Send + Sync>| Error::Failed(format!("tokenizer: {e}"));
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(fault)?;
    let split = Split::new(SplitPattern::Regex(PATTERN.into()), SplitDelimiterBehavior::Removed, true)
        .map_err(fault)?;
    let mut hub = Hub::new(model);
    hub.with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))
        .map_err(fault)?;
    hub.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        split.into(),
        ByteLevel::new(false, true, false).into(),
    ])));
    Ok(hub)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trained() -> Tokenizer {
        let captions: Vec<String> =
            ["a blue jay", "macarons", "a blue jay on macarons", "a red car"].map(String::from).into();
        Tokenizer::train(&captions, 2000, 16).unwrap()
    }

    #[test]
    fn known_words_are_single_tokens_and_files_round_trip() {
        let t = trained();
        let ids = t.encode("A  blue JAY on macarons").unwrap();
        assert_eq!(ids.len(), 16);
        assert_eq!(ids[0], t.bos);
        // start, five words, end
        assert_eq!(ids.iter().position(|&i| i == t.eos), Some(6), "{ids:?}");
        let [vocab, merges, config] = t.files();
        let again = Tokenizer::from_texts(&vocab.1, &merges.1, &config.1, Path::new("x")).unwrap();
        assert_eq!(again.encode("a blue jay on macarons").unwrap(), ids);
        assert_eq!(again.max_length, 16);
    }

    #[test]
    fn unseen_text_is_spelled_and_long_text_is_cut() {
        let t = trained();
        let ids = t.encode("zebra ☃").unwrap();
        assert!(!ids[1..].iter().take(4).any(|&i| i == t.eos));
        let long = t.encode(&"blue ".repeat(500)).unwrap();
        assert_eq!((long.len(), long[15]), (16, t.eos));
    }

    #[test]
    fn words_are_the_pieces_between_spaces() {
        let t = trained();
        let words = t.words("a zebra on macarons").unwrap();
        assert_eq!(words.len(), 4, "{words:?}");
        assert!(words[1].len() > 1 && words[0].len() == 1);
        assert_eq!(t.window(&words.concat()), t.encode("a zebra on macarons").unwrap());
    }

    #[test]
    fn broken_files_are_named() {
        let [vocab, merges, config] = trained().files();
        let dir = Path::new("tok");
        let name = |r: Result<Tokenizer>| r.err().unwrap().to_string();
        assert!(name(Tokenizer::from_texts("{", &merges.1, &config.1, dir)).contains("vocab.json"));
        assert!(name(Tokenizer::from_texts(&vocab.1, "nopair", &config.1, dir)).contains("merges.txt"));
        assert!(name(Tokenizer::from_texts(&vocab.1, &merges.1, "[", dir)).contains("tokenizer_config"));
    }
}
