//! The training set in memory: pictures drawn once, in parallel, walked over many times.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::data::Dataset;
use crate::error::Result;
use crate::rng::{Rng, Stream};

/// Pictures as bytes with their captions and cameras.
pub struct Pictures {
    /// Side in pixels.
    pub size: usize,
    pub(super) bytes: Vec<u8>,
    /// Of all pixels, by [`nearness`]; empty if not asked for.
    pub(super) depth: Vec<u8>,
    pub(super) cameras: Vec<[f32; 16]>,
    pub(super) caption_of: Vec<u32>,
    pub(super) fronted: Vec<bool>,
    /// Distinct captions.
    pub captions: Vec<String>,
}

/// How many pictures to draw, and what to keep of them.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Index of the first.
    pub first: usize,
    /// Number of pictures.
    pub count: usize,
    /// Side in pixels.
    pub size: usize,
    /// Whether depth is kept, too.
    pub depth: bool,
}

/// Pictures drawn between two progress reports.
const CHUNK: usize = 512;

impl Pictures {
    /// Draws samples of `data`; `progress` is told how many are done.
    ///
    /// # Errors
    /// If an object cannot be drawn, or `progress` asks to stop.
    pub fn draw(
        data: &Dataset,
        wanted: Wanted,
        mut progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let Wanted { first, count, size, .. } = wanted;
        let pixels = size * size;
        let mut out = Self {
            size,
            bytes: Vec::with_capacity(count * 3 * pixels),
            depth: Vec::with_capacity(if wanted.depth { count * pixels } else { 0 }),
            cameras: Vec::with_capacity(count),
            caption_of: Vec::with_capacity(count),
            fronted: Vec::with_capacity(count),
            captions: Vec::new(),
        };
        let mut known = HashMap::new();
        for start in (first..first + count).step_by(CHUNK) {
            let range = start..(start + CHUNK).min(first + count);
            let drawn: Vec<_> = range
                .into_par_iter()
                .map(|i| {
                    let s = data.sample(i as u64)?;
                    let bytes: Vec<u8> =
                        s.rgb.iter().map(|v| ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8).collect();
                    let depth = if wanted.depth { nearness(&s.depth) } else { Vec::new() };
                    Ok((bytes, depth, s.camera, s.caption, s.fronted))
                })
                .collect::<Result<_>>()?;
            for (bytes, depth, camera, caption, fronted) in drawn {
                out.bytes.extend(bytes);
                out.depth.extend(depth);
                out.cameras.push(camera);
                out.fronted.push(fronted);
                let next = out.captions.len() as u32;
                let id = *known.entry(caption.clone()).or_insert(next);
                if id == next {
                    out.captions.push(caption);
                }
                out.caption_of.push(id);
            }
            progress(out.cameras.len())?;
        }
        Ok(out)
    }

    /// Adds further pictures of the same size.
    pub(super) fn append(&mut self, more: Self) {
        let mut known: HashMap<&str, u32> = HashMap::new();
        known.extend(self.captions.iter().map(String::as_str).zip(0..));
        let mut next = self.captions.len() as u32;
        let id = |caption: &String| -> (u32, bool) {
            match known.get(caption.as_str()) {
                Some(&id) => (id, false),
                None => {
                    next += 1;
                    (next - 1, true)
                }
            }
        };
        // A part has each of its captions once.
        let ids: Vec<(u32, bool)> = more.captions.iter().map(id).collect();
        self.caption_of.extend(more.caption_of.iter().map(|&c| ids[c as usize].0));
        let new = more.captions.into_iter().zip(&ids).filter(|(_, id)| id.1);
        self.captions.extend(new.map(|(caption, _)| caption));
        self.bytes.extend(more.bytes);
        self.depth.extend(more.depth);
        self.cameras.extend(more.cameras);
        self.fronted.extend(more.fronted);
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.cameras.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.cameras.is_empty()
    }

