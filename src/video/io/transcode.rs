//! A clip through a function of a picture: decode, edit, encode, in bounded memory.

use std::path::Path;

use super::codec::Encoding;
use super::picture::Picture;
use super::reader::{Damage, ReadOptions, Reader};
use super::source::Info;
use super::writer::{Writer, Written};
use crate::{Error, Result};

/// How far a pass is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Frames done.
    pub done: u64,
    /// Frames in all, where it can be known.
    pub total: Option<u64>,
}

/// What a listener answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop; nothing is written.
    Stop,
}

/// Writes `input` to `output` with every picture through `edit`, which must not change its size; the
/// identity makes the identity edit.
///
/// # Errors
/// Those of [`Reader`], [`Writer`] and `edit`; [`Error::Interrupted`] if `progress` says stop.
pub fn transcode(
    input: &Path,
    output: &Path,
    reading: ReadOptions,
    encoding: &Encoding,
    edit: &mut dyn FnMut(u64, Picture) -> Result<Picture>,
    progress: &mut dyn FnMut(Progress) -> Flow,
) -> Result<(Info, Damage, Written)> {
    let mut reader = Reader::open(input, reading)?;
    Writer::check(output, input, encoding)?;
    let mut writer: Option<Writer> = None;
    let mut done = 0;
    while let Some(frame) = reader.next_frame()? {
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(Writer::create(output, reader.info(), reader.info().size, encoding)?),
        };
        writer.push(edit(done, frame.picture)?, frame.stamp)?;
        done += 1;
        if progress(Progress { done, total: reader.info().frames }) == Flow::Stop {
            return Err(Error::Interrupted);
        }
    }
    let writer = writer.ok_or_else(|| Error::file(input, "its video stream holds no frame"))?;
    Ok((reader.info().clone(), reader.damage(), writer.finish()?))
}
