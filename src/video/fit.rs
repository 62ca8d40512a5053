//! Between the clip's size and the model's: crop, scale and pad, and all of it undone.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::detail::slopes_less_one;
use super::io::Picture;
use crate::{Error, Result};

/// How a picture whose sides are no multiples of the model's factor is made to fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Scale, then repeat the last row and column up to a multiple
    #[default]
    Pad,
    /// Edit the largest centred part that fits; the rest stays the source's
    Crop,
    /// Scale each side to the nearest multiple; shapes change a little
    Stretch,
}

/// Where the model's picture lies in the clip's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The clip's size.
    pub source: (usize, usize),
    /// Left, top of the part that is edited.
    pub corner: (usize, usize),
    /// Its size.
    pub part: (usize, usize),
    /// That part's size in the model's picture.
    pub scaled: (usize, usize),
    /// The model's picture.
    pub model: (usize, usize),
}

impl Plan {
    /// A plan for pictures of `source` and a model whose sides are multiples of `factor`; the short
    /// side becomes about `short` (`None`: not scaled).
    ///
    /// # Errors
    /// [`Error::Invalid`] if a side would vanish.
    pub fn new(source: (usize, usize), short: Option<usize>, factor: usize, policy: Policy) -> Result<Self> {
        let (w, h) = source;
        if w == 0 || h == 0 || factor == 0 || short == Some(0) {
            return Err(Error::invalid(
                "size",
                format!("{w}x{h} pictures, multiples of {factor}, {short:?}"),
            ));
        }
        let scale = short.map_or(1.0, |s| s as f64 / w.min(h) as f64);
        let wanted = |side: usize| ((side as f64 * scale).round() as usize).max(1);
        let nearest = |side: usize| ((side as f64 * scale / factor as f64).round() as usize).max(1) * factor;
        let whole = Self { source, corner: (0, 0), part: source, scaled: source, model: source };
        Ok(match policy {
            Policy::Pad => {
                let scaled = (wanted(w), wanted(h));
                let model = (scaled.0.next_multiple_of(factor), scaled.1.next_multiple_of(factor));
                Self { scaled, model, ..whole }
            }
            Policy::Stretch => {
                Self { scaled: (nearest(w), nearest(h)), model: (nearest(w), nearest(h)), ..whole }
            }
            Policy::Crop => {
                let down =
                    |side: usize| ((side as f64 * scale / factor as f64).floor() as usize).max(1) * factor;
                let model = (down(w), down(h));
                let part = inscribed(source, model, short.is_none());
                let corner = ((w - part.0) / 2, (h - part.1) / 2);
                Self { source, corner, part, scaled: model, model }
            }
        })
    }

    /// The model's picture of a clip's picture.
    pub fn forth(&self, picture: &Picture) -> Picture {
        let Self { source, corner, part, scaled, model } = *self;
        picture.map_planes(model, |plane| {
            let cut = cut(plane, source.0, corner, part);
            pad(&resize(&cut, part, scaled), scaled, model)
        })
    }

    /// The clip's picture with the model's in its place. Where nothing was scaled this is the exact
    /// inverse; where something was, the source's own detail above the model's resolution is kept as far as the edit
    /// kept its structure: `source + up(edited − down(source)) + up(a − 1)(source − up(down(source)))` with the
    /// slope `a` of the edit against the source, so that what was not edited is the source, exactly, and what was
    /// put elsewhere has no outlines of what was there before.
    ///
    /// # Errors
    /// [`Error::Failed`] if `edited` has not the model's size.
    pub fn back(&self, source: &Picture, edited: &Picture) -> Result<Picture> {
        if (edited.width, edited.height) != self.model {
            let (w, h) = self.model;
            return Err(Error::Failed(format!(
                "an edited picture of {}x{}, not {w}x{h}",
                edited.width, edited.height
            )));
        }
        let before = self.forth(source);
        let mut out = source.clone();
        let n = source.width * source.height;
        for channel in 0..3 {
            let (now, was) = (edited.plane(channel), before.plane(channel));
            let plane = &mut out.rgb[channel * n..(channel + 1) * n];
            let place = |y: usize| {
                let start = (self.corner.1 + y) * self.source.0 + self.corner.0;
                start..start + self.part.0
            };
            if self.scaled == self.part {
                // Not a sum of differences: the very numbers.
                for y in 0..self.part.1 {
                    plane[place(y)].copy_from_slice(&now[y * self.model.0..][..self.part.0]);
                }
                continue;
            }
            let [now, was] = [now, was].map(|p| cut(p, self.model.0, (0, 0), self.scaled));
            let change: Vec<f32> = now.iter().zip(&was).map(|(a, b)| a - b).collect();
            let slopes = slopes_less_one(&was, &now, self.scaled);
            let [change, slopes, coarse] = [change, slopes, was].map(|p| resize(&p, self.scaled, self.part));
            for y in 0..self.part.1 {
                let line = y * self.part.0..(y + 1) * self.part.0;
                let (change, coarse) = (&change[line.clone()], &coarse[line.clone()]);
                for (i, p) in plane[place(y)].iter_mut().enumerate() {
                    *p += change[i] + slopes[line.start + i] * (*p - coarse[i]);
                }
            }
        }
        Ok(out)
    }
}

