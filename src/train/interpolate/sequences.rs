//! Short sequences of small frames, and the triples that a step sees of them.

use std::path::Path;

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::rng::{Rng, Stream};
use crate::video::batch::clips;
use crate::video::fit::resize;
use crate::video::io::{Picture, ReadOptions, Reader};

/// Frames of a sequence, at equal times.
pub(super) const FRAMES: usize = 5;
/// Random numbers of a triple.
const DRAWS: u64 = 16;
/// Frames of a clip that are looked at.
const LOOKED_AT: usize = 3000;

/// `[N, FRAMES, 3, size, size]`, sRGB.
pub(super) struct Sequences {
    pub(super) size: usize,
    data: Vec<u8>,
}

/// Two frames and one between them, `[B, 3, c, c]` in 0 … 1, and its time.
pub(super) struct Triples {
    pub(super) ends: [Tensor; 2],
    pub(super) middle: Tensor,
    pub(super) times: Vec<f64>,
}

impl Sequences {
    pub(super) fn new(size: usize) -> Self {
        Self { size, data: Vec::new() }
    }

    fn frame_len(&self) -> usize {
        3 * self.size * self.size
    }

    pub(super) fn len(&self) -> usize {
        self.data.len() / (FRAMES * self.frame_len())
    }

    /// Adds one.
    pub(super) fn push(&mut self, sequence: &[u8]) {
        debug_assert_eq!(sequence.len(), FRAMES * self.frame_len());
        self.data.extend_from_slice(sequence);
    }

    /// Bytes of frame `frame` of sequence `i`.
    fn frame(&self, i: usize, frame: usize) -> &[u8] {
        let n = self.frame_len();
        &self.data[(i * FRAMES + frame) * n..][..n]
    }

    /// Adds up to `most` squares of each clip in `folder` (of those files that are clips), spread over its
    /// length, at random places.
    ///
    /// # Errors
    /// A folder without clips, a clip that cannot be read.
    pub(super) fn add_clips(&mut self, folder: &Path, most: usize, seed: u64) -> Result<()> {
        for (number, clip) in clips(&[folder.to_owned()])?.iter().enumerate() {
            let rng = Rng::new(seed, Stream::Camera, u32::MAX - number as u32);
            let mut reader = Reader::open(clip, ReadOptions::default())?;
            let frames = reader.info().frames.map_or(LOOKED_AT, |n| (n as usize).min(LOOKED_AT));
            let each = most.div_ceil((frames / FRAMES).max(1));
            let (mut run, mut taken): (Vec<Picture>, usize) = (Vec::new(), 0);
            for _ in 0..LOOKED_AT {
                let Some(frame) = reader.next_frame()? else { break };
                run.push(fitted(frame.picture, self.size));
                if run.len() < FRAMES {
                    continue;
                }
                for _ in 0..each.min(most - taken) {
                    let sequence = self.square(&run, &rng, 2 * taken as u64);
                    self.push(&sequence);
                    taken += 1;
                }
                run.clear();
            }
        }
        Ok(())
    }

    /// A square of each frame of `run` at one random place.
    fn square(&self, run: &[Picture], rng: &Rng, k: u64) -> Vec<u8> {
        let (w, h, s) = (run[0].width, run[0].height, self.size);
        let x = rng.below(k, (w - s + 1) as u32) as usize;
        let y = rng.below(k + 1, (h - s + 1) as u32) as usize;
        let mut out = Vec::with_capacity(FRAMES * self.frame_len());
        for picture in run {
            for channel in 0..3 {
                let plane = picture.plane(channel);
                for row in y..y + s {
                    let codes = plane[row * w + x..][..s].iter();
                    out.extend(codes.map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8));
                }
            }
        }
        out
    }

    /// What `step` sees: random sequences, spans and places, mirrored, turned, in either direction and
    /// with channels exchanged; a pure function of the arguments.
    pub(super) fn batch(&self, seed: u64, step: u32, size: usize, crop: usize) -> Result<Triples> {
        let rng = Rng::new(seed, Stream::Data, step);
        let cuts: Vec<Cut> = (0..size as u64).map(|j| Cut::draw(&rng, DRAWS * j, self, crop)).collect();
        self.triples(&cuts, crop)
    }

    /// Whole frames, the middle of first and last, of sequences `from..to`.
    pub(super) fn whole(&self, from: usize, to: usize) -> Result<Triples> {
        let cut = |sequence| Cut { sequence, ..Cut::default() };
        self.triples(&(from..to).map(cut).collect::<Vec<_>>(), self.size)
    }

    fn triples(&self, cuts: &[Cut], crop: usize) -> Result<Triples> {
        let stack = |which: usize| -> Result<Tensor> {
            let values: Vec<f32> = cuts.iter().flat_map(|c| c.values(self, c.frames[which], crop)).collect();
            Ok(Tensor::from_vec(values, (cuts.len(), 3, crop, crop), &Device::Cpu)?)
        };
        let time = |c: &Cut| {
            let [a, m, b] = c.frames.map(|f| f as f64);
            (m - a) / (b - a)
        };
        Ok(Triples {
            ends: [stack(0)?, stack(2)?],
            middle: stack(1)?,
            times: cuts.iter().map(time).collect(),
        })
    }
}

