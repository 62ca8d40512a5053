//! Where words of a prompt are in the picture: cross-attention maps, summed up.

use candle_core::Tensor;

use super::grid;
use crate::prior::Prior;
use crate::prior::prompt;
use crate::prior::tokenizer::Tokenizer;
use crate::prior::unet::attention::Call;
use crate::{Error, Result};

/// Attention levels coarser than the latents by at least this factor in area are heard.
const COARSER: usize = 4;

/// Sums of the maps of some tokens.
pub(super) struct WordMaps {
    /// Positions in the text.
    tokens: Vec<usize>,
    /// Height and width of the latents.
    size: (usize, usize),
    /// `[W, tokens, h, w]`, and how many maps were added.
    pub(super) sum: Option<Tensor>,
}

impl WordMaps {
    pub(super) fn new(tokens: &[usize], size: (usize, usize)) -> Self {
        Self { tokens: tokens.to_vec(), size, sum: None }
    }

    /// Adds the maps of a cross-attention, averaged over the heads.
    pub(super) fn add(&mut self, call: &Call<'_>) -> Result<()> {
        let (b, n, _) = call.q.dims3()?;
        if n * COARSER > self.size.0 * self.size.1 {
            return Ok(());
        }
        let index: Vec<u32> = self.tokens.iter().map(|t| *t as u32).collect();
        let count = index.len();
        let index = Tensor::from_vec(index, count, call.q.device())?;
        let maps = call.maps()?.mean(1)?.contiguous()?.index_select(&index, 2)?;
        let (h, w) = grid::level(n, self.size)?;
        let maps = maps.transpose(1, 2)?.contiguous()?.reshape((b, count, h, w))?;
        let maps = grid::resize(&maps, self.size)?;
        self.sum = Some(match self.sum.take() {
            Some(sum) => (sum + maps)?,
            None => maps,
        });
        Ok(())
    }
}

/// Tokens of each word of `text`, by their positions after the start token.
fn words(tokenizer: &Tokenizer, text: &str) -> Result<Vec<(Vec<u32>, Vec<usize>)>> {
    let mut next = 1;
    let words = tokenizer.words(&prompt::plain(text)?)?;
    Ok(words
        .into_iter()
        .map(|ids| {
            let at = (next..next + ids.len()).collect();
            next += ids.len();
            (ids, at)
        })
        .collect())
}

/// Positions of the tokens of `phrase` wherever its words follow each other in `text`.
///
/// # Errors
/// [`Error::Invalid`] if they do not occur within what the text encoder reads at once.
pub(super) fn positions(prior: &Prior, text: &str, phrase: &str) -> Result<Vec<usize>> {
    let Some((tokenizer, _)) = prior.text.all.first() else { return Ok(Vec::new()) };
    let (text_words, wanted) = (words(tokenizer, text)?, words(tokenizer, phrase)?);
    let mut found = Vec::new();
    for run in text_words.windows(wanted.len().max(1)) {
        if !wanted.is_empty() && run.iter().zip(&wanted).all(|(a, b)| a.0 == b.0) {
            found.extend(run.iter().flat_map(|(_, at)| at.iter().copied()));
        }
    }
    found.sort_unstable();
    found.dedup();
    found.retain(|at| *at + 1 < tokenizer.max_length);
    if found.is_empty() {
        return Err(Error::invalid("phrase", format!("`{phrase}` is not in `{text}`"))
            .hint("name words of the source prompt that tell what is edited, as they stand there"));
    }
    Ok(found)
}

/// For each token position of `target`, the position of the same word in `source`, if the two prompts
/// have it in common (longest common subsequence of words); start token and end included.
pub(super) fn alignment(prior: &Prior, source: &str, target: &str) -> Result<Vec<Option<usize>>> {
    let Some((tokenizer, _)) = prior.text.all.first() else { return Ok(Vec::new()) };
    let (from, to) = (words(tokenizer, source)?, words(tokenizer, target)?);
    let mut longest = vec![vec![0usize; to.len() + 1]; from.len() + 1];
    for i in (0..from.len()).rev() {
        for j in (0..to.len()).rev() {
            longest[i][j] = if from[i].0 == to[j].0 {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let length = tokenizer.max_length;
    let mut map = vec![None; length];
    map[0] = Some(0);
    let (mut i, mut j) = (0, 0);
    while i < from.len() && j < to.len() {
        if from[i].0 == to[j].0 {
            for (a, b) in from[i].1.iter().zip(&to[j].1) {
                if *b < length && *a < length {
                    map[*b] = Some(*a);
                }
            }
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    // What follows the words (end token, padding) corresponds from the end on.
    let count = |w: &[(Vec<u32>, Vec<usize>)]| 1 + w.iter().map(|w| w.0.len()).sum::<usize>();
    let (a, b) = (count(&from), count(&to));
    for (offset, slot) in map.iter_mut().skip(b).enumerate() {
        *slot = Some((a + offset).min(length - 1));
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn phrases_are_found_and_prompts_aligned() {
        let prior = Prior::load("mini", &Device::Cpu).unwrap();
        assert_eq!(positions(&prior, "a red car on a red Car", "red car").unwrap(), [2, 3, 6, 7]);
        assert_eq!(positions(&prior, "a (red:1.5) car", "red").unwrap(), [2]);
        for wrong in ["blue", "", "car red"] {
            assert!(positions(&prior, "a red car", wrong).unwrap_err().is_usage(), "{wrong}");
        }
        let map = alignment(&prior, "a red car", "a big blue car").unwrap();
        assert_eq!(&map[..7], [Some(0), Some(1), None, None, Some(3), Some(4), Some(5)]);
        let same = alignment(&prior, "a red car", "a red car").unwrap();
        assert!(same.iter().enumerate().all(|(i, s)| *s == Some(i)));
    }
}
