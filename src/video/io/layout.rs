//! Pixel formats: where the components of a pixel lie, and pictures in and out of them.
//!
//! One reader and one writer serve every format that FFmpeg can describe: planar and packed, Y'CbCr,
//! RGB and grey, 8 to 16 bit, either byte order, with alpha, and palettes. No scaler is involved, so
//! whole codes come back as the codes they were.

use ffmpeg_next::ffi::{
    AV_PIX_FMT_FLAG_ALPHA, AV_PIX_FMT_FLAG_BAYER, AV_PIX_FMT_FLAG_BE, AV_PIX_FMT_FLAG_BITSTREAM,
    AV_PIX_FMT_FLAG_FLOAT, AV_PIX_FMT_FLAG_HWACCEL, AV_PIX_FMT_FLAG_PAL, AV_PIX_FMT_FLAG_RGB,
};
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame;
use rayon::prelude::*;

use super::chroma::{self, Plane, Sampling};
use super::color::{Coding, Scale, Tags};
use super::picture::Picture;
use crate::{Error, Result};

/// Where one component of a pixel lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Component {
    plane: usize,
    step: usize,
    offset: usize,
    shift: u32,
    depth: u32,
}

/// A pixel format, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// FFmpeg's name.
    pub(super) name: String,
    /// Colour components, without alpha: 1 grey, 3 colour.
    colors: Vec<Component>,
    alpha: Option<Component>,
    /// log2 of the chroma subsampling factors.
    pub(super) log2: (u8, u8),
    /// Red, green and blue instead of luma and differences.
    pub(super) rgb: bool,
    palette: bool,
    big_endian: bool,
}

impl Layout {
    /// # Errors
    /// [`Error::Failed`] for formats that no picture can be read from: hardware surfaces, one bit a
    /// pixel, floats, Bayer patterns.
    pub(super) fn of(format: Pixel) -> Result<Self> {
        let unsupported = |what: &str| {
            Error::Failed(format!("pixel format {what} is not supported"))
                .hint("convert the clip first, for example: ffmpeg -i in.mp4 -pix_fmt yuv420p out.mp4")
        };
        let Some(descriptor) = format.descriptor() else { return Err(unsupported("none")) };
        // SAFETY: FFmpeg's table of descriptors is static.
        let d = unsafe { &*descriptor.as_ptr() };
        let name = descriptor.name().to_owned();
        let has = |flag: i32| d.flags & flag as u64 != 0;
        let odd = AV_PIX_FMT_FLAG_HWACCEL
            | AV_PIX_FMT_FLAG_BITSTREAM
            | AV_PIX_FMT_FLAG_FLOAT
            | AV_PIX_FMT_FLAG_BAYER;
        if has(odd) || d.nb_components == 0 || name.starts_with("xyz") {
            return Err(unsupported(&name));
        }
        let component = |i: usize| Component {
            plane: d.comp[i].plane as usize,
            step: d.comp[i].step as usize,
            offset: d.comp[i].offset as usize,
            shift: d.comp[i].shift as u32,
            depth: d.comp[i].depth as u32,
        };
        let n = usize::from(d.nb_components);
        let palette = has(AV_PIX_FMT_FLAG_PAL);
        let with_alpha = has(AV_PIX_FMT_FLAG_ALPHA) && !palette;
        let colors: Vec<_> = (0..n - usize::from(with_alpha)).map(component).collect();
        if !matches!(colors.len(), 1 | 3) || colors.iter().any(|c| c.depth > 16) {
            return Err(unsupported(&name));
        }
        Ok(Self {
            name,
            colors,
            alpha: with_alpha.then(|| component(n - 1)),
            log2: (d.log2_chroma_w, d.log2_chroma_h),
            rgb: has(AV_PIX_FMT_FLAG_RGB) || palette,
            palette,
            big_endian: has(AV_PIX_FMT_FLAG_BE),
        })
    }

    /// Bits of a component.
    pub(super) fn depth(&self) -> u32 {
        self.colors.iter().map(|c| c.depth).max().unwrap_or(8)
    }

    /// A pixel may be transparent.
    pub(super) fn has_alpha(&self) -> bool {
        self.alpha.is_some() || self.palette
    }

