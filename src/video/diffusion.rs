//! The diffusion editor behind the seam of [`super::editor`]: frames on disk in, frames on disk out.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor};

use super::edit::{
    ControlPictures, ControlTrack, EditConfig, Editor, FileStore, FrameSink, FrameSource, Progress, Stage,
};
use super::editor::{FrameEditor, Listener, Request, Step};
use super::io::Picture;
use super::store::FrameStore;
use crate::paint::control;
use crate::paint::hed::Hed;
use crate::prior::Prior;
use crate::{Error, Result};

/// A prior with the settings of an edit.
pub struct DiffusionEditor {
    /// The prior.
    pub prior: Prior,
    /// The settings.
    pub config: EditConfig,
    /// `ControlNet` folders that follow the source's edges, and how much each counts.
    pub controls: Vec<(PathBuf, f64)>,
    /// They follow soft edges instead, by this network.
    pub soft_edges: Option<Hed>,
}

impl FrameEditor for DiffusionEditor {
    fn factor(&self) -> usize {
        self.prior.vae.factor()
    }

    fn short_side(&self) -> usize {
        self.prior.image_size() as usize
    }

    fn edit(&mut self, request: &Request<'_>, listener: &mut Listener<'_>) -> Result<()> {
        let store = FileStore::new(request.work);
        let mut editor = Editor::new(&self.prior, self.config.clone(), &store);
        for (dir, scale) in &self.controls {
            let net = control::network(dir, &self.prior)?;
            let pictures =
                self.soft_edges.as_ref().map_or(ControlPictures::Canny, ControlPictures::SoftEdges);
            editor.controls.push(ControlTrack { net, scale: *scale, pictures });
        }
        let source = Stored { store: request.source, frames: request.frames };
        let masks = request.mask.map(|store| Masks(Stored { store, frames: request.frames }));
        editor.masks = masks.as_ref().map(|m| m as &dyn FrameSource);
        let shares = Shares::of(&self.config);
        let mut progress = |p: Progress| {
            if listener(shares.step(p)) { Ok(()) } else { Err(Error::Interrupted) }
        };
        // The listener is asked at every step, so nobody else has to stop the run.
        let never = AtomicBool::new(false);
        editor.edit(&source, &mut Kept(request.result), &mut progress, &never)
    }
}

/// Which share of the work each stage is, in evaluations of the network.
struct Shares([(Stage, f64); 6]);

impl Shares {
    fn of(config: &EditConfig) -> Self {
        let steps = config.steps as f64 * config.strength;
        let tune = config.tune.as_ref().map_or(0.0, |t| 3.0 * t.steps as f64);
        let guided = if config.guidance_scale == 1.0 { 1.0 } else { 2.0 };
        // An iteration is a pass there and back.
        let null = config.null_text.as_ref().map_or(0.0, |n| n.until * (2.0 + 3.0 * n.iterations as f64));
        let costs = [
            (Stage::Tune, tune),
            (Stage::Encode, 2.0),
            (Stage::Invert, 2.0 * steps),
            (Stage::NullText, null * steps),
            (Stage::Edit, guided * steps),
            (Stage::Decode, 3.0),
        ];
        let total: f64 = costs.iter().map(|c| c.1).sum();
        Self(costs.map(|(stage, cost)| (stage, cost / total)))
    }

    fn step(&self, p: Progress) -> Step {
        let before: f64 = self.0.iter().take_while(|(s, _)| *s != p.stage).map(|(_, share)| share).sum();
        let own = self.0.iter().find(|(s, _)| *s == p.stage).map_or(0.0, |(_, share)| *share);
        let share = (before + own * p.done as f64 / p.total.max(1) as f64).min(1.0);
        Step { part: name(p.stage), done: p.done, total: p.total, share, until: (before + own).min(1.0) }
    }
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Tune => "tune",
        Stage::Encode => "encode",
        Stage::Invert => "invert",
        Stage::NullText => "null-text",
        Stage::Edit => "denoise",
        Stage::Decode => "decode",
    }
}

/// A store of masks: one of the equal channels.
struct Masks<'a>(Stored<'a>);

impl FrameSource for Masks<'_> {
    fn len(&self) -> usize {
        self.0.frames
    }

    fn size(&self) -> (usize, usize) {
        self.0.store.size()
    }

    fn frame(&self, i: usize) -> Result<Tensor> {
        let picture = self.0.store.get(i)?;
        let (w, h) = (picture.width, picture.height);
        Ok(Tensor::from_slice(picture.plane(0), (1, h, w), &Device::Cpu)?)
    }
}

struct Stored<'a> {
    store: &'a FrameStore,
    frames: usize,
}

impl FrameSource for Stored<'_> {
    fn len(&self) -> usize {
        self.frames
    }

    fn size(&self) -> (usize, usize) {
        self.store.size()
    }

    fn frame(&self, i: usize) -> Result<Tensor> {
        let Picture { width, height, rgb, .. } = self.store.get(i)?;
        let values: Vec<f32> = rgb.into_iter().map(|v| 2.0 * v - 1.0).collect();
        Ok(Tensor::from_vec(values, (3, height, width), &Device::Cpu)?)
    }
}

struct Kept<'a>(&'a FrameStore);

impl FrameSink for Kept<'_> {
    fn put(&mut self, i: usize, frame: &Tensor) -> Result<()> {
        let (_, height, width) = frame.dims3()?;
        let values = frame.flatten_all()?.to_vec1::<f32>()?;
        let rgb = values.into_iter().map(|v| 0.5 * v + 0.5).collect();
        self.0.put(i, &Picture { width, height, rgb, alpha: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_work_grows_to_one() {
        let shares = Shares::of(&EditConfig::default());
        let mut last = 0.0;
        for stage in [Stage::Tune, Stage::Encode, Stage::Invert, Stage::NullText, Stage::Edit, Stage::Decode]
        {
            for done in 0..=4 {
                let now = shares.step(Progress { stage, done, total: 4 }).share;
                assert!(now >= last && now <= 1.0, "{stage:?} {done}: {now} after {last}");
                last = now;
            }
        }
        assert!((last - 1.0).abs() < 1e-9);
    }

    #[test]
    fn frames_come_through_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let store = FrameStore::open(dir.path(), (4, 2)).unwrap();
        let picture = Picture::from_fn(4, 2, |x, y| [x as f32 / 3.0, y as f32, 0.25]);
        store.put(0, &picture).unwrap();
        let source = Stored { store: &store, frames: 1 };
        let frame = source.frame(0).unwrap();
        assert_eq!((source.size(), frame.dims()), ((4, 2), &[3, 2, 4][..]));
        Kept(&store).put(1, &frame).unwrap();
        let (a, b) = (store.get(0).unwrap(), store.get(1).unwrap());
        assert!(a.rgb.iter().zip(&b.rgb).all(|(a, b)| (a - b).abs() < 2e-5));
    }
}
