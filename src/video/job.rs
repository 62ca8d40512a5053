//! One clip: read, edit, write, in a folder of its own, to be continued after a kill.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::editor::{FrameEditor, Request};
use super::fit::{Plan, Policy};
use super::io::{Damage, Encoding, Flow, ReadOptions, Reader, Writer, Written, is_series, transcode};
use super::store::FrameStore;
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
    /// Go on where a killed run was.
    pub resume: bool,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Decoding, to the model's size.
    Read,
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

/// Called with the stage, and the share of it that is done where that is known.
pub type Listener<'a> = dyn FnMut(Stage, Option<f64>) -> Flow + 'a;

/// What the frames on disk belong to.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Ticket {
    input: PathBuf,
    bytes: u64,
    modified: u128,
    settings: String,
    model: (usize, usize),
    /// Number of frames once all are read.
    frames: Option<usize>,
}

impl Job {
    /// The folder beside the output where frames wait.
    pub fn folder(&self) -> PathBuf {
        self.output.with_extension("gen3d")
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
        let mut ticket = self.ticket(plan.model)?;
        let folder = self.folder();
        self.prepare(&folder, &mut ticket)?;
        let source = FrameStore::open(&folder.join("source"), plan.model)?;
        let result = FrameStore::open(&folder.join("edited"), plan.model)?;
        let frames = match ticket.frames {
            Some(frames) => frames,
            None => {
                let frames = self.read(&plan, &source, listener)?;
                ticket.frames = Some(frames);
                save(&folder, &ticket)?;
                frames
            }
        };
        let work = folder.join("work");
        fs::create_dir_all(&work).map_err(|e| Error::io(&work, e))?;
        let request = Request { source: &source, frames, result: &result, work: &work };
        editor.edit(&request, &mut |share| listener(Stage::Edit, Some(share)) == Flow::Continue)?;
        let report = self.write(Some((&plan, &result)), listener)?;
        fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(report)
    }

    /// Decodes every frame into the store.
    fn read(&self, plan: &Plan, source: &FrameStore, listener: &mut Listener<'_>) -> Result<usize> {
        let mut reader = Reader::open(&self.input, self.reading)?;
        let mut frames = 0;
        while let Some(frame) = reader.next_frame()? {
            source.put(frames, &plan.forth(&frame.picture))?;
            frames += 1;
            let share = reader.info().frames.map(|total| frames as f64 / total.max(1) as f64);
            if listener(Stage::Read, share) == Flow::Stop {
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
        let mut progress =
            |p: super::io::Progress| listener(Stage::Write, p.total.map(|t| p.done as f64 / t.max(1) as f64));
        let (info, damage, written) =
            transcode(&self.input, &self.output, self.reading, &self.encoding, &mut edit, &mut progress)?;
        Ok(Report { written, damage, interlaced: info.interlaced })
    }

    fn ticket(&self, model: (usize, usize)) -> Result<Ticket> {
        let meta = fs::metadata(&self.input).ok().filter(|_| !is_series(&self.input));
        let modified = meta.as_ref().and_then(|m| m.modified().ok()?.duration_since(UNIX_EPOCH).ok());
        Ok(Ticket {
            input: self.input.clone(),
            bytes: meta.map_or(0, |m| m.len()),
            modified: modified.map_or(0, |d| d.as_nanos()),
            settings: format!("{} {:?} {:?}", self.settings, self.policy, self.reading),
            model,
            frames: None,
        })
    }

    /// An empty folder, or with `--resume` the one of the same job.
    fn prepare(&self, folder: &Path, ticket: &mut Ticket) -> Result<()> {
        let found =
            fs::read(folder.join("job.json")).ok().and_then(|b| serde_json::from_slice::<Ticket>(&b).ok());
        if self.resume
            && let Some(found) = found
        {
            ticket.frames = found.frames;
            if found != *ticket {
                return Err(Error::invalid("--resume", format!("{} holds another edit", folder.display()))
                    .hint("give the same clip and settings as before, or run without --resume"));
            }
            return Ok(());
        }
        if folder.exists() {
            check_ours(folder)?;
            fs::remove_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        save(folder, ticket)
    }
}

/// Only folders that this module made are removed.
fn check_ours(folder: &Path) -> Result<()> {
    if folder.join("job.json").is_file() || fs::read_dir(folder).is_ok_and(|mut d| d.next().is_none()) {
        return Ok(());
    }
    Err(Error::invalid("--out", format!("{} exists and holds something else", folder.display()))
        .hint("the edit keeps its frames in a folder of that name; choose another --out"))
}

fn save(folder: &Path, ticket: &Ticket) -> Result<()> {
    let text = serde_json::to_string_pretty(ticket).map_err(|e| Error::Failed(e.to_string()))?;
    asset::replace(&folder.join("job.json"), text.as_bytes())
}
