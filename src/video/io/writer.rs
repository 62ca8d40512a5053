//! Streaming encode and mux, onto the output's name only when complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ffmpeg::format::Pixel;
use ffmpeg::format::context::Output;
use ffmpeg::{Dictionary, Packet, codec, encoder, frame};
use ffmpeg_next as ffmpeg;

use super::clock::{Ratio, Stamp};
use super::codec::{Codec, Encoding};
use super::color::Tags;
use super::copy::Copier;
use super::ff;
use super::layout::{self, Layout};
use super::picture::Picture;
use super::series::Series;
use super::source::Info;
use crate::{Error, Result};

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Pictures.
    pub frames: u64,
    /// Bytes of the file, or of all files.
    pub bytes: u64,
    /// Streams that could not be carried, and other losses.
    pub left_out: Vec<String>,
}

/// Where pictures go: a file or a folder.
pub struct Writer(Kind);

enum Kind {
    File(Box<File>),
    Series(Series),
}

impl Writer {
    /// Checks, without writing, that `out` can be made from a clip at `source`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with a hint: the source itself, no such folder, an unknown ending, values
    /// that the encoder does not take.
    pub fn check(out: &Path, source: &Path, encoding: &Encoding) -> Result<()> {
        encoding.check()?;
        let wrong = |reason: String, hint: &str| {
            Err(Error::invalid(format!("--out {}", out.display()), reason).hint(hint))
        };
        if same_file(out, source) || (source.is_dir() && out.starts_with(source)) {
            return wrong("it is the source".into(), "the source is never touched; choose another name");
        }
        let parent = parent(out);
        if !parent.is_dir() {
            return wrong(format!("the folder {} does not exist", parent.display()), "create it first");
        }
        if encoding.codec == Codec::Png {
            return Series::check(out);
        }
        if out.is_dir() {
            return wrong("it is a folder".into(), "name a file in it, or write pictures with --codec png");
        }
        ff::init();
        let url = ff::url(out)?;
        let name = std::ffi::CString::new(url).map_err(|e| Error::Failed(e.to_string()))?;
        // SAFETY: a C string, and a static table.
        let format =
            unsafe { ffmpeg::ffi::av_guess_format(std::ptr::null(), name.as_ptr(), std::ptr::null()) };
        if format.is_null() {
            return wrong("its ending names no video format".into(), "for example .mp4, .mov, .mkv, .webm");
        }
        let Some(codec) = encoder::find_by_name(encoding.codec.encoder()) else {
            return Err(Error::Failed(format!("this FFmpeg has no {}", encoding.codec.encoder()))
                .hint("choose another --codec"));
        };
        // SAFETY: static tables.
        let answer = unsafe { ffmpeg::ffi::avformat_query_codec(format, codec.id().into(), -2) };
        if answer == 0 {
            let (name, container) = (encoding.codec.encoder(), encoding.codec.container());
            return wrong(format!("it cannot carry {name}"), &format!("write {container}"));
        }
        Ok(())
    }

    /// Starts an output of pictures of `size` for the clip `info` (as its reader knows it after the
    /// first frame).
    ///
    /// # Errors
    /// As [`Self::check`]; what encoder and muxer refuse.
    pub fn create(out: &Path, info: &Info, size: (usize, usize), encoding: &Encoding) -> Result<Self> {
        Self::check(out, &info.path, encoding)?;
        if encoding.codec == Codec::Png {
            return Series::create(out, info).map(|s| Self(Kind::Series(s)));
        }
        File::create(out, info, size, encoding).map(|f| Self(Kind::File(Box::new(f))))
    }

    /// Adds a picture.
    ///
    /// # Errors
    /// A picture of another size, what encoder and muxer refuse, a full disk.
    pub fn push(&mut self, picture: Picture, stamp: Stamp) -> Result<()> {
        match &mut self.0 {
            Kind::File(file) => file.push(picture, stamp),
            Kind::Series(series) => series.push(&picture, stamp),
        }
    }

    /// Completes the output and gives it its name.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(self) -> Result<Written> {
        match self.0 {
            Kind::File(file) => file.finish(),
            Kind::Series(series) => series.finish(),
        }
    }
}

struct File {
    out: PathBuf,
    part: tempfile::TempPath,
    output: Output,
    encoder: encoder::video::Encoder,
    copier: Option<Copier>,
    /// Index of the encoder's stream.
    index: usize,
    base: Ratio,
    format: Pixel,
    layout: Layout,
    tags: Tags,
    size: (usize, usize),
    background: [f32; 3],
    /// Durations of frames that are still in the encoder, by time.
    durations: BTreeMap<i64, i64>,
    written: Written,
}

