//! An independent judge of pictures and assets: a contrastive encoder of pictures and captions.
//!
//! It is trained on other renders than the prior (another seed, other changes of colour, place and
//! sharpness) and never used in optimisation. [`r_precision`] asks which caption of a list a thing shows,
//! [`consistency`] whether the side it shows advances as the camera does.

pub mod augment;
pub mod captions;
pub mod config;
pub mod consistency;
pub mod contrast;
pub mod encoder;
pub mod files;
pub mod methods;
pub mod pictures;
pub mod r_precision;
#[cfg(test)]
mod tests;
pub mod train;

use candle_core::{Device, Tensor};
use image::{RgbImage, imageops};

use crate::error::Result;
use crate::prior::tokenizer::Tokenizer;
use encoder::Encoder;

/// A trained evaluator, frozen. See [`files::load`].
pub struct Evaluator {
    encoder: Encoder,
    tokenizer: Tokenizer,
}

/// What the evaluator sees in one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Unit vector.
    pub embedding: Vec<f32>,
    /// Cosine and sine of the azimuth from the front, times how sure that is (about 0 … 1).
    pub azimuth: [f32; 2],
}

/// Pictures that go through the network at once.
const BATCH: usize = 64;

impl Evaluator {
    /// What each picture shows; pictures of another size are scaled to the evaluator's.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn pictures(&self, pictures: &[RgbImage]) -> Result<Vec<View>> {
        let size = self.encoder.config.image_size;
        let mut out = Vec::with_capacity(pictures.len());
        for batch in pictures.chunks(BATCH) {
            let values: Vec<f32> = batch.iter().flat_map(|p| planes(p, size as u32)).collect();
            let x = Tensor::from_vec(values, (batch.len(), 3, size, size), &Device::Cpu)?;
            let seen = self.encoder.pictures(&x)?;
            let azimuths = seen.azimuth.to_vec2::<f32>()?;
            let embeddings = seen.embedding.to_vec2::<f32>()?;
            out.extend(
                embeddings
                    .into_iter()
                    .zip(azimuths)
                    .map(|(embedding, a)| View { embedding, azimuth: [a[0], a[1]] }),
            );
        }
        Ok(out)
    }

    /// Unit vectors of captions.
    ///
    /// # Errors
    /// If a caption cannot be tokenized.
    pub fn texts(&self, captions: &[String]) -> Result<Vec<Vec<f32>>> {
        let mut out = Vec::with_capacity(captions.len());
        for batch in captions.chunks(BATCH) {
            let mut ids = Vec::new();
            for caption in batch {
                ids.extend(self.tokenizer.encode(caption)?);
            }
            let ids = Tensor::from_vec(ids, (batch.len(), self.tokenizer.max_length), &Device::Cpu)?;
            out.extend(self.encoder.texts(&ids)?.to_vec2::<f32>()?);
        }
        Ok(out)
    }

    /// Side of the pictures it was trained on, pixels.
    pub fn image_size(&self) -> u32 {
        self.encoder.config.image_size as u32
    }
}

/// `[3, size, size]` in −1 … 1.
fn planes(picture: &RgbImage, size: u32) -> Vec<f32> {
    let scaled = (picture.dimensions() != (size, size))
        .then(|| imageops::resize(picture, size, size, imageops::FilterType::CatmullRom));
    let picture = scaled.as_ref().unwrap_or(picture);
    let channel = |c: usize| picture.pixels().map(move |p| f32::from(p.0[c]) / 127.5 - 1.0);
    (0..3).flat_map(channel).collect()
}
