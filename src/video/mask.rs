//! A user's mask beside a clip: a clip, a picture or a series of them, fitted in size and in time.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::fit::{Plan, resize};
use super::io::{Picture, ReadOptions, Reader, Stamp};
use crate::{Error, Result};

/// Seconds by which a mask's frame may be late and still counts: half a tick of the coarsest common time base.
const LATE: f64 = 5e-4;

/// A mask that is walked along with its clip.
pub(super) struct Mask {
    path: PathBuf,
    reader: Reader,
    /// What holds now, fitted; and what comes next, with its time since the mask's start.
    now: Option<Picture>,
    next: Option<(f64, Picture)>,
    start: Option<f64>,
}

/// What decides a mask, in words: its name, length and time of change.
pub(super) fn description(path: &Path) -> String {
    let meta = std::fs::metadata(path).ok();
    let modified = meta.as_ref().and_then(|m| m.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    format!("{} {} {:?}", path.display(), meta.map_or(0, |m| m.len()), modified)
}

impl Mask {
    /// Opens it.
    ///
    /// # Errors
    /// Those of reading; [`Error::File`] for one without a frame.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let reader = Reader::open(path, ReadOptions { tonemap: true })?;
        let mut mask = Self { path: path.to_owned(), reader, now: None, next: None, start: None };
        mask.advance()?;
        if mask.next.is_none() {
            return Err(Error::file(path, "holds no frame"));
        }
        Ok(mask)
    }

    fn advance(&mut self) -> Result<()> {
        let base = self.reader.info().time_base.value();
        self.next = self.reader.next_frame()?.map(|frame| {
            let time = frame.stamp.pts as f64 * base;
            (time - *self.start.get_or_insert(time), frame.picture)
        });
        Ok(())
    }

    /// The mask at `time` seconds from the clip's start, at the clip's size, in the model's picture by `plan`:
    /// 0 … 1 in all three channels. The last frame holds to the end.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn at(&mut self, time: f64, plan: &Plan) -> Result<&Picture> {
        while self.next.as_ref().is_some_and(|(at, _)| self.now.is_none() || *at <= time + LATE) {
            let newest = self.next.take().map(|(_, picture)| fitted(&picture, plan));
            self.now = newest;
            self.advance()?;
        }
        self.now.as_ref().ok_or_else(|| Error::file(&self.path, "holds no frame"))
    }
}

/// Seconds of a stamp since `start`.
pub(super) fn seconds(stamp: Stamp, start: i64, reader: &Reader) -> f64 {
    (stamp.pts - start) as f64 * reader.info().time_base.value()
}

/// Its luma over black, stretched to the clip's size and brought to the model's like the clip.
fn fitted(picture: &Picture, plan: &Plan) -> Picture {
    let flat = picture.clone().flattened([0.0; 3]);
    let grey = resize(&flat.luma(), (flat.width, flat.height), plan.source);
    let grey: Vec<f32> = grey.into_iter().map(|v| v.clamp(0.0, 1.0)).collect();
    let (width, height) = plan.source;
    plan.forth(&Picture { width, height, rgb: [&grey[..], &grey, &grey].concat(), alpha: None })
}