/// A clip's frame, made large enough for a square of `size` if it is not.
fn fitted(picture: Picture, size: usize) -> Picture {
    let (w, h) = (picture.width, picture.height);
    let scale = size as f64 / w.min(h).max(1) as f64;
    if scale <= 1.0 {
        return picture;
    }
    let side = |s: usize| ((s as f64 * scale).round() as usize).max(size);
    picture.map_planes((side(w), side(h)), |plane| resize(plane, (w, h), (side(w), side(h))))
}

/// Which pixels of which frames, and how they are turned.
struct Cut {
    sequence: usize,
    /// First, between, last.
    frames: [usize; 3],
    corner: (usize, usize),
    mirror: [bool; 2],
    transpose: bool,
    channels: [usize; 3],
}

impl Default for Cut {
    fn default() -> Self {
        Self {
            sequence: 0,
            frames: [0, FRAMES / 2, FRAMES - 1],
            corner: (0, 0),
            mirror: [false; 2],
            transpose: false,
            channels: [0, 1, 2],
        }
    }
}

impl Cut {
    fn draw(rng: &Rng, base: u64, of: &Sequences, crop: usize) -> Self {
        let below = |k: u64, n: usize| rng.below(base + k, n.max(1) as u32) as usize;
        // Long spans twice as often as short ones.
        let span = [2, 3, 3, 4, 4, 4][below(1, 6)];
        let first = below(2, FRAMES - span);
        let middle = first + 1 + below(3, span - 1);
        let mut frames = [first, middle, first + span];
        if below(4, 2) == 1 {
            frames.reverse();
        }
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        Self {
            sequence: below(0, of.len()),
            frames,
            corner: (below(5, of.size - crop + 1), below(6, of.size - crop + 1)),
            mirror: [below(7, 2) == 1, below(8, 2) == 1],
            transpose: below(9, 2) == 1,
            channels: orders[below(10, 6)],
        }
    }

    fn values<'a>(&'a self, of: &'a Sequences, frame: usize, crop: usize) -> impl Iterator<Item = f32> + 'a {
        let (data, size) = (of.frame(self.sequence, frame), of.size);
        let flip = move |mirror: bool, v: usize| if mirror { crop - 1 - v } else { v };
        (0..3 * crop * crop).map(move |i| {
            let (channel, y, x) = (i / (crop * crop), i / crop % crop, i % crop);
            let (y, x) = if self.transpose { (x, y) } else { (y, x) };
            let (y, x) = (flip(self.mirror[1], y), flip(self.mirror[0], x));
            let at = (self.corner.1 + y) * size + self.corner.0 + x;
            f32::from(data[self.channels[channel] * size * size + at]) / 255.0
        })
    }
}

/// Refuses what nothing can be drawn from.
pub(super) fn check(sequences: &Sequences) -> Result<()> {
    if sequences.len() == 0 {
        return Err(Error::invalid("sequences", "there is nothing to learn from")
            .hint("draw some (sequences = 2400), or give a folder of clips with --clips"));
    }
    Ok(())
}
