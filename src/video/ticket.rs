//! What a folder of waiting frames belongs to, so that only the same work goes on with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::io::is_series;
use crate::{Error, Result, asset};

/// Its file in the folder.
const NAME: &str = "job.json";

/// The folder beside `output` where frames wait; the unfinished output is in it, too, so that whatever a
/// killed run leaves goes with it.
pub fn folder(output: &Path) -> PathBuf {
    output.with_extension("gen3d")
}

/// The work on a clip.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Ticket {
    input: PathBuf,
    bytes: u64,
    modified: u128,
    settings: String,
    /// Width and height of the waiting frames.
    model: (usize, usize),
    /// Number of frames once all are read.
    pub(super) frames: Option<usize>,
}

impl Ticket {
    /// Of the clip as it is now, and all that decides what comes out.
    pub(super) fn new(input: &Path, settings: String, model: (usize, usize)) -> Self {
        let meta = fs::metadata(input).ok().filter(|_| !is_series(input));
        let modified = meta.as_ref().and_then(|m| m.modified().ok()?.duration_since(UNIX_EPOCH).ok());
        Self {
            input: input.to_owned(),
            bytes: meta.map_or(0, |m| m.len()),
            modified: modified.map_or(0, |d| d.as_nanos()),
            settings,
            model,
            frames: None,
        }
    }

    /// Makes `folder` an empty one of this work, or with `resume` takes what is there of the same work.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it holds other work (with `resume`) or something else; [`Error::Io`].
    pub(super) fn claim(&mut self, folder: &Path, resume: bool) -> Result<()> {
        let found = fs::read(folder.join(NAME)).ok().and_then(|b| serde_json::from_slice::<Self>(&b).ok());
        if resume && let Some(found) = found {
            self.frames = found.frames;
            if found != *self {
                return Err(Error::invalid("--resume", format!("{} holds other work", folder.display()))
                    .hint("give the same clip and settings as before, or run without --resume"));
            }
            return Ok(());
        }
        if folder.exists() {
            check_ours(folder)?;
            fs::remove_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        self.save(folder)
    }

    /// Writes it into its folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Failed(e.to_string()))?;
        asset::replace(&folder.join(NAME), text.as_bytes())
    }
}

/// Only folders that this module made are removed.
fn check_ours(folder: &Path) -> Result<()> {
    if folder.join(NAME).is_file() || fs::read_dir(folder).is_ok_and(|mut d| d.next().is_none()) {
        return Ok(());
    }
    Err(Error::invalid("--out", format!("{} exists and holds something else", folder.display()))
        .hint("frames wait in a folder of that name; choose another --out"))
}