    /// Luma only.
    pub(super) fn is_gray(&self) -> bool {
        self.colors.len() == 1 && !self.palette
    }

    /// The old full-range formats say the range in their name.
    pub(super) fn is_full_by_name(&self) -> bool {
        self.name.starts_with("yuvj")
    }

    fn sampling(&self, tags: &Tags) -> Sampling {
        Sampling { log2: self.log2, siting: tags.siting() }
    }
}

/// The picture of a decoded frame.
pub(super) fn unpack(frame: &frame::Video, layout: &Layout, tags: &Tags) -> Result<Picture> {
    let size = (frame.width() as usize, frame.height() as usize);
    if layout.palette {
        return Ok(unpack_palette(frame, size));
    }
    let alpha = layout.alpha.map(|c| numbers(frame, layout, c, size, Scale::luma(c.depth, true)).data);
    let read = |c: Component, size, scale| numbers(frame, layout, c, size, scale);
    let full = tags.range == ffmpeg_next::color::Range::JPEG;
    let rgb = match layout.colors[..] {
        [gray] => read(gray, size, Scale::luma(gray.depth, full)).data.repeat(3),
        [r, g, b] if layout.rgb => {
            // An untagged RGB clip is full range; no one but a tag makes it limited.
            let full = tags.range != ffmpeg_next::color::Range::MPEG;
            [r, g, b].map(|c| read(c, size, Scale::luma(c.depth, full)).data).concat()
        }
        [y, cb, cr] => {
            let coding = Coding::of(tags, size.1)?;
            let small = chroma::subsampled(size, layout.log2);
            let luma = read(y, size, Scale::luma(y.depth, full));
            let differences = [cb, cr].map(|c| {
                chroma::up(read(c, small, Scale::chroma(c.depth, full)), size, layout.sampling(tags))
            });
            colors([&luma.data, &differences[0].data, &differences[1].data], |ycc| coding.to_rgb(ycc))
        }
        _ => return Err(Error::Failed(format!("pixel format {} is not supported", layout.name))),
    };
    Ok(Picture { width: size.0, height: size.1, rgb, alpha })
}

/// Writes the picture's codes into `frame`, which has the layout's format and the picture's size.
pub(super) fn pack(picture: &Picture, frame: &mut frame::Video, layout: &Layout, tags: &Tags) -> Result<()> {
    let size = (picture.width, picture.height);
    let full = tags.range == ffmpeg_next::color::Range::JPEG;
    // Encoders read whole words: what no component writes (padding of 10 bits in 16) must be zero.
    (0..frame.planes()).for_each(|plane| frame.data_mut(plane).fill(0));
    if let Some(c) = layout.alpha {
        let opaque = vec![1.0; size.0 * size.1];
        let data = picture.alpha.as_ref().unwrap_or(&opaque);
        store(frame, layout, c, size, data, Scale::luma(c.depth, true));
    }
    match layout.colors[..] {
        [gray] => store(frame, layout, gray, size, &picture.luma(), Scale::luma(gray.depth, full)),
        [r, g, b] if layout.rgb => {
            let full = tags.range != ffmpeg_next::color::Range::MPEG;
            for (channel, c) in [r, g, b].into_iter().enumerate() {
                store(frame, layout, c, size, picture.plane(channel), Scale::luma(c.depth, full));
            }
        }
        [y, cb, cr] => {
            let coding = Coding::of(tags, size.1)?;
            let planes = [0, 1, 2].map(|c| picture.plane(c));
            let ycc = colors(planes, |rgb| coding.encode_rgb(rgb));
            let n = size.0 * size.1;
            store(frame, layout, y, size, &ycc[..n], Scale::luma(y.depth, full));
            for (i, c) in [(1, cb), (2, cr)] {
                let plane = Plane { data: ycc[i * n..(i + 1) * n].to_vec(), width: size.0, height: size.1 };
                let small = chroma::down(plane, layout.sampling(tags));
                store(
                    frame,
                    layout,
                    c,
                    (small.width, small.height),
                    &small.data,
                    Scale::chroma(c.depth, full),
                );
            }
        }
        _ => return Err(Error::Failed(format!("pixel format {} is not supported", layout.name))),
    }
    Ok(())
}

