//! What a U-Net is told about a text.

use candle_core::{Device, Tensor};

use super::prompt;
use super::text::TextEncoder;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// A text as the U-Net reads it.
#[derive(Debug, Clone)]
pub struct Conditioning {
    /// Hidden states `[B, L, cross_attention_dim]`.
    pub context: Tensor,
    /// The pooled text `[B, n]` (SDXL).
    pub pooled: Option<Tensor>,
}

impl Conditioning {
    /// The same for `batch` samples: one row repeated, or `batch` rows as they are.
    ///
    /// # Errors
    /// If there is neither one row nor `batch`.
    pub fn rows(&self, batch: usize) -> Result<Self> {
        let repeat = |t: &Tensor| {
            let mut shape = t.dims().to_vec();
            shape[0] = batch;
            t.expand(shape)
        };
        Ok(Self { context: repeat(&self.context)?, pooled: self.pooled.as_ref().map(repeat).transpose()? })
    }

    /// `a` times this and `b` times `other` (shaped as this).
    ///
    /// # Errors
    /// If their shapes differ.
    pub fn mixed(&self, other: &Self, a: f64, b: f64) -> Result<Self> {
        let mix = |x: &Tensor, y: &Tensor| -> Result<Tensor> { Ok(((x * a)? + (y * b)?)?) };
        let pooled = match (&self.pooled, &other.pooled) {
            (Some(x), Some(y)) => Some(mix(x, y)?),
            _ => None,
        };
        Ok(Self { context: mix(&self.context, &other.context)?, pooled })
    }

    /// The rows of all, one below the other.
    ///
    /// # Errors
    /// If their lengths differ (texts that were not encoded together), or there is none.
    pub fn stack(all: &[Self]) -> Result<Self> {
        let contexts: Vec<&Tensor> = all.iter().map(|c| &c.context).collect();
        let pooled: Vec<&Tensor> = all.iter().filter_map(|c| c.pooled.as_ref()).collect();
        Ok(Self {
            context: Tensor::cat(&contexts, 0)?.contiguous()?,
            pooled: (!pooled.is_empty()).then(|| Tensor::cat(&pooled, 0)).transpose()?,
        })
    }
}

/// One text encoder with its tokenizer, or SDXL's two.
pub struct TextEncoders {
    /// First to last; their hidden states are laid side by side, the last one pools.
    pub all: Vec<(Tokenizer, TextEncoder)>,
    /// An empty text is all zeros (SDXL's `force_zeros_for_empty_prompt`).
    pub zeros_if_empty: bool,
}

/// How a text's tokens go into the encoder: rows of `max_length` ids and the weight of each.
struct Windows {
    ids: Vec<Vec<u32>>,
    weights: Vec<Vec<f64>>,
}

impl TextEncoders {
    /// Texts encoded together, so that all have the same length. A text that does not fit the encoder
    /// is read in several windows, broken between words and laid end to end.
    ///
    /// Weights (`a (blue:1.3) jay`, [`prompt::parse`]) move hidden states away from or towards those of
    /// the empty text: e ← e_∅ + w(e − e_∅). The number beside each text is how many of the encoder's
    /// last blocks are left out for it (clip skip).
    ///
    /// # Errors
    /// A weight out of range, a text that cannot be tokenized, more skipped than there are blocks.
    pub fn encode(&self, texts: &[(&str, usize)], device: &Device) -> Result<Vec<Conditioning>> {
        let mut windows: Vec<Vec<Windows>> = Vec::new();
        for (tokenizer, _) in &self.all {
            windows.push(texts.iter().map(|(t, _)| self::windows(tokenizer, t)).collect::<Result<_>>()?);
        }
        let most = windows.iter().flatten().map(|w| w.ids.len()).max().unwrap_or(1);
        texts
            .iter()
            .enumerate()
            .map(|(i, &(text, clip_skip))| {
                let (mut side, mut pooled) = (Vec::new(), None);
                for ((tokenizer, encoder), windows) in self.all.iter().zip(&windows) {
                    let read = Reader { tokenizer, encoder, clip_skip, two: self.all.len() > 1, device };
                    let (context, pool) = read.text(&windows[i], most)?;
                    side.push(context);
                    pooled = (self.all.len() > 1).then_some(pool);
                }
                let context = Tensor::cat(&side, 2)?.contiguous()?;
                if self.zeros_if_empty && text.trim().is_empty() {
                    let pooled = pooled.map(|p| p.zeros_like()).transpose()?;
                    return Ok(Conditioning { context: context.zeros_like()?, pooled });
                }
                Ok(Conditioning { context, pooled })
            })
            .collect()
    }

    /// Width of the hidden states.
    pub fn width(&self) -> usize {
        self.all.iter().map(|(_, e)| e.config.hidden_size).sum()
    }
}

struct Reader<'a> {
    tokenizer: &'a Tokenizer,
    encoder: &'a TextEncoder,
    clip_skip: usize,
    /// SDXL's encoders give the last block but one, not normalised.
    two: bool,
    device: &'a Device,
}

