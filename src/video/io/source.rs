//! A clip, opened: which of its streams is the picture, how it is coded, what else it carries.

use std::path::{Path, PathBuf};

use ffmpeg::codec::packet::side_data::Type as SideData;
use ffmpeg::format::context::Input;
use ffmpeg::format::stream::Disposition;
use ffmpeg::media::Type as Medium;
use ffmpeg_next as ffmpeg;

use super::clock::Ratio;
use super::color::Tags;
use super::turn::Turn;
use super::{ff, images};
use crate::{Error, Result};

/// Pictures beyond this many pixels are refused before anything is decoded.
pub const MAX_PIXELS: u64 = 1 << 26;

/// What is known of a clip before it is decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// The file.
    pub path: PathBuf,
    /// Index of the picture's stream.
    pub stream: usize,
    /// Columns and rows as displayed.
    pub size: (usize, usize),
    /// How the stored picture is turned for display.
    pub turn: Turn,
    /// Seconds a tick of the time stamps.
    pub time_base: Ratio,
    /// Average frames a second, where the container knows.
    pub rate: Option<Ratio>,
    /// Number of frames, where it can be known or estimated.
    pub frames: Option<u64>,
    /// Shape of a pixel, 1/1 if square, as displayed.
    pub aspect: Option<Ratio>,
    /// Colour tags as the container has them.
    pub tags: Tags,
    /// The codec's name.
    pub codec: String,
    /// The pixel format's name, `none` if the file did not say.
    pub pixel_format: String,
    /// Fields instead of frames.
    pub interlaced: bool,
    /// Other streams: index and what they are.
    pub others: Vec<(usize, String)>,
}

impl Info {
    /// What is known of pictures that are made here, `rate` a second: there is no source.
    pub fn made(size: (usize, usize), rate: u32, alpha: bool) -> Self {
        Self {
            path: PathBuf::new(),
            stream: 0,
            size,
            turn: Turn::NONE,
            time_base: Ratio { num: 1, den: rate as i32 },
            rate: Some(Ratio { num: rate as i32, den: 1 }),
            frames: None,
            aspect: None,
            tags: Tags::SRGB,
            codec: String::new(),
            pixel_format: if alpha { "rgba" } else { "rgb24" }.into(),
            interlaced: false,
            others: Vec::new(),
        }
    }
}

/// Opens a clip or a series of pictures and finds the picture's stream.
///
/// # Errors
/// [`Error::Io`], and [`Error::File`] for what is no clip, is incomplete or has no picture.
pub(super) fn open(path: &Path) -> Result<(Input, Info)> {
    ff::init();
    if !images::is_series(path) {
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if meta.len() == 0 {
            return Err(Error::file(path, "the file is empty"));
        }
    }
    let input = images::open(path)?;
    let info = describe(path, &input)?;
    Ok((input, info))
}

/// What FFmpeg's refusal to open a file means.
pub(super) fn explain_open(path: &Path, error: ffmpeg::Error) -> Error {
    match error {
        ffmpeg::Error::InvalidData => {
            Error::file(path, "not a video, or one that was cut off before its index was written")
                .hint("check that the file was copied completely and that a player can open it")
        }
        error => ff::failed(path, "cannot be opened", error),
    }
}