/// Three planes through a function of a pixel.
fn colors(planes: [&[f32]; 3], f: impl Fn([f32; 3]) -> [f32; 3] + Sync) -> Vec<f32> {
    const CHUNK: usize = 1 << 14;
    let n = planes[0].len();
    let mut out = vec![0.0; 3 * n];
    let (first, rest) = out.split_at_mut(n);
    let (second, third) = rest.split_at_mut(n);
    first
        .par_chunks_mut(CHUNK)
        .zip(second.par_chunks_mut(CHUNK))
        .zip(third.par_chunks_mut(CHUNK))
        .enumerate()
        .for_each(|(chunk, ((a, b), c))| {
            for i in 0..a.len() {
                let at = chunk * CHUNK + i;
                [a[i], b[i], c[i]] = f([planes[0][at], planes[1][at], planes[2][at]]);
            }
        });
    out
}

/// One row of a plane. Strides may be negative: some decoders hand out pictures upside down.
fn row(frame: &frame::Video, plane: usize, y: usize, bytes: usize) -> &[u8] {
    // SAFETY: FFmpeg allocates |linesize| bytes for each row of a plane, and `bytes` does not exceed
    // what the format's own description needs for the width.
    unsafe {
        let raw = &*frame.as_ptr();
        let start = raw.data[plane].offset(y as isize * raw.linesize[plane] as isize);
        std::slice::from_raw_parts(start, bytes)
    }
}

/// Bytes from the start of a row to the end of a component's last sample.
fn extent(c: Component, width: usize) -> usize {
    (width - 1) * c.step + c.offset + bytes_of(c)
}

fn bytes_of(c: Component) -> usize {
    if c.depth + c.shift > 8 { 2 } else { 1 }
}

/// A component as numbers.
fn numbers(frame: &frame::Video, layout: &Layout, c: Component, size: (usize, usize), scale: Scale) -> Plane {
    let (width, height) = size;
    let mut data = vec![0.0; width * height];
    let mask = ((1u32 << c.depth) - 1) as u16;
    data.par_chunks_mut(width).enumerate().for_each(|(y, out)| {
        let row = row(frame, c.plane, y, extent(c, width));
        for (x, value) in out.iter_mut().enumerate() {
            let at = x * c.step + c.offset;
            let word = match (bytes_of(c), layout.big_endian) {
                (1, _) => u16::from(row[at]),
                (_, false) => u16::from_le_bytes([row[at], row[at + 1]]),
                (_, true) => u16::from_be_bytes([row[at], row[at + 1]]),
            };
            *value = scale.value(f32::from((word >> c.shift) & mask));
        }
    });
    Plane { data, width, height }
}

/// Numbers into a component's codes; other components' bits stay.
fn store(
    frame: &mut frame::Video,
    layout: &Layout,
    c: Component,
    size: (usize, usize),
    data: &[f32],
    scale: Scale,
) {
    let (width, height) = size;
    let mask = (((1u32 << c.depth) - 1) as u16) << c.shift;
    for y in 0..height {
        // SAFETY: as in `row`; the frame is borrowed mutably and was allocated here.
        let row = unsafe {
            let raw = &mut *frame.as_mut_ptr();
            let start = raw.data[c.plane].offset(y as isize * raw.linesize[c.plane] as isize);
            std::slice::from_raw_parts_mut(start, extent(c, width))
        };
        for (x, &value) in data[y * width..][..width].iter().enumerate() {
            let at = x * c.step + c.offset;
            let code = scale.code(value) << c.shift;
            if bytes_of(c) == 1 {
                row[at] = (row[at] & !(mask as u8)) | code as u8;
                continue;
            }
            let pair = [row[at], row[at + 1]];
            let word = if layout.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
            let word = (word & !mask) | code;
            let pair = if layout.big_endian { word.to_be_bytes() } else { word.to_le_bytes() };
            row[at..at + 2].copy_from_slice(&pair);
        }
    }
}

