//! How good an edit is beside its source: without a network, and, if one is at hand, by an encoder of words.

pub mod flow;
pub mod meaning;
pub mod similarity;
pub mod temporal;

use std::collections::VecDeque;
use std::path::Path;

use serde::Serialize;

use self::meaning::{Meaning, Told};
use self::temporal::Motion;
use super::io::{Picture, ReadOptions, Reader};
use crate::{Error, Result};

/// All numbers about an edit. Errors are on a scale of 0 … 1 a colour.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Frames compared.
    pub frames: usize,
    /// Mean warp error of the edit under the source's motion; 0 is best (and what a grey clip has:
    /// read it beside the similarity).
    pub warp_error: Option<f64>,
    /// The same of the source itself: what its motion estimate leaves.
    pub warp_error_source: Option<f64>,
    /// The former over the latter.
    pub warp_error_ratio: Option<f64>,
    /// PSNR to the source outside the mask, dB, of the mean error of all frames.
    pub psnr: Option<f64>,
    /// Mean SSIM to the source outside the mask.
    pub ssim: Option<f64>,
    /// Steps at window borders over steps inside windows; 1 is seamless.
    pub seam_ratio: Option<f64>,
    /// The same of the source.
    pub seam_ratio_source: Option<f64>,
    /// Mean second difference of luma where the source is still.
    pub flicker: Option<f64>,
    /// The same of the source.
    pub flicker_source: Option<f64>,
    /// Mean cosine between what an encoder sees in neighbouring frames.
    pub frame_consistency: Option<f64>,
    /// The same of the source.
    pub frame_consistency_source: Option<f64>,
    /// Mean cosine between what it sees in a frame and in the prompt.
    pub prompt_consistency: Option<f64>,
    /// The same of the source, with the edit's prompt.
    pub prompt_consistency_source: Option<f64>,
    /// Share of frames nearer to the prompt than to the source's.
    pub frame_accuracy: Option<f64>,
}

/// What is known of three frames at a time.
struct Row {
    source: Picture,
    edit: Picture,
}

/// Sums over a clip.
#[derive(Default)]
struct Sums {
    warp: Mean,
    warp_source: Mean,
    error: Mean,
    ssim: Mean,
    steps: Vec<f64>,
    steps_source: Vec<f64>,
    flicker: (f64, u64),
    flicker_source: (f64, u64),
    told: Told,
    told_source: Told,
}

#[derive(Default)]
struct Mean(f64, u64);

impl Mean {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.0 += value;
            self.1 += 1;
        }
    }

    fn value(&self) -> Option<f64> {
        (self.1 > 0).then(|| self.0 / self.1 as f64)
    }
}

/// Compares an edit with its source, frame by frame, three of each in memory. `mask` is a clip or a
/// picture, white where the edit was meant to happen; a mask of one frame holds for all. `window` is
/// the editor's number of frames a window (0: no seams are looked for).
///
/// # Errors
/// Clips that cannot be read, or differ in size or number of frames.
pub fn compare(source: &Path, edit: &Path, mask: Option<&Path>, window: usize) -> Result<Scores> {
    compare_by(source, edit, mask, window, None)
}