impl File {
    fn create(out: &Path, info: &Info, size: (usize, usize), encoding: &Encoding) -> Result<Self> {
        let codec = encoder::find_by_name(encoding.codec.encoder())
            .ok_or_else(|| Error::Failed(format!("this FFmpeg has no {}", encoding.codec.encoder())))?;
        let source = Layout::of(info.pixel_format.parse().unwrap_or(Pixel::YUV420P))?;
        let format = encoding.pixel(&source, size, codec)?;
        let layout = Layout::of(format)?;
        let tags = output_tags(info, &source, &layout);
        let part = temporary(out)?;
        let mut output =
            ffmpeg::format::output(&ff::url(&part)?).map_err(|e| ff::failed(out, "cannot be written", e))?;
        // SAFETY: the context is open; FLAC in MP4 and the like count as experimental in old versions.
        unsafe { (*output.as_mut_ptr()).strict_std_compliance = -2 };
        if ["matroska", "webm", "nut"].contains(&output.format().name()) {
            // They carry times before zero but would rather move the whole clip.
            // SAFETY: as above.
            unsafe { (*output.as_mut_ptr()).avoid_negative_ts = 0 };
        }
        let global = output.format().flags().contains(ffmpeg::format::flag::Flags::GLOBAL_HEADER);
        let setup = Setup { info, size, format, tags: &tags, global };
        let encoder = setup.open(codec, encoding)?;
        let mut add = |output: &mut Output, metadata: Option<Dictionary<'static>>| {
            add_video(output, &encoder, info, metadata).map_err(|e| ff::failed(out, "adding the picture", e))
        };
        let mut copier = Copier::open(info)?;
        let (index, mut left_out) = match &mut copier {
            Some(copier) => copier.add_streams(&mut output, info, encoding.drop_uncopyable, &mut add)?,
            None => (add(&mut output, None)?, Vec::new()),
        };
        if source.has_alpha() && !layout.has_alpha() {
            left_out.push(format!("transparency: {} carries none", encoding.codec.encoder()));
        }
        let bases = copier.as_ref().map(Copier::time_bases).unwrap_or_default();
        output.write_header_with(muxer_options(info.time_base, &bases)).map_err(|e| {
            ff::failed(out, "the container refuses these streams", e)
                .hint("write .mkv, which carries nearly everything")
        })?;
        Ok(Self {
            out: out.to_owned(),
            part,
            output,
            encoder,
            copier,
            index,
            base: info.time_base,
            format,
            layout,
            tags,
            size,
            background: encoding.background,
            durations: BTreeMap::new(),
            written: Written { left_out, ..Written::default() },
        })
    }

    fn push(&mut self, picture: Picture, stamp: Stamp) -> Result<()> {
        if (picture.width, picture.height) != self.size {
            let (w, h) = self.size;
            return Err(Error::Failed(format!(
                "a picture of {}x{} in a clip of {w}x{h}",
                picture.width, picture.height
            )));
        }
        let picture = if self.layout.has_alpha() { picture } else { picture.flattened(self.background) };
        let mut frame = frame::Video::new(self.format, self.size.0 as u32, self.size.1 as u32);
        layout::pack(&picture, &mut frame, &self.layout, &self.tags)?;
        frame.set_pts(Some(stamp.pts));
        frame.set_color_space(self.tags.space);
        frame.set_color_range(self.tags.range);
        frame.set_color_primaries(self.tags.primaries);
        frame.set_color_transfer_characteristic(self.tags.transfer);
        self.durations.insert(stamp.pts, stamp.duration);
        self.encoder.send_frame(&frame).map_err(|e| ff::failed(&self.out, "encoding", e))?;
        self.written.frames += 1;
        self.drain()
    }

    /// Writes what the encoder has ready, and of the other streams what belongs before it.
    fn drain(&mut self) -> Result<()> {
        let mut packet = Packet::empty();
        loop {
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => {}
                Err(ffmpeg::Error::Eof | ffmpeg::Error::Other { errno: ffmpeg::error::EAGAIN }) => {
                    return Ok(());
                }
                Err(e) => return Err(ff::failed(&self.out, "encoding", e)),
            }
            // Encoders forget durations, and muxers need the last one.
            let duration = packet.pts().and_then(|pts| self.durations.remove(&pts));
            packet.set_duration(duration.unwrap_or(packet.duration()));
            if let (Some(copier), Some(dts)) = (&mut self.copier, packet.dts()) {
                copier.pump(&mut self.output, Some((dts, self.base)), &self.out)?;
            }
            let to = self.output.stream(self.index).map_or(self.base.into(), |s| s.time_base());
            packet.rescale_ts(self.base, to);
            packet.set_stream(self.index);
            packet.write_interleaved(&mut self.output).map_err(|e| ff::failed(&self.out, "writing", e))?;
        }
    }

    fn finish(mut self) -> Result<Written> {
        self.encoder.send_eof().map_err(|e| ff::failed(&self.out, "encoding", e))?;
        self.drain()?;
        if let Some(copier) = &mut self.copier {
            copier.pump(&mut self.output, None, &self.out)?;
        }
        self.output.write_trailer().map_err(|e| ff::failed(&self.out, "writing", e))?;
        let Self { out, part, output, mut written, .. } = self;
        // Closes the file, so that everything is in it.
        drop(output);
        let io = |e| Error::io(&out, e);
        let file = fs::File::open(&part).map_err(io)?;
        file.sync_all().map_err(io)?;
        written.bytes = file.metadata().map_err(io)?.len();
        part.persist(&out).map_err(|e| io(e.error))?;
        Ok(written)
    }
}