/// One byte a pixel into 256 colours of 32 bit, alpha first in native order.
fn unpack_palette(frame: &frame::Video, size: (usize, usize)) -> Picture {
    let n = size.0 * size.1;
    let mut picture = Picture::filled(size.0, size.1, [0.0; 3]);
    let mut alpha = vec![1.0; n];
    let table = row(frame, 1, 0, 1024);
    for y in 0..size.1 {
        for (x, &index) in row(frame, 0, y, size.0).iter().enumerate() {
            let at = usize::from(index) * 4;
            let argb = u32::from_ne_bytes([table[at], table[at + 1], table[at + 2], table[at + 3]]);
            let [a, r, g, b] = argb.to_be_bytes().map(|v| f32::from(v) / 255.0);
            let i = y * size.0 + x;
            alpha[i] = a;
            for (channel, value) in [r, g, b].into_iter().enumerate() {
                picture.rgb[channel * n + i] = value;
            }
        }
    }
    picture.alpha = Some(alpha);
    picture
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    /// Random codes in every component of a frame.
    fn noise(format: Pixel, layout: &Layout, size: (usize, usize)) -> frame::Video {
        let mut frame = frame::Video::new(format, size.0 as u32, size.1 as u32);
        (0..frame.planes()).for_each(|plane| frame.data_mut(plane).fill(0));
        let rng = Rng::new(3, Stream::Probe, 0);
        let mut index = 0;
        let components = layout.colors.iter().chain(&layout.alpha).copied().enumerate();
        for (i, c) in components {
            let chroma = (i == 1 || i == 2) && !layout.rgb;
            let size = if chroma { chroma::subsampled(size, layout.log2) } else { size };
            let scale = Scale::luma(c.depth, true);
            let data: Vec<f32> = (0..size.0 * size.1)
                .map(|_| {
                    index += 1;
                    rng.uniform(index)
                })
                .collect();
            store(&mut frame, layout, c, size, &data, scale);
        }
        frame
    }

    #[test]
    fn every_format_comes_back_code_for_code() {
        let names = [
            "yuv420p",
            "yuv422p",
            "yuv444p",
            "yuv411p",
            "yuv410p",
            "yuv440p",
            "nv12",
            "nv21",
            "yuyv422",
            "uyvy422",
            "yuv420p10le",
            "yuv422p10le",
            "yuv444p12le",
            "yuv444p16le",
            "p010le",
            "yuva444p10le",
            "yuva420p",
            "gbrp",
            "gbrp10le",
            "gbrap",
            "rgb24",
            "bgr24",
            "rgba",
            "bgra",
            "argb",
            "0rgb",
            "bgr0",
            "rgb48le",
            "rgb48be",
            "rgba64be",
            "rgb565le",
            "gray",
            "gray10le",
            "gray16be",
            "ya8",
        ];
        for name in names {
            let format: Pixel = name.parse().unwrap();
            let layout = Layout::of(format).unwrap();
            for size in [(1, 1), (7, 5), (16, 12)] {
                let frame = noise(format, &layout, size);
                let tags = Tags::SRGB;
                let picture = unpack(&frame, &layout, &tags).unwrap();
                assert_eq!(picture.alpha.is_some(), layout.has_alpha(), "{name}");
                let mut back = frame::Video::new(format, size.0 as u32, size.1 as u32);
                (0..back.planes()).for_each(|plane| back.data_mut(plane).fill(0xff));
                pack(&picture, &mut back, &layout, &tags).unwrap();
                for c in layout.colors.iter().chain(&layout.alpha) {
                    let chroma = layout.colors[1..].contains(c) && !layout.rgb;
                    let (w, h) = if chroma { chroma::subsampled(size, layout.log2) } else { size };
                    for y in 0..h {
                        // Whole bytes, with what is padding in them.
                        let of = |f: &frame::Video| row(f, c.plane, y, extent(*c, w)).to_vec();
                        assert_eq!(of(&frame), of(&back), "{name} {size:?} {c:?} row {y}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_has_no_pixels_is_refused() {
        for name in ["monow", "gbrpf32le", "bayer_bggr8", "vaapi"] {
            let error = Layout::of(name.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains(name) && error.hint_text().is_some());
        }
    }
}