/// As [`compare`], with what an encoder sees.
///
/// # Errors
/// As [`compare`]'s, and the encoder's.
pub fn compare_by(
    source: &Path,
    edit: &Path,
    mask: Option<&Path>,
    window: usize,
    meaning: Option<&Meaning<'_>>,
) -> Result<Scores> {
    let reading = ReadOptions { tonemap: true };
    let mut readers = [Reader::open(source, reading)?, Reader::open(edit, reading)?];
    let mut mask = mask.map(|m| Reader::open(m, reading)).transpose()?;
    let mut last_mask: Option<Vec<f32>> = None;
    let mut rows: VecDeque<Row> = VecDeque::new();
    let mut sums = Sums::default();
    let mut frames = 0;
    loop {
        let pair = [readers[0].next_frame()?, readers[1].next_frame()?].map(|f| f.map(|f| f.picture));
        let (source_picture, edit_picture) = match pair {
            [None, None] => break,
            [Some(a), Some(b)] => (a, b),
            _ => {
                return Err(Error::file(
                    edit,
                    format!("it and its source differ in length at frame {frames}"),
                )
                .hint("compare an edit with the clip it was made from"));
            }
        };
        same_size(edit, &source_picture, &edit_picture)?;
        if let Some(next) = mask.as_mut().map(Reader::next_frame).transpose()?.flatten() {
            same_size(mask_path(mask.as_ref(), edit), &source_picture, &next.picture)?;
            last_mask = Some(next.picture.luma().into_iter().map(|m| 1.0 - m.clamp(0.0, 1.0)).collect());
        }
        let all;
        let keep = match &last_mask {
            Some(keep) => keep,
            None => {
                all = vec![1.0; source_picture.width * source_picture.height];
                &all
            }
        };
        if let Some(meaning) = meaning {
            sums.told.add(&edit_picture, meaning)?;
            sums.told_source.add(&source_picture, meaning)?;
        }
        sums.error.add(similarity::squared_error(&source_picture, &edit_picture, keep));
        sums.ssim.add(similarity::ssim(&source_picture, &edit_picture, keep));
        rows.push_back(Row { source: source_picture, edit: edit_picture });
        sums.advance(&rows);
        if rows.len() == 3 {
            rows.pop_front();
        }
        frames += 1;
    }
    Ok(sums.scores(frames, window))
}

fn mask_path<'a>(mask: Option<&'a Reader>, edit: &'a Path) -> &'a Path {
    mask.map_or(edit, |m| &m.info().path)
}

fn same_size(path: &Path, a: &Picture, b: &Picture) -> Result<()> {
    if (a.width, a.height) == (b.width, b.height) {
        return Ok(());
    }
    let text =
        format!("its pictures have {}x{} pixels, the source's {}x{}", b.width, b.height, a.width, a.height);
    Err(Error::file(path, text))
}

impl Sums {
    /// Adds what the newest frame tells.
    fn advance(&mut self, rows: &VecDeque<Row>) {
        let n = rows.len();
        if n < 2 {
            return;
        }
        let (before, now) = (&rows[n - 2], &rows[n - 1]);
        let motion = Motion::between(&before.source, &now.source);
        self.warp.add(motion.warp_error(&before.edit, &now.edit));
        self.warp_source.add(motion.warp_error(&before.source, &now.source));
        self.steps.push(temporal::difference(&before.edit, &now.edit));
        self.steps_source.push(temporal::difference(&before.source, &now.source));
        if n < 3 {
            return;
        }
        let source = [0, 1, 2].map(|i| rows[i].source.luma());
        let edit = [0, 1, 2].map(|i| rows[i].edit.luma());
        let (source, edit) = ([0, 1, 2].map(|i| &source[i][..]), [0, 1, 2].map(|i| &edit[i][..]));
        let add = |sum: &mut (f64, u64), more: (f64, u64)| *sum = (sum.0 + more.0, sum.1 + more.1);
        add(&mut self.flicker, temporal::flicker(source, edit));
        add(&mut self.flicker_source, temporal::flicker(source, source));
    }

    fn scores(&self, frames: usize, window: usize) -> Scores {
        let mean = |(sum, n): (f64, u64)| (n > 0).then(|| sum / n as f64);
        let (warp_error, warp_error_source) = (self.warp.value(), self.warp_source.value());
        let ratio = warp_error.zip(warp_error_source).filter(|(_, s)| *s > 0.0).map(|(e, s)| e / s);
        Scores {
            frames,
            warp_error,
            warp_error_source,
            warp_error_ratio: ratio,
            psnr: self.error.value().map(similarity::psnr),
            ssim: self.ssim.value(),
            seam_ratio: temporal::seam_ratio(&self.steps, window),
            seam_ratio_source: temporal::seam_ratio(&self.steps_source, window),
            flicker: mean(self.flicker),
            flicker_source: mean(self.flicker_source),
            frame_consistency: self.told.frames.value(),
            frame_consistency_source: self.told_source.frames.value(),
            prompt_consistency: self.told.prompt.value(),
            prompt_consistency_source: self.told_source.prompt.value(),
            frame_accuracy: self.told.accuracy.value(),
        }
    }
}