/// What an encoder is opened with.
struct Setup<'a> {
    info: &'a Info,
    size: (usize, usize),
    format: Pixel,
    tags: &'a Tags,
    global: bool,
}

impl Setup<'_> {
    fn open(&self, codec: ffmpeg::Codec, encoding: &Encoding) -> Result<encoder::video::Encoder> {
        let name = encoding.codec.encoder();
        let refused = |e| Error::Failed(format!("{name}: {e}"));
        let mut context = codec::Context::new_with_codec(codec).encoder().video().map_err(refused)?;
        context.set_width(self.size.0 as u32);
        context.set_height(self.size.1 as u32);
        context.set_format(self.format);
        context.set_time_base(self.info.time_base);
        context.set_frame_rate(self.info.rate.map(ffmpeg::Rational::from));
        if let Some(aspect) = self.info.aspect {
            context.set_aspect_ratio(aspect);
        }
        context.set_colorspace(self.tags.space);
        context.set_color_range(self.tags.range);
        context.set_color_primaries(self.tags.primaries);
        context.set_color_transfer_characteristic(self.tags.transfer);
        // SAFETY: the context is allocated and not yet open.
        unsafe { (*context.as_mut_ptr()).chroma_sample_location = self.tags.location.into() };
        if self.global {
            context.set_flags(codec::Flags::GLOBAL_HEADER);
        }
        context.open_with(encoding.options()).map_err(|e| {
            let (w, h) = self.size;
            Error::Failed(format!("{name} does not take {w}x{h} in {:?}: {e}", self.format))
                .hint("choose another --codec (ffv1 and png take any size) or --pix-fmt")
        })
    }
}

fn add_video(
    output: &mut Output,
    encoder: &encoder::video::Encoder,
    info: &Info,
    metadata: Option<Dictionary<'static>>,
) -> Result<usize, ffmpeg::Error> {
    let mut stream = output.add_stream(codec::Id::None)?;
    // SAFETY: the encoder is open; its parameters are copied into the stream.
    let code = unsafe {
        let raw = stream.as_mut_ptr();
        (*raw).sample_aspect_ratio = (*encoder.as_ptr()).sample_aspect_ratio;
        ffmpeg::ffi::avcodec_parameters_from_context((*raw).codecpar, encoder.as_ptr())
    };
    if code < 0 {
        return Err(code.into());
    }
    stream.set_time_base(info.time_base);
    if let Some(rate) = info.rate {
        stream.set_avg_frame_rate(rate);
        stream.set_rate(rate);
    }
    if let Some(metadata) = metadata {
        stream.set_metadata(metadata);
    }
    Ok(stream.index())
}

/// The output's tags: the source's, except that RGB becomes BT.709 and mapped HDR is sRGB.
fn output_tags(info: &Info, source: &Layout, layout: &Layout) -> Tags {
    use ffmpeg::color::{Range, Space};
    let mut tags = if info.tags.is_hdr() || (source.rgb && !layout.rgb) { Tags::SRGB } else { info.tags };
    if layout.rgb {
        (tags.space, tags.range) = (Space::RGB, Range::JPEG);
    }
    tags
}

/// MP4 keeps its edit lists in a time base of its own, 1/1000 if not told: too coarse for the start
/// of a stream. One that all streams' bases divide keeps them exact.
fn muxer_options(base: Ratio, others: &[Ratio]) -> Dictionary<'static> {
    let mut scale = i64::from(base.den);
    for other in others.iter().map(|o| i64::from(o.den)) {
        let common = scale / gcd(scale, other) * other;
        if common <= i64::from(i32::MAX) {
            scale = common;
        }
    }
    let mut options = Dictionary::new();
    options.set("movie_timescale", &scale.to_string());
    options
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// Where an unfinished output waits: in its job's folder, if it has one, so that what a killed run leaves is
/// removed with that; else beside it.
pub(super) fn waiting_room(out: &Path) -> PathBuf {
    let job = crate::video::ticket::folder(out);
    if job.is_dir() { job } else { parent(out).to_owned() }
}

/// A temporary name near the output, with its ending.
fn temporary(out: &Path) -> Result<tempfile::TempPath> {
    let ending = out.extension().and_then(|e| e.to_str()).map(|e| format!(".{e}")).unwrap_or_default();
    let mut builder = tempfile::Builder::new();
    builder.prefix(".gen3d-").suffix(&ending);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let folder = &waiting_room(out);
    let file = builder.tempfile_in(folder).map_err(|e| {
        Error::io(folder, e).hint("choose a folder that you may write to, on a disk that has space")
    })?;
    Ok(file.into_temp_path())
}

pub(super) fn parent(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The same file, under whatever name.
fn same_file(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        match (fs::metadata(a), fs::metadata(b)) {
            (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
            _ => false,
        }
    }
    #[cfg(not(unix))]
    {
        matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
    }
}