impl Reader<'_> {
    /// Hidden states `[1, most·max_length, width]` and the pooled text `[1, n]` of the first window.
    fn text(&self, windows: &Windows, most: usize) -> Result<(Tensor, Tensor)> {
        let empty = self.tokenizer.window(&[]);
        let rows = windows.ids.iter().chain(std::iter::repeat(&empty)).take(most);
        let ids: Vec<u32> = rows.flatten().copied().collect();
        let length = self.tokenizer.max_length;
        let (mut hidden, pooled) = self.encode(&ids, most)?;
        let weights: Vec<f64> = windows.weights.iter().flatten().copied().collect();
        if weights.iter().any(|w| *w != 1.0) {
            let (nothing, _) = self.encode(&empty, 1)?;
            let mut all = vec![1.0f32; most * length];
            all.iter_mut().zip(&weights).for_each(|(to, w)| *to = *w as f32);
            let weights = Tensor::from_vec(all, (most, length, 1), self.device)?;
            let away = hidden.broadcast_sub(&nothing)?.broadcast_mul(&weights.to_dtype(hidden.dtype())?)?;
            hidden = away.broadcast_add(&nothing)?;
        }
        let width = hidden.dim(2)?;
        Ok((hidden.reshape((1, most * length, width))?, pooled.narrow(0, 0, 1)?))
    }

    fn encode(&self, ids: &[u32], rows: usize) -> Result<(Tensor, Tensor)> {
        let ids = Tensor::from_vec(ids.to_vec(), (rows, self.tokenizer.max_length), self.device)?;
        let encoded = self.encoder.encode(&ids)?;
        if !self.two {
            let hidden = match self.clip_skip {
                0 => encoded.last,
                skip => self.encoder.skipping(&ids, skip)?,
            };
            return Ok((hidden, encoded.pooled));
        }
        let at = encoded.hidden.len().checked_sub(2 + self.clip_skip).ok_or_else(|| {
            Error::invalid("clip skip", format!("{} of {} blocks", self.clip_skip, encoded.hidden.len() - 1))
        })?;
        Ok((encoded.hidden[at].clone(), encoded.pooled))
    }
}

/// The windows of a text, at least one. Words stay whole where they fit into one.
fn windows(tokenizer: &Tokenizer, text: &str) -> Result<Windows> {
    let room = tokenizer.max_length - 2;
    let mut chunks: Vec<Vec<(u32, f64)>> = vec![Vec::new()];
    for piece in prompt::parse(text)? {
        for word in tokenizer.words(&piece.text)? {
            for part in word.chunks(room.max(1)) {
                if chunks[chunks.len() - 1].len() + part.len() > room {
                    chunks.push(Vec::new());
                }
                let last = chunks.len() - 1;
                chunks[last].extend(part.iter().map(|id| (*id, piece.weight)));
            }
        }
    }
    let weights = |chunk: &Vec<(u32, f64)>| {
        let mut row = vec![1.0];
        row.extend(chunk.iter().map(|(_, w)| *w));
        row.resize(tokenizer.max_length, 1.0);
        row
    };
    let ids =
        |chunk: &Vec<(u32, f64)>| tokenizer.window(&chunk.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    Ok(Windows { ids: chunks.iter().map(ids).collect(), weights: chunks.iter().map(weights).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prior::Prior;

    fn texts(prior: &Prior, texts: &[&str]) -> Vec<Tensor> {
        prior.encode_texts(texts).unwrap().into_iter().map(|c| c.context).collect()
    }

    fn off(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn weights_move_their_own_tokens_along_the_line_from_the_empty_text() {
        let prior = Prior::load("mini", &Device::Cpu).unwrap();
        let [nothing, plain, one, half, twice] =
            ["", "a blue jay", "a (blue:1) jay", "a (blue:0.5) jay", "a (blue:2) jay"]
                .map(|t| texts(&prior, &[t]).remove(0));
        assert_eq!(off(&one, &plain), 0.0);
        for (weight, got) in [(0.5, half), (2.0, twice)] {
            let want = (&nothing + ((&plain - &nothing).unwrap() * weight).unwrap()).unwrap();
            // Start, "a", "blue", "jay", end: only the third row is weighted.
            for row in 0..5 {
                let cut = |t: &Tensor| t.narrow(1, row, 1).unwrap();
                let from = if row == 2 { &want } else { &plain };
                // Rounding of f32 values of size 1.
                assert!(off(&cut(&got), &cut(from)) < 1e-5, "{weight} {row}");
            }
            assert!(off(&got, &plain) > 0.01);
        }
    }

    #[test]
    fn long_texts_are_windows_end_to_end_and_all_texts_get_as_many() {
        let prior = Prior::load("mini", &Device::Cpu).unwrap();
        let length = prior.text.all[0].0.max_length;
        let first = vec!["jay"; length - 2].join(" ");
        let all = texts(&prior, &["", &format!("{first} a pumpkin")]);
        let [nothing, start, rest] = ["", &first, "a pumpkin"].map(|t| texts(&prior, &[t]).remove(0));
        for (got, parts) in all.iter().zip([[&nothing, &nothing], [&start, &rest]]) {
            assert_eq!(got.dim(1).unwrap(), 2 * length);
            for (i, want) in parts.into_iter().enumerate() {
                // A batch of two windows may be summed in another order than one.
                assert!(off(&got.narrow(1, i * length, length).unwrap(), want) < 1e-5, "{i}");
            }
        }
    }
}
