//! A clip through the network: decode, frames between, encode, in the memory of a few frames.

use std::fs;
use std::path::{Path, PathBuf};

use super::pace::{Clock, Moment, Pace};
use super::{IfNet, between, is_cut};
use crate::video::io::{Encoding, Flow, Frame, Picture, Progress, ReadOptions, Reader, Writer, Written};
use crate::video::store::FrameStore;
use crate::video::ticket::{self, Ticket};
use crate::{Error, Result};

/// How clips get more frames.
pub struct Interpolation<'a> {
    /// The network.
    pub net: &'a IfNet,
    /// How many frames.
    pub pace: Pace,
    /// How the clip is read.
    pub reading: ReadOptions,
    /// How the output is written.
    pub encoding: Encoding,
    /// Made frames wait in a folder beside the output until it is complete, so that a killed run can go on.
    pub keep: bool,
    /// Go on with the frames that a killed run left.
    pub resume: bool,
}

impl Interpolation<'_> {
    /// Writes `input` to `output` with more frames. By a factor n they are `(F − 1)·n + 1`, the source's
    /// among them at their own times. Across a cut the frame before it is repeated.
    ///
    /// # Errors
    /// Those of reading, of the network and of writing; [`Error::Interrupted`].
    pub fn run(
        &self,
        input: &Path,
        output: &Path,
        progress: &mut dyn FnMut(Progress) -> Flow,
    ) -> Result<Written> {
        Writer::check(output, input, &self.encoding)?;
        let mut reader = Reader::open(input, self.reading)?;
        let mut last =
            reader.next_frame()?.ok_or_else(|| Error::file(input, "its video stream holds no frame"))?;
        let (mut clock, info) = Clock::new(self.pace, reader.info(), last.stamp.pts)?;
        let mut made = Made { net: self.net, store: self.store(input, output, info.size)?, count: 0 };
        let mut writer = Writer::create(output, &info, info.size, &self.encoding)?;
        let mut done = 0;
        while let Some(next) = reader.next_frame()? {
            let mut pair = Pair { a: &last, b: &next, cut: None };
            for moment in clock.until(last.stamp.pts, next.stamp.pts) {
                writer.push(made.picture(&mut pair, &moment)?, moment.stamp)?;
            }
            last = next;
            done += 1;
            if progress(Progress { done, total: reader.info().frames }) == Flow::Stop {
                return Err(Error::Interrupted);
            }
        }
        for moment in clock.last(last.stamp.pts, last.stamp.duration) {
            writer.push(last.picture.clone(), moment.stamp)?;
        }
        let written = writer.finish()?;
        let folder = ticket::folder(output);
        match self.keep {
            true => fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, e)).map(|()| written),
            false => Ok(written),
        }
    }

    /// Where frames wait, if they do.
    fn store(&self, input: &Path, output: &Path, size: (usize, usize)) -> Result<Option<FrameStore>> {
        if !self.keep {
            return Ok(None);
        }
        let folder: PathBuf = ticket::folder(output);
        let settings = format!("interpolate {:?} {} {:?}", self.pace, self.net.digest(), self.reading);
        Ticket::new(input, settings, size).claim(&folder, self.resume)?;
        FrameStore::open(&folder.join("made"), size).map(Some)
    }
}

/// Two frames that follow each other.
struct Pair<'a> {
    a: &'a Frame,
    b: &'a Frame,
    /// Whether a cut lies between, once somebody asked.
    cut: Option<bool>,
}

/// The frames that the network made.
struct Made<'a> {
    net: &'a IfNet,
    store: Option<FrameStore>,
    count: usize,
}

impl Made<'_> {
    fn picture(&mut self, pair: &mut Pair<'_>, moment: &Moment) -> Result<Picture> {
        let (a, b) = (&pair.a.picture, &pair.b.picture);
        if moment.share == 0.0 || *pair.cut.get_or_insert_with(|| is_cut(a, b)) || a == b {
            return Ok(a.clone());
        }
        self.count += 1;
        let Some(store) = &self.store else { return between(self.net, a, b, moment.share) };
        let number = self.count - 1;
        let mut alpha = None;
        if !store.has(number) {
            let picture = between(self.net, a, b, moment.share)?;
            store.put(number, &picture)?;
            alpha = picture.alpha;
        } else if let (Some(a), Some(b)) = (&a.alpha, &b.alpha) {
            alpha = Some(a.iter().zip(b).map(|(a, b)| a + (b - a) * moment.share as f32).collect());
        }
        // What waited is rounded to its codes: the same whether it did or not.
        Ok(Picture { alpha, ..store.get(number)? })
    }
}
