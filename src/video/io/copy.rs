//! Everything that is not the picture, packet by packet, bit for bit.

use std::path::Path;

use ffmpeg::format::context::{Input, Output};
use ffmpeg::media::Type as Medium;
use ffmpeg::{Dictionary, Packet};
use ffmpeg_next as ffmpeg;

use super::clock::{Ratio, not_after};
use super::source::{self, Info};
use super::{ff, images};
use crate::{Error, Result};

/// A second reading of the source, for its other streams.
pub(super) struct Copier {
    input: Input,
    /// Of each source stream: index in the output.
    map: Vec<Option<usize>>,
    /// Of each source stream: ticks to add to its times.
    shift: Vec<i64>,
    pending: Option<Packet>,
    done: bool,
}

/// Whether the copier writes a stream, and if not, why.
enum Fate {
    Copy,
    Drop(String),
    Refuse(String),
}

impl Copier {
    /// Opens the source again. Series of pictures carry nothing else; made pictures have no source.
    pub(super) fn open(info: &Info) -> Result<Option<Self>> {
        if info.path.as_os_str().is_empty() || images::is_series(&info.path) {
            return Ok(None);
        }
        let input = images::open(&info.path)?;
        let streams = input.nb_streams() as usize;
        Ok(Some(Self {
            input,
            map: vec![None; streams],
            shift: vec![0; streams],
            pending: None,
            done: false,
        }))
    }

