//! One clip: read, edit, write, in a folder of its own, to be continued after a kill.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::editor::{FrameEditor, Request, Step};
use super::fit::{Plan, Policy};
use super::io::{Damage, Encoding, Flow, ReadOptions, Reader, Writer, Written, transcode};
use super::mask::{self, Mask};
use super::store::FrameStore;
use super::ticket::{self, Ticket};
use crate::{Error, Result, asset};

/// A clip to edit.
#[derive(Debug, Clone)]
pub struct Job {
    /// The clip.
    pub input: PathBuf,
    /// The edited clip.
    pub output: PathBuf,
    /// How it is read.
    pub reading: ReadOptions,
    /// How it is written.
    pub encoding: Encoding,
    /// How it is brought to the model's size.
    pub policy: Policy,
    /// The short side in the model, pixels; the model's own if not given.
    pub short_side: Option<usize>,
    /// All of the edit's settings, in words: frames of another edit are not continued.
    pub settings: String,
    /// A clip, picture or series of the user's, white on what a phrase would name.
    pub mask: Option<PathBuf>,
    /// First edits the first frame alone, into this picture.
    pub preview: Option<PathBuf>,
    /// Go on where a killed run was.
    pub resume: bool,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Decoding, to the model's size.
    Read,
    /// The model, on the first frame alone.
    Preview,
    /// The model.
    Edit,
    /// Back to the clip's size, encoding.
    Write,
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What was written.
    pub written: Written,
    /// What was wrong with the source and could be helped.
    pub damage: Damage,
    /// Fields instead of frames.
    pub interlaced: bool,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// What is being done.
    pub stage: Stage,
    /// Share of it that is done, where that is known.
    pub share: Option<f64>,
    /// The model's own step, in its stages.
    pub step: Option<Step>,
}

/// Told how far the job is; says whether to go on.
pub type Listener<'a> = dyn FnMut(Update) -> Flow + 'a;

impl Job {
    /// The folder beside the output where frames wait.
    pub fn folder(&self) -> PathBuf {
        ticket::folder(&self.output)
    }

    /// Runs the job; without an editor, the clip is only written anew (the identity edit).
    ///
    /// # Errors
    /// Of reading, editing and writing; [`Error::Interrupted`] when the listener says stop.
    pub fn run(&self, editor: Option<&mut dyn FrameEditor>, listener: &mut Listener<'_>) -> Result<Report> {
        Writer::check(&self.output, &self.input, &self.encoding)?;
        match editor {
            None => self.write(None, listener),
            Some(editor) => self.edit(editor, listener),
        }
    }

    fn edit(&self, editor: &mut dyn FrameEditor, listener: &mut Listener<'_>) -> Result<Report> {
        // The first frame tells the size for certain.
        let mut reader = Reader::open(&self.input, self.reading)?;
        let first = reader.next_frame()?;
        let size = first.as_ref().map_or(reader.info().size, |f| (f.picture.width, f.picture.height));
        drop(first);
        let short = self.short_side.unwrap_or(editor.short_side());
        let plan = Plan::new(size, Some(short), editor.factor(), self.policy)?;
        let mask = self.mask.as_deref().map(mask::description);
        let settings = format!("{} {:?} {:?} {mask:?}", self.settings, self.policy, self.reading);
        let mut ticket = Ticket::new(&self.input, settings, plan.model);
        let folder = self.folder();
        ticket.claim(&folder, self.resume)?;
        let store = |name: &str| FrameStore::open(&folder.join(name), plan.model);
        let (source, result) = (store("source")?, store("edited")?);
        let masks = self.mask.as_ref().map(|_| store("mask")).transpose()?;
        let frames = match ticket.frames {
            Some(frames) => frames,
            None => {
                let frames = self.read(&plan, &source, masks.as_ref(), listener)?;
                ticket.frames = Some(frames);
                ticket.save(&folder)?;
                frames
            }
        };
        if let Some(picture) = &self.preview {
            let (first, work) = (store("preview/edited")?, made(folder.join("preview/work"))?);
            let mask = masks.as_ref();
            let request = Request { source: &source, frames: 1, mask, result: &first, work: &work };
            editor.edit(&request, &mut |step| told(listener, Stage::Preview, step))?;
            self.show(picture, &plan, &first)?;
        }
        let work = made(folder.join("work"))?;
        let request = Request { source: &source, frames, mask: masks.as_ref(), result: &result, work: &work };
        editor.edit(&request, &mut |step| told(listener, Stage::Edit, step))?;
        let report = self.write(Some((&plan, &result)), listener)?;
        fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(report)
    }

    /// The first frame of the edit as a picture at the clip's size.
    fn show(&self, picture: &Path, plan: &Plan, first: &FrameStore) -> Result<()> {
        let source = Reader::open(&self.input, self.reading)?.next_frame()?;
        let source = source.ok_or_else(|| Error::file(&self.input, "its video stream holds no frame"))?;
        let mut bytes = std::io::Cursor::new(Vec::new());
        let edited = plan.back(&source.picture, &first.get(0)?)?.to_rgb8();
        edited
            .write_to(&mut bytes, image::ImageFormat::Png)
            .map_err(|e| Error::file(picture, e.to_string()))?;
        asset::replace(picture, bytes.get_ref())
    }

    /// Decodes every frame into the store, and the mask of each into its own.
    fn read(
        &self,
        plan: &Plan,
        source: &FrameStore,
        masks: Option<&FrameStore>,
        listener: &mut Listener<'_>,
    ) -> Result<usize> {
        let mut mask = self.mask.as_deref().map(Mask::open).transpose()?;
        let mut reader = Reader::open(&self.input, self.reading)?;
        let (mut frames, mut start) = (0, None);
        while let Some(frame) = reader.next_frame()? {
            source.put(frames, &plan.forth(&frame.picture))?;
            if let (Some(mask), Some(store)) = (&mut mask, masks) {
                let start = *start.get_or_insert(frame.stamp.pts);
                store.put(frames, mask.at(mask::seconds(frame.stamp, start, &reader), plan)?)?;
            }
            frames += 1;
            let share = reader.info().frames.map(|total| frames as f64 / total.max(1) as f64);
            if listener(Update { stage: Stage::Read, share, step: None }) == Flow::Stop {
                return Err(Error::Interrupted);
            }
        }
        Ok(frames)
    }

    fn write(&self, edited: Option<(&Plan, &FrameStore)>, listener: &mut Listener<'_>) -> Result<Report> {
        let mut edit = |i: u64, picture| match edited {
            Some((plan, store)) => plan.back(&picture, &store.get(i as usize)?),
            None => Ok(picture),
        };
        let mut progress = |p: super::io::Progress| {
            let share = p.total.map(|t| p.done as f64 / t.max(1) as f64);
            listener(Update { stage: Stage::Write, share, step: None })
        };
        let (info, damage, written) =
            transcode(&self.input, &self.output, self.reading, &self.encoding, &mut edit, &mut progress)?;
        Ok(Report { written, damage, interlaced: info.interlaced })
    }
}

fn told(listener: &mut Listener<'_>, stage: Stage, step: Step) -> bool {
    listener(Update { stage, share: Some(step.share), step: Some(step) }) == Flow::Continue
}

fn made(folder: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    Ok(folder)
}