    /// Pictures `[B, 3, size, size]` in −1..1.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn batch(&self, indices: &[usize], device: &Device) -> Result<Tensor> {
        let pixels = 3 * self.size * self.size;
        let shape = (indices.len(), 3, self.size, self.size);
        if !device.is_cpu() {
            let picture = |&i: &usize| &self.bytes[i * pixels..(i + 1) * pixels];
            let bytes =
                Tensor::from_vec(indices.iter().map(picture).collect::<Vec<_>>().concat(), shape, device)?;
            return Ok(bytes.to_dtype(candle_core::DType::F32)?.affine(1.0 / 127.5, -1.0)?);
        }
        let mut values = Vec::with_capacity(indices.len() * pixels);
        for &i in indices {
            let bytes = &self.bytes[i * pixels..(i + 1) * pixels];
            values.extend(bytes.iter().map(|&b| f32::from(b) / 127.5 - 1.0));
        }
        Ok(Tensor::from_vec(values, shape, device)?)
    }

    /// Cameras `[B, 16]`.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn cameras(&self, indices: &[usize], device: &Device) -> Result<Tensor> {
        let values: Vec<f32> = indices.iter().flat_map(|&i| self.cameras[i]).collect();
        Ok(Tensor::from_vec(values, (indices.len(), 16), device)?)
    }

    /// The index of picture `i`'s caption in [`Pictures::captions`].
    pub fn caption_index(&self, i: usize) -> usize {
        self.caption_of[i] as usize
    }

    /// The azimuth in radians (0 in front, a quarter turn on the +X side) from which picture `i` is seen;
    /// `None` if what it shows has no front.
    pub fn azimuth(&self, i: usize) -> Option<f32> {
        // The third column of the camera's matrix points from the scene to the camera.
        let camera = &self.cameras[i];
        self.fronted[i].then(|| camera[2].atan2(camera[10]))
    }

    /// The caption of picture `i`.
    pub fn caption(&self, i: usize) -> &str {
        &self.captions[self.caption_of[i] as usize]
    }
}

/// Depth as a control picture shows it: 255 at the nearest point, 64 at the farthest, linear in between, and 0
/// where nothing is seen.
fn nearness(depth: &[f32]) -> Vec<u8> {
    let seen = depth.iter().copied().filter(|d| *d > 0.0);
    let (near, far) = seen.fold((f32::INFINITY, 0.0f32), |(near, far), d| (near.min(d), far.max(d)));
    let span = (far - near).max(1e-6);
    let byte = |d: &f32| if *d > 0.0 { (255.0 - 191.0 * (d - near) / span).round() as u8 } else { 0 };
    depth.iter().map(byte).collect()
}

/// The indices of step `step`: each walk over the set is a fresh permutation, so that every picture
/// is seen equally often. A pure function of its arguments, so a resumed run goes on exactly.
pub fn batch_indices(seed: u64, step: u32, batch: usize, count: usize) -> Vec<usize> {
    let start = u64::from(step) * batch as u64;
    (start..start + batch as u64)
        .map(|i| shuffled(seed, (i / count as u64) as u32, (i % count as u64) as usize, count))
        .collect()
}

/// Position `i` of a pseudo-random permutation of `0..count`: a four-round Feistel network on the
/// next square of a power of two, walked along its cycle until it falls below `count`.
fn shuffled(seed: u64, epoch: u32, i: usize, count: usize) -> usize {
    let bits = (usize::BITS - (count.max(2) - 1).leading_zeros()).div_ceil(2);
    let mask = (1usize << bits) - 1;
    let rng = Rng::new(seed, Stream::Data, epoch);
    let mut x = i;
    loop {
        let (mut left, mut right) = (x >> bits, x & mask);
        for round in 0..4u64 {
            let f = rng.words(round << 32 | right as u64)[0] as usize & mask;
            (left, right) = (right, left ^ f);
        }
        x = left << bits | right;
        if x < count {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_white_and_nothing_black() {
        assert_eq!(nearness(&[0.0, 2.0, 3.0, 2.5]), [0, 255, 64, 160]);
        assert_eq!(nearness(&[0.0, 0.0]), [0, 0]);
        assert_eq!(nearness(&[1.5]), [255]);
    }

    #[test]
    fn every_walk_visits_every_picture_once() {
        for count in [1, 2, 7, 64, 1000] {
            let mut seen: Vec<usize> = (0..count).map(|i| shuffled(3, 5, i, count)).collect();
            let order = seen.clone();
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
            if count == 1000 {
                let other: Vec<usize> = (0..count).map(|i| shuffled(3, 6, i, count)).collect();
                assert_ne!(order, other, "walks must differ");
            }
        }
    }
}
