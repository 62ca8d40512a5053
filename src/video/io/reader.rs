//! Streaming decode: one picture at a time, with its time.

use std::collections::VecDeque;
use std::path::Path;

use ffmpeg::codec::{decoder, threading};
use ffmpeg::format::Pixel;
use ffmpeg::format::context::Input;
use ffmpeg::{Packet, frame};
use ffmpeg_next as ffmpeg;

use super::clock::{Ratio, Stamp, ticks_of_frame};
use super::color::Tags;
use super::ff;
use super::layout::{self, Layout};
use super::picture::Picture;
use super::source::{self, Info};
use super::tonemap;
use crate::{Error, Result};

/// A picture and when it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The picture as displayed: turned, without padding.
    pub picture: Picture,
    /// Its time.
    pub stamp: Stamp,
}

/// How a clip is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    /// Map high dynamic range to standard instead of refusing it.
    pub tonemap: bool,
}

/// A clip, decoded frame by frame; at most two pictures are held.
pub struct Reader {
    input: Input,
    decoder: decoder::Video,
    info: Info,
    options: ReadOptions,
    /// Decoded, but their successor's time is not known yet.
    waiting: VecDeque<Frame>,
    packets: u64,
    drained: bool,
    /// Pixel format of the previous frame, described.
    layout: Option<(Pixel, Layout)>,
    damage: Damage,
}

/// What was wrong with a clip and could be helped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// Packets that could not be decoded.
    pub packets: u64,
    /// Frames without a time, or with one not after their predecessor's; they were given the next.
    pub stamps: u64,
    /// The container announced more packets than the file holds.
    pub cut_off: bool,
}

impl Reader {
    /// Opens a clip.
    ///
    /// # Errors
    /// See [`Info`]: no clip, no picture, no decoder; [`Error::File`] with a hint for high dynamic
    /// range, unless it is to be mapped.
    pub fn open(path: &Path, options: ReadOptions) -> Result<Self> {
        let (mut input, info) = source::open(path)?;
        refuse_hdr(&info.tags, path, options)?;
        for mut stream in input.streams_mut() {
            if stream.index() != info.stream {
                discard(&mut stream);
            }
        }
        let parameters = input.stream(info.stream).map(|s| s.parameters());
        let Some(parameters) = parameters else { return Err(Error::file(path, "the video stream is gone")) };
        let mut context = ffmpeg::codec::Context::from_parameters(parameters)
            .map_err(|e| ff::failed(path, "its coding is not understood", e))?;
        context.set_threading(threading::Config {
            kind: threading::Type::Frame,
            count: 0,
            ..Default::default()
        });
        let decoder = context.decoder().video().map_err(|e| {
            ff::failed(path, &format!("no decoder for {}", info.codec), e)
                .hint("this FFmpeg was built without it; convert the clip with one that has it")
        })?;
        Ok(Self {
            input,
            decoder,
            info,
            options,
            waiting: VecDeque::new(),
            packets: 0,
            drained: false,
            layout: None,
            damage: Damage::default(),
        })
    }