/// The largest part of `source` with the shape of `model`.
fn inscribed(source: (usize, usize), model: (usize, usize), unscaled: bool) -> (usize, usize) {
    if unscaled && model.0 <= source.0 && model.1 <= source.1 {
        return model;
    }
    let scale = (source.0 as f64 / model.0 as f64).min(source.1 as f64 / model.1 as f64);
    let side = |m: usize, s: usize| ((m as f64 * scale).round() as usize).clamp(1, s);
    (side(model.0, source.0), side(model.1, source.1))
}

fn cut(plane: &[f32], width: usize, corner: (usize, usize), size: (usize, usize)) -> Vec<f32> {
    (0..size.1).flat_map(|y| &plane[(corner.1 + y) * width + corner.0..][..size.0]).copied().collect()
}

/// Repeats the last column and row.
fn pad(plane: &[f32], size: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    let at = |x: usize, y: usize| plane[y.min(size.1 - 1) * size.0 + x.min(size.0 - 1)];
    (0..to.1).flat_map(|y| (0..to.0).map(move |x| at(x, y))).collect()
}

/// Catmull-Rom, as wide as the larger of the two pixels, so that nothing aliases.
pub fn resize(plane: &[f32], from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    if from == to {
        return plane.to_vec();
    }
    let (across, down) = (kernel(from.0, to.0), kernel(from.1, to.1));
    let mut rows = vec![0.0; to.0 * from.1];
    rows.par_chunks_mut(to.0).zip(plane.par_chunks(from.0)).for_each(|(out, row)| {
        for (value, taps) in out.iter_mut().zip(&across) {
            *value = taps.iter().map(|&(at, w)| w * row[at]).sum();
        }
    });
    let mut out = vec![0.0; to.0 * to.1];
    out.par_chunks_mut(to.0).zip(&down).for_each(|(out, taps)| {
        for &(at, weight) in taps {
            out.iter_mut().zip(&rows[at * to.0..]).for_each(|(value, v)| *value += weight * v);
        }
    });
    out
}

/// Of each output sample, the input samples and their weights, which sum to one.
fn kernel(from: usize, to: usize) -> Vec<Vec<(usize, f32)>> {
    let ratio = from as f64 / to as f64;
    let stretch = ratio.max(1.0);
    (0..to)
        .map(|i| {
            let center = (i as f64 + 0.5) * ratio - 0.5;
            let (low, high) =
                ((center - 2.0 * stretch).ceil() as i64, (center + 2.0 * stretch).floor() as i64);
            let weights: Vec<f64> = (low..=high).map(|k| cubic((k as f64 - center) / stretch)).collect();
            let sum: f64 = weights.iter().sum();
            (low..=high)
                .zip(weights)
                .map(|(k, w)| (k.clamp(0, from as i64 - 1) as usize, (w / sum) as f32))
                .collect()
        })
        .collect()
}

