//! Control pictures of the training pictures.

use candle_core::{Device, Tensor};
use image::RgbImage;
use rayon::prelude::*;

use super::config::Kind;
use crate::error::Result;
use crate::paint::control::edges;
use crate::train::pictures::Pictures;

/// One byte a pixel of every picture.
pub(super) struct Hints {
    size: usize,
    bytes: Vec<u8>,
}

impl Hints {
    /// What steers towards each of `pictures`.
    pub(super) fn of(pictures: &Pictures, kind: Kind) -> Self {
        let (size, pixels) = (pictures.size, pictures.size * pictures.size);
        let bytes = match kind {
            Kind::Depth => pictures.depth.clone(),
            Kind::Edges => {
                let found = pictures.bytes.par_chunks_exact(3 * pixels).flat_map_iter(|planes| {
                    let at = |x: u32, y: u32, c: usize| planes[c * pixels + y as usize * size + x as usize];
                    let rgb = |x, y| image::Rgb([at(x, y, 0), at(x, y, 1), at(x, y, 2)]);
                    let picture = RgbImage::from_fn(size as u32, size as u32, rgb);
                    edges(&picture).pixels().map(|p| p.0[0]).collect::<Vec<_>>()
                });
                found.collect()
            }
        };
        Self { size, bytes }
    }

    /// Control pictures `[B, 3, size, size]` in 0..1.
    pub(super) fn batch(&self, indices: &[usize], device: &Device) -> Result<Tensor> {
        let pixels = self.size * self.size;
        let mut values = Vec::with_capacity(3 * indices.len() * pixels);
        for &i in indices {
            let plane = &self.bytes[i * pixels..(i + 1) * pixels];
            for _ in 0..3 {
                values.extend(plane.iter().map(|&b| f32::from(b) / 255.0));
            }
        }
        Ok(Tensor::from_vec(values, (indices.len(), 3, self.size, self.size), device)?)
    }
}