fn describe(path: &Path, input: &Input) -> Result<Info> {
    let best = input.streams().best(Medium::Video).filter(|s| !is_cover(s));
    let stream =
        best.or_else(|| input.streams().find(|s| s.parameters().medium() == Medium::Video && !is_cover(s)));
    let Some(stream) = stream else {
        let kinds: Vec<_> = input.streams().map(|s| kind(&s)).collect();
        let has = if kinds.is_empty() { "nothing".into() } else { kinds.join(", ") };
        return Err(Error::file(path, format!("there is no video stream in it, only {has}"))
            .hint("give a file with a picture"));
    };
    let parameters = stream.parameters();
    // SAFETY: the parameters belong to the open stream.
    let raw = unsafe { &*parameters.as_ptr() };
    let stored = (raw.width.max(0) as usize, raw.height.max(0) as usize);
    check_size(path, stored)?;
    let turn = turn(path, &stream)?;
    let aspect = Ratio::from(ffmpeg::Rational::from(raw.sample_aspect_ratio)).positive();
    let aspect = aspect.map(|a| if turn.transposes() { Ratio { num: a.den, den: a.num } } else { a });
    let tags = Tags {
        space: raw.color_space.into(),
        range: raw.color_range.into(),
        primaries: raw.color_primaries.into(),
        transfer: raw.color_trc.into(),
        location: raw.chroma_location.into(),
    };
    let rate = [stream.avg_frame_rate(), stream.rate()].into_iter().find_map(|r| Ratio::from(r).positive());
    Ok(Info {
        path: path.to_owned(),
        stream: stream.index(),
        size: turn.size(stored),
        turn,
        time_base: Ratio::from(stream.time_base()).positive().unwrap_or(Ratio { num: 1, den: 90_000 }),
        rate,
        frames: frames(input, &stream, rate),
        aspect,
        tags,
        codec: parameters.id().name().to_owned(),
        pixel_format: pixel_format(raw.format),
        interlaced: !matches!(raw.field_order as u32, 0 | 1),
        others: input
            .streams()
            .filter(|s| s.index() != stream.index())
            .map(|s| (s.index(), kind(&s)))
            .collect(),
    })
}

/// # Errors
/// [`Error::File`] for pictures without pixels or with too many.
pub(super) fn check_size(path: &Path, (width, height): (usize, usize)) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::file(path, "the size of its picture is unknown; no frame could be decoded")
            .hint("check that the file is complete and that a player shows it"));
    }
    if width as u64 * height as u64 > MAX_PIXELS {
        return Err(Error::file(
            path,
            format!("{width}x{height} pixels are more than the limit of {MAX_PIXELS}"),
        )
        .hint("scale the clip down first"));
    }
    Ok(())
}

/// A still picture that an audio or video file carries along.
pub(super) fn is_cover(stream: &ffmpeg::Stream<'_>) -> bool {
    stream.disposition().contains(Disposition::ATTACHED_PIC)
}

fn turn(path: &Path, stream: &ffmpeg::Stream<'_>) -> Result<Turn> {
    let Some(data) = stream.side_data().find(|d| d.kind() == SideData::DisplayMatrix) else {
        return Ok(Turn::NONE);
    };
    let mut numbers = data.data().chunks_exact(4).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let matrix: [i32; 9] = std::array::from_fn(|_| numbers.next().unwrap_or(0));
    Turn::from_matrix(matrix).ok_or_else(|| {
        Error::file(path, format!("its display matrix {:?} is no turn by right angles", &matrix[..5]))
            .hint("remove it first: ffmpeg -display_rotation 0 -i in.mp4 -c copy out.mp4")
    })
}

fn frames(input: &Input, stream: &ffmpeg::Stream<'_>, rate: Option<Ratio>) -> Option<u64> {
    if stream.frames() > 0 {
        return u64::try_from(stream.frames()).ok();
    }
    let seconds = if stream.duration() > 0 {
        stream.duration() as f64 * Ratio::from(stream.time_base()).value()
    } else {
        (input.duration() > 0).then(|| input.duration() as f64 / 1e6)?
    };
    Some(((seconds * rate?.value()).round() as u64).max(1))
}

fn pixel_format(format: i32) -> String {
    // SAFETY: the table of names is static; an unknown number gives a null pointer.
    let name = unsafe {
        ffmpeg::ffi::av_get_pix_fmt_name(std::mem::transmute::<i32, ffmpeg::ffi::AVPixelFormat>(
            format.max(-1),
        ))
    };
    if name.is_null() {
        return "none".into();
    }
    // SAFETY: names are C strings.
    unsafe { std::ffi::CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// What a stream is, for messages.
pub(super) fn kind(stream: &ffmpeg::Stream<'_>) -> String {
    let parameters = stream.parameters();
    let medium = match parameters.medium() {
        Medium::Video if is_cover(stream) => "cover picture",
        Medium::Video => "video",
        Medium::Audio => "audio",
        Medium::Subtitle => "subtitles",
        Medium::Attachment => "attachment",
        Medium::Data | Medium::Unknown => "data",
    };
    format!("{medium} ({})", parameters.id().name())
}