    /// What is known of the clip.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// What was wrong so far.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// The next frame in order of presentation; `None` at the end.
    ///
    /// # Errors
    /// A picture size that changes, pictures that cannot be read, a clip without a single frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        while self.waiting.len() < 2 && !self.drained {
            match self.decode()? {
                Some(frame) => self.waiting.push_back(frame),
                None => self.drained = true,
            }
        }
        let next = self.waiting.get(1).map(|f| f.stamp.pts);
        let Some(mut frame) = self.waiting.pop_front() else { return Ok(None) };
        frame.stamp.duration = match next {
            Some(next) => next - frame.stamp.pts,
            None => self.last_duration(frame.stamp),
        };
        Ok(Some(frame))
    }

    /// How long the last frame is shown: to the stream's end where the container is complete and
    /// says it, else what its packet says, else an average frame.
    fn last_duration(&self, stamp: Stamp) -> i64 {
        let stream = self.input.stream(self.info.stream);
        let end = stream
            .filter(|s| s.duration() > 0 && !self.damage.cut_off && self.damage.packets == 0)
            .map(|s| s.start_time().max(i64::MIN / 2).saturating_add(s.duration()).saturating_sub(stamp.pts));
        let known = |d: &i64| (1..i64::from(i32::MAX)).contains(d);
        end.filter(known)
            .or(Some(stamp.duration).filter(known))
            .unwrap_or_else(|| ticks_of_frame(self.info.time_base, self.info.rate))
    }

    /// The next decoded picture, its duration as the packet says.
    fn decode(&mut self) -> Result<Option<Frame>> {
        let mut raw = frame::Video::empty();
        loop {
            match self.decoder.receive_frame(&mut raw) {
                Ok(()) => return self.convert(&raw).map(Some),
                Err(ffmpeg::Error::Eof) => return self.end().map(|()| None),
                Err(ffmpeg::Error::Other { errno: ffmpeg::error::EAGAIN }) => self.feed()?,
                Err(_) => self.damage.packets += 1,
            }
        }
    }

    /// Hands one packet of the video stream, or the end, to the decoder.
    fn feed(&mut self) -> Result<()> {
        let mut packet = Packet::empty();
        loop {
            match packet.read(&mut self.input) {
                Ok(()) if packet.stream() != self.info.stream => {}
                Ok(()) => break,
                Err(_) => {
                    self.decoder.send_eof().map_err(|e| ff::failed(&self.info.path, "decoding", e))?;
                    return Ok(());
                }
            }
        }
        self.packets += 1;
        match self.decoder.send_packet(&packet) {
            Ok(()) => Ok(()),
            // A damaged packet: the decoder goes on with the next.
            Err(_) => {
                self.damage.packets += 1;
                Ok(())
            }
        }
    }

    fn end(&mut self) -> Result<()> {
        let announced = self.input.stream(self.info.stream).map_or(0, |s| s.frames());
        self.damage.cut_off = u64::try_from(announced).is_ok_and(|n| n > self.packets);
        if self.layout.is_none() {
            let reason = match (self.packets, self.damage.packets) {
                (0, _) => "its video stream holds no frame".to_owned(),
                (n, _) => format!("none of its {n} video packets could be decoded"),
            };
            return Err(Error::file(&self.info.path, reason).hint("check that a player shows it"));
        }
        Ok(())
    }

    fn convert(&mut self, raw: &frame::Video) -> Result<Frame> {
        let format = raw.format();
        let path = self.info.path.clone();
        let first = self.layout.is_none();
        if self.layout.as_ref().is_none_or(|l| l.0 != format) {
            self.layout = Some((format, Layout::of(format)?));
        }
        let stored = (raw.width() as usize, raw.height() as usize);
        if first {
            self.first_frame(raw, stored)?;
        } else if self.info.turn.size(stored) != self.info.size {
            let (from, to) = (self.info.size, self.info.turn.size(stored));
            return Err(Error::file(
                &path,
                format!(
                    "the picture's size changes from {}x{} to {}x{} in the middle",
                    from.0, from.1, to.0, to.1
                ),
            )
            .hint("scale it to one size first: ffmpeg -i in.mp4 -vf scale=W:H -c:a copy out.mkv"));
        }
        let Some((_, layout)) = &self.layout else { return Err(Error::Failed("no pixel format".into())) };
        let tags = frame_tags(raw, layout, &self.info.tags);
        let mut picture = self.info.turn.apply(layout::unpack(raw, layout, &tags)?);
        if self.options.tonemap && tags.is_hdr() {
            tonemap::apply(&mut picture, &tags);
        }
        let stamp = self.stamp(raw);
        Ok(Frame { picture, stamp })
    }

    /// What only the first frame tells for certain.
    fn first_frame(&mut self, raw: &frame::Video, stored: (usize, usize)) -> Result<()> {
        source::check_size(&self.info.path, stored)?;
        self.info.size = self.info.turn.size(stored);
        if let Some((_, layout)) = &self.layout {
            self.info.tags = frame_tags(raw, layout, &self.info.tags);
            self.info.pixel_format.clone_from(&layout.name);
        }
        self.info.interlaced |= raw.is_interlaced();
        refuse_hdr(&self.info.tags, &self.info.path, self.options)
    }

    /// The frame's time; one that is missing or not after its predecessor's becomes the next.
    fn stamp(&mut self, raw: &frame::Video) -> Stamp {
        let typical = ticks_of_frame(self.info.time_base, self.info.rate);
        let duration = raw.packet().duration;
        let before = self.waiting.back().map(|f| f.stamp);
        let pts = match (raw.timestamp().or_else(|| raw.pts()), before) {
            (Some(pts), Some(before)) if pts > before.pts => pts,
            (Some(pts), None) => pts,
            (_, before) => {
                self.damage.stamps += 1;
                before.map_or(0, |b| b.pts + if b.duration > 0 { b.duration } else { typical })
            }
        };
        Stamp { pts, duration }
    }
}

/// Tags of the frame, or where it is silent of the container.
fn frame_tags(raw: &frame::Video, layout: &Layout, container: &Tags) -> Tags {
    use ffmpeg::chroma::Location;
    use ffmpeg::color::{Primaries, Range, Space, TransferCharacteristic as Transfer};
    let or = |silent: bool, a, b| if silent { b } else { a };
    let (space, primaries, transfer) =
        (raw.color_space(), raw.color_primaries(), raw.color_transfer_characteristic());
    let range = match raw.color_range() {
        _ if layout.is_full_by_name() => Range::JPEG,
        Range::Unspecified if container.range == Range::Unspecified && layout.is_gray() => Range::JPEG,
        Range::Unspecified => container.range,
        range => range,
    };
    Tags {
        space: if space == Space::Unspecified { container.space } else { space },
        range,
        primaries: if primaries == Primaries::Unspecified { container.primaries } else { primaries },
        transfer: if transfer == Transfer::Unspecified { container.transfer } else { transfer },
        location: or(
            raw.chroma_location() == Location::Unspecified,
            raw.chroma_location(),
            container.location,
        ),
    }
}

fn refuse_hdr(tags: &Tags, path: &Path, options: ReadOptions) -> Result<()> {
    if !tags.is_hdr() || options.tonemap {
        return Ok(());
    }
    let curve = tags.transfer.name().unwrap_or("high dynamic range");
    Err(Error::file(path, format!("high dynamic range ({curve}); the editor works in standard range"))
        .hint("map it to standard range with --tonemap, or convert the clip first"))
}

fn discard(stream: &mut ffmpeg::StreamMut<'_>) {
    // SAFETY: the stream belongs to the open input.
    unsafe { (*stream.as_mut_ptr()).discard = ffmpeg::ffi::AVDiscard::AVDISCARD_ALL };
}

/// All times of a clip, without its pictures: what `ffprobe -show_frames` would list.
///
/// # Errors
/// As [`Reader::next_frame`].
pub fn stamps(path: &Path) -> Result<(Ratio, Vec<Stamp>)> {
    let mut reader = Reader::open(path, ReadOptions { tonemap: true })?;
    let mut all = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        all.push(frame.stamp);
    }
    Ok((reader.info.time_base, all))
}