    /// Adds the source's streams to the output, in the source's order; `video` adds the encoder's.
    /// Returns the index of the encoder's stream and what had to be left out.
    ///
    /// # Errors
    /// [`Error::File`] for streams that the container cannot carry, unless they may be dropped.
    pub(super) fn add_streams(
        &mut self,
        output: &mut Output,
        info: &Info,
        drop: bool,
        video: &mut dyn FnMut(&mut Output, Option<Dictionary<'static>>) -> Result<usize>,
    ) -> Result<(usize, Vec<String>)> {
        let (mut index, mut left_out) = (0, Vec::new());
        for stream in self.input.streams() {
            if stream.index() == info.stream {
                index = video(output, Some(kept_metadata(&stream)))?;
                copy_disposition(&stream, output, index);
                continue;
            }
            match fate(&stream, output) {
                Fate::Copy => {
                    let at = add_copy(&stream, output)
                        .map_err(|e| ff::failed(&info.path, "copying a stream", e))?;
                    self.map[stream.index()] = Some(at);
                    self.shift[stream.index()] = opus_shift(&stream, output);
                }
                Fate::Drop(what) => left_out.push(what),
                Fate::Refuse(what) if drop => left_out.push(what),
                Fate::Refuse(what) => {
                    return Err(Error::file(&info.path, what).hint(
                        "write .mkv, which carries nearly everything, or leave it out with --drop-uncopyable",
                    ));
                }
            }
        }
        copy_globals(&self.input, output);
        Ok((index, left_out))
    }

    /// Time bases of what is copied.
    pub(super) fn time_bases(&self) -> Vec<Ratio> {
        self.input.streams().filter(|s| self.map[s.index()].is_some()).map(|s| s.time_base().into()).collect()
    }

    /// Writes the packets up to a time, or all.
    ///
    /// # Errors
    /// What the muxer says.
    pub(super) fn pump(
        &mut self,
        output: &mut Output,
        until: Option<(i64, Ratio)>,
        path: &Path,
    ) -> Result<()> {
        while let Some((stream, time)) = self.peek().map(|p| (p.stream(), p.dts().or(p.pts()))) {
            let Some(stream) = self.input.stream(stream) else { break };
            let base = Ratio::from(stream.time_base());
            if let (Some(until), Some(time)) = (until, time)
                && !not_after((time, base), until)
            {
                return Ok(());
            }
            let (Some(mut packet), Some(at)) = (self.pending.take(), self.map[stream.index()]) else {
                continue;
            };
            let to = output.stream(at).map_or(base.into(), |s| s.time_base());
            let shift = self.shift[stream.index()];
            packet.set_pts(packet.pts().map(|t| t + shift));
            packet.set_dts(packet.dts().map(|t| t + shift));
            packet.rescale_ts(base, to);
            packet.set_stream(at);
            packet.set_position(-1);
            packet.write_interleaved(output).map_err(|e| ff::failed(path, "writing a copied stream", e))?;
        }
        Ok(())
    }

    /// The next packet of a copied stream.
    fn peek(&mut self) -> Option<&Packet> {
        while self.pending.is_none() && !self.done {
            let mut packet = Packet::empty();
            match packet.read(&mut self.input) {
                // What is damaged beyond the demuxer's help is the end; the picture's reader says so.
                Err(_) => self.done = true,
                Ok(()) if self.map.get(packet.stream()).is_some_and(Option::is_some) && packet.size() > 0 => {
                    self.pending = Some(packet);
                }
                Ok(()) => {}
            }
        }
        self.pending.as_ref()
    }
}

/// Matroska stores Opus by the time before its pre-skip is taken off. FFmpeg 5 takes it off when it
/// reads and does not put it back when it writes, so that every copy comes earlier; here it is put back.
fn opus_shift(stream: &ffmpeg::Stream<'_>, output: &Output) -> i64 {
    let matroska = ["matroska", "webm"].contains(&output.format().name());
    if !matroska
        || ffmpeg::format::version() >> 16 > 59
        || stream.parameters().id() != ffmpeg::codec::Id::OPUS
    {
        return 0;
    }
    // SAFETY: the header belongs to the open stream and is as long as it says.
    let header = unsafe {
        let raw = &*stream.parameters().as_ptr();
        if raw.extradata.is_null() || raw.extradata_size < 12 {
            return 0;
        }
        std::slice::from_raw_parts(raw.extradata, 12)
    };
    let samples = f64::from(u16::from_le_bytes([header[10], header[11]]));
    (samples / 48_000.0 / Ratio::from(stream.time_base()).value()).round() as i64
}

/// Can the output's container carry the stream?
fn fate(stream: &ffmpeg::Stream<'_>, output: &Output) -> Fate {
    let parameters = stream.parameters();
    let what = format!("stream {}, {}", stream.index(), source::kind(stream));
    let name = output.format().name().to_owned();
    let unknown = parameters.id() == ffmpeg::codec::Id::None;
    // SAFETY: both formats are static tables of FFmpeg.
    let answer =
        unsafe { ffmpeg::ffi::avformat_query_codec(output.format().as_ptr(), parameters.id().into(), -2) };
    match parameters.medium() {
        // QuickTime's time code track, which only .mov carries; its text is in the metadata, too.
        Medium::Data | Medium::Unknown if unknown && name != "mov" => {
            Fate::Drop(format!("{what} is not carried by .{name}"))
        }
        Medium::Attachment if !name.contains("matroska") => {
            Fate::Refuse(format!("{what}: .{name} carries no attachments"))
        }
        Medium::Attachment | Medium::Data | Medium::Unknown => Fate::Copy,
        _ if answer == 0 => Fate::Refuse(format!("{what} cannot be carried by .{name}")),
        _ => Fate::Copy,
    }
}

fn add_copy(stream: &ffmpeg::Stream<'_>, output: &mut Output) -> Result<usize, ffmpeg::Error> {
    // SAFETY: static tables; the parameters are copied into the new stream before their owner goes.
    unsafe {
        let tags = (*output.format().as_ptr()).codec_tag;
        let from = stream.parameters();
        let from = from.as_ptr();
        let mut to = output.add_stream(ffmpeg::codec::Id::None)?;
        let at = to.index();
        let raw = to.as_mut_ptr();
        let code = ffmpeg::ffi::avcodec_parameters_copy((*raw).codecpar, from);
        if code < 0 {
            return Err(code.into());
        }
        let (tag, id) = ((*from).codec_tag, (*from).codec_id);
        let fits = tags.is_null()
            || ffmpeg::ffi::av_codec_get_id(tags, tag) == id
            || ffmpeg::ffi::av_codec_get_tag(tags, id) == 0;
        (*(*raw).codecpar).codec_tag = if fits { tag } else { 0 };
        (*raw).time_base = (*stream.as_ptr()).time_base;
        (*raw).avg_frame_rate = (*stream.as_ptr()).avg_frame_rate;
        (*raw).sample_aspect_ratio = (*stream.as_ptr()).sample_aspect_ratio;
        to.set_metadata(kept_metadata(stream));
        copy_disposition(stream, output, at);
        Ok(at)
    }
}

fn copy_disposition(stream: &ffmpeg::Stream<'_>, output: &mut Output, at: usize) {
    if let Some(mut to) = output.stream_mut(at) {
        // SAFETY: both streams are open.
        unsafe { (*to.as_mut_ptr()).disposition = (*stream.as_ptr()).disposition };
    }
}

/// A stream's metadata, without what described its old coding.
fn kept_metadata(stream: &ffmpeg::Stream<'_>) -> Dictionary<'static> {
    let stale = ["rotate", "encoder", "duration", "bps", "number_of_frames", "number_of_bytes"];
    let mut kept = Dictionary::new();
    for (key, value) in stream.metadata().iter() {
        let low = key.to_lowercase();
        if !stale.contains(&low.as_str()) && !low.starts_with("_statistics") {
            kept.set(key, value);
        }
    }
    kept
}

/// The file's metadata and chapters.
fn copy_globals(input: &Input, output: &mut Output) {
    output.set_metadata(input.metadata().to_owned());
    for chapter in input.chapters() {
        let title = chapter.metadata().get("title").unwrap_or_default().to_owned();
        // Ids come from the file and may repeat; a chapter that cannot be added is no reason to fail.
        let _ = output.add_chapter(chapter.id(), chapter.time_base(), chapter.start(), chapter.end(), title);
    }
}