fn cubic(x: f64) -> f64 {
    let x = x.abs();
    match x {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    fn noise(w: usize, h: usize) -> Picture {
        let rng = Rng::new(5, Stream::Probe, 1);
        Picture::from_fn(w, h, |x, y| [0, 1, 2].map(|c| rng.uniform((c + 3 * (x + w * y)) as u64)))
    }

    const POLICIES: [Policy; 3] = [Policy::Pad, Policy::Crop, Policy::Stretch];

    #[test]
    fn sides_are_multiples_and_the_short_side_is_near_what_was_asked() {
        for policy in POLICIES {
            for source in [(1920, 1080), (1080, 1920), (97, 53), (3, 200), (1, 1), (64, 64)] {
                for (short, factor) in [(Some(512), 64), (Some(64), 8), (None, 16)] {
                    let plan = Plan::new(source, short, factor, policy).unwrap();
                    let (w, h) = plan.model;
                    assert!(w % factor == 0 && h % factor == 0 && w > 0 && h > 0);
                    let wanted = short.unwrap_or(source.0.min(source.1));
                    assert!(w.min(h).abs_diff(wanted) < factor.max(1), "{plan:?}");
                    assert!(
                        plan.corner.0 + plan.part.0 <= source.0 && plan.corner.1 + plan.part.1 <= source.1
                    );
                }
            }
        }
        assert_eq!(Plan::new((1920, 1080), Some(512), 64, Policy::Pad).unwrap().model, (960, 512));
        assert_eq!(Plan::new((1920, 1080), Some(512), 64, Policy::Crop).unwrap().model, (896, 512));
        assert!(Plan::new((0, 5), None, 8, Policy::Pad).is_err());
    }

    #[test]
    fn what_was_not_edited_is_the_source_exactly() {
        for policy in POLICIES {
            for (size, short) in
                [((33, 21), None), ((33, 21), Some(16)), ((16, 24), Some(40)), ((5, 1), Some(8))]
            {
                let plan = Plan::new(size, short, 8, policy).unwrap();
                let source = noise(size.0, size.1);
                let model = plan.forth(&source);
                assert_eq!((model.width, model.height), plan.model);
                assert_eq!(plan.back(&source, &model).unwrap(), source, "{policy:?} {size:?} {short:?}");
            }
        }
    }

    #[test]
    fn an_unscaled_edit_comes_back_number_for_number() {
        let plan = Plan::new((20, 11), None, 8, Policy::Pad).unwrap();
        let edited = noise(24, 16);
        let back = plan.back(&Picture::filled(20, 11, [0.3; 3]), &edited).unwrap();
        for y in 0..11 {
            assert_eq!(back.plane(1)[y * 20..][..20], edited.plane(1)[y * 24..][..20]);
        }
        // Of a crop, the border stays.
        let plan = Plan::new((20, 11), None, 8, Policy::Crop).unwrap();
        let back = plan.back(&Picture::filled(20, 11, [0.3; 3]), &Picture::filled(16, 8, [0.9; 3])).unwrap();
        assert_eq!((back.plane(0)[0], back.plane(0)[5 * 20 + 10]), (0.3, 0.9));
    }

    #[test]
    fn scaling_keeps_constants_and_ramps() {
        let ramp: Vec<f32> = (0..64 * 4).map(|i| (i % 64) as f32 + 0.5).collect();
        for to in [32, 48, 96, 128] {
            let out = resize(&ramp, (64, 4), (to, 3));
            for x in to / 4..3 * to / 4 {
                let expected = (x as f32 + 0.5) * 64.0 / to as f32;
                // Reducing by a ratio that is no whole number bends a ramp by a fiftieth of a pixel.
                let bound = if to == 48 { 0.02 } else { 1e-3 };
                assert!((out[to + x] - expected).abs() < bound, "{to}: {} {expected}", out[to + x]);
            }
        }
        assert!(resize(&[0.25; 30], (6, 5), (9, 2)).iter().all(|v| (v - 0.25).abs() < 1e-6));
    }

    #[test]
    fn what_is_taken_away_leaves_no_outline() {
        // A sharp disc on grey, edited away at a quarter of its size.
        let grey = Picture::filled(64, 64, [0.6; 3]);
        let inside = |x: usize, y: usize| (x as f32 - 31.5).hypot(y as f32 - 31.5) < 18.0;
        let disc = Picture::from_fn(64, 64, |x, y| if inside(x, y) { [0.1, 0.2, 0.9] } else { [0.6; 3] });
        let plan = Plan::new((64, 64), Some(16), 8, Policy::Pad).unwrap();
        let off = |edited: &Picture, wanted: &Picture| {
            let back = plan.back(&disc, edited).unwrap();
            back.rgb.iter().zip(&wanted.rgb).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        // Nothing of the disc stays; what the resampling rings around a step of .5 is below a hundredth.
        assert!(off(&plan.forth(&grey), &grey) < 0.01, "{}", off(&plan.forth(&grey), &grey));
        // In another colour it keeps its sharp edge, but for ε beside the variance of blurred edges. (A step of .5
        // that was only enlarged from a quarter would be off by .25.)
        let red = Picture::from_fn(64, 64, |x, y| if inside(x, y) { [0.3, 0.1, 0.8] } else { [0.6; 3] });
        assert!(off(&plan.forth(&red), &red) < 0.05, "{}", off(&plan.forth(&red), &red));
    }

    #[test]
    fn an_edit_of_the_model_size_moves_to_the_clip() {
        // A bump in the middle of the model's picture appears in the middle of the clip's.
        let plan = Plan::new((64, 32), Some(16), 8, Policy::Pad).unwrap();
        let source = Picture::filled(64, 32, [0.5; 3]);
        let mut edited = plan.forth(&source);
        let at = |x: usize, y: usize| y * plan.model.0 + x;
        for (x, y) in [(15, 7), (16, 7), (15, 8), (16, 8)] {
            edited.rgb[at(x, y)] = 1.0;
        }
        let out = plan.back(&source, &edited).unwrap();
        let peak = |x: usize, y: usize| out.plane(0)[y * 64 + x];
        assert!(peak(31, 15) > 0.9 && (peak(31, 15) - peak(32, 16)).abs() < 1e-5);
        assert_eq!((peak(3, 3), out.plane(1)[31 + 15 * 64]), (0.5, 0.5));
    }
}
