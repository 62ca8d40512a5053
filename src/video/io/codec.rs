//! Encoders: their names, options and pixel formats.

use ffmpeg::Dictionary;
use ffmpeg::format::Pixel;
use ffmpeg_next as ffmpeg;

use super::layout::Layout;
use crate::{Error, Result};

/// What a clip is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// H.264 by x264: plays everywhere
    X264,
    /// HEVC by x265: smaller
    X265,
    /// Apple ProRes, for editing, in .mov; carries transparency
    Prores,
    /// FFV1, without loss, in .mkv; carries transparency
    Ffv1,
    /// AV1 by SVT-AV1: smallest
    SvtAv1,
    /// A folder of PNG pictures, without loss; carries transparency
    Png,
}

/// How a clip is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoding {
    /// The encoder.
    pub codec: Codec,
    /// Constant rate factor, where the encoder has one: 0 is best.
    pub crf: Option<f32>,
    /// Speed against size (x264, x265, SVT-AV1), profile (ProRes).
    pub preset: Option<String>,
    /// FFmpeg's name of a pixel format, instead of the nearest to the source's.
    pub pixel_format: Option<String>,
    /// What shows through where the encoder cannot carry transparency.
    pub background: [f32; 3],
    /// Leave out streams that the output's container cannot carry, instead of refusing.
    pub drop_uncopyable: bool,
}

impl Default for Encoding {
    fn default() -> Self {
        Self {
            codec: Codec::X264,
            crf: None,
            preset: None,
            pixel_format: None,
            background: [0.0; 3],
            drop_uncopyable: false,
        }
    }
}

const X26X_PRESETS: [&str; 10] = [
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
];
const PRORES_PROFILES: [&str; 6] = ["proxy", "lt", "standard", "hq", "4444", "4444xq"];

impl Codec {
    /// FFmpeg's name of the encoder.
    pub(super) fn encoder(self) -> &'static str {
        match self {
            Self::X264 => "libx264",
            Self::X265 => "libx265",
            Self::Prores => "prores_ks",
            Self::Ffv1 => "ffv1",
            Self::SvtAv1 => "libsvtav1",
            Self::Png => "png",
        }
    }

    /// The container to choose if the one that was asked for does not carry it.
    pub(super) fn container(self) -> &'static str {
        match self {
            Self::X264 | Self::X265 | Self::SvtAv1 => ".mp4 or .mkv",
            Self::Prores => ".mov or .mkv",
            Self::Ffv1 => ".mkv",
            Self::Png => "a folder",
        }
    }

    fn crf(self) -> Option<(f32, f32)> {
        match self {
            Self::X264 => Some((18.0, 51.0)),
            Self::X265 => Some((20.0, 51.0)),
            Self::SvtAv1 => Some((28.0, 63.0)),
            _ => None,
        }
    }

    fn presets(self) -> Vec<String> {
        match self {
            Self::X264 | Self::X265 => X26X_PRESETS.map(String::from).to_vec(),
            Self::SvtAv1 => (0..=13).map(|p| p.to_string()).collect(),
            Self::Prores => PRORES_PROFILES.map(String::from).to_vec(),
            _ => Vec::new(),
        }
    }
}

impl Encoding {
    /// Checks the values against the encoder's.
    ///
    /// # Errors
    /// [`Error::Invalid`], with what is possible as a hint.
    pub fn check(&self) -> Result<()> {
        let name = self.codec.encoder();
        match (self.crf, self.codec.crf()) {
            (Some(crf), Some((_, max))) if !(0.0..=max).contains(&crf) => {
                return Err(Error::invalid("--crf", format!("{name} takes 0 to {max}, not {crf}"))
                    .hint("0 is best, 18 looks like the source, 28 is small"));
            }
            (Some(_), None) => {
                return Err(Error::invalid("--crf", format!("{name} has no constant rate factor"))
                    .hint("it belongs to x264, x265 and svt-av1"));
            }
            _ => {}
        }
        if let Some(preset) = &self.preset {
            let known = self.codec.presets();
            if !known.contains(preset) {
                let hint = match known.len() {
                    0 => format!("{name} has none"),
                    _ => format!("{name} knows {}", known.join(", ")),
                };
                return Err(Error::invalid("--preset", format!("`{preset}` is none of {name}'s")).hint(hint));
            }
        }
        self.pixel_format.as_deref().map_or(Ok(()), |p| parse(p).map(|_| ()))
    }

    /// The encoder's private options.
    pub(super) fn options(&self) -> Dictionary<'static> {
        let mut options = Dictionary::new();
        if let Some((default, _)) = self.codec.crf() {
            options.set("crf", &self.crf.unwrap_or(default).to_string());
        }
        let preset = self.preset.as_deref();
        match self.codec {
            Codec::X264 => options.set("preset", preset.unwrap_or("medium")),
            Codec::X265 => {
                options.set("preset", preset.unwrap_or("medium"));
                options.set("x265-params", "log-level=none");
            }
            Codec::SvtAv1 => {
                options.set("preset", preset.unwrap_or("8"));
                // Only whole numbers here.
                options.set("crf", &(self.crf.unwrap_or(28.0).round() as i32).to_string());
            }
            Codec::Prores => {
                if let Some(profile) = preset {
                    options.set("profile", profile);
                }
            }
            Codec::Ffv1 => {
                options.set("level", "3");
                options.set("slicecrc", "1");
            }
            Codec::Png => {}
        }
        options
    }

    /// The pixel format to encode a source of `layout` and `size` in.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a format that was asked for and that the encoder does not take.
    pub(super) fn pixel(&self, layout: &Layout, size: (usize, usize), codec: ffmpeg::Codec) -> Result<Pixel> {
        let supported: Vec<Pixel> =
            codec.video().ok().and_then(|v| v.formats()).map(Iterator::collect).unwrap_or_default();
        let takes = |p: Pixel| supported.is_empty() || supported.contains(&p);
        if let Some(name) = &self.pixel_format {
            let pixel = parse(name)?;
            if !takes(pixel) {
                let names: Vec<_> = supported.iter().filter_map(|p| Some(p.descriptor()?.name())).collect();
                return Err(Error::invalid(
                    "--pix-fmt",
                    format!("{} does not take {name}", self.codec.encoder()),
                )
                .hint(format!("it takes {}", names.join(", "))));
            }
            return Ok(pixel);
        }
        candidates(self.codec, layout, size)
            .iter()
            .filter_map(|name| parse(name).ok())
            .find(|p| takes(*p))
            .ok_or_else(|| {
                Error::Failed(format!("{} takes no format like {}", self.codec.encoder(), layout.name))
            })
    }
}

fn parse(name: &str) -> Result<Pixel> {
    match name.parse::<Pixel>() {
        Ok(pixel) if pixel != Pixel::None => Ok(pixel),
        _ => Err(Error::invalid("--pix-fmt", format!("`{name}` is no pixel format"))
            .hint("for example yuv420p, yuv420p10le, yuv444p; `ffmpeg -pix_fmts` lists them")),
    }
}

/// Formats that keep as much of the source as the encoder can, the best first.
fn candidates(codec: Codec, layout: &Layout, size: (usize, usize)) -> Vec<String> {
    let depth = layout.depth();
    let color = if layout.rgb || layout.is_gray() { (1, 1) } else { layout.log2 };
    // 4:2:0 of these encoders needs even sides; a side stays as it is and chroma gets the bits.
    let even =
        |color: (u8, u8)| (color.0 > 0 && size.0.is_multiple_of(2), color.1 > 0 && size.1.is_multiple_of(2));
    let sub = |color: (u8, u8)| match even(color) {
        (true, true) => "420",
        (true, false) => "422",
        _ => "444",
    };
    match codec {
        Codec::X264 | Codec::X265 => {
            let bits = match (codec, depth) {
                (_, ..=8) => "",
                (Codec::X265, 11..) => "12le",
                _ => "10le",
            };
            vec![format!("yuv{}p{bits}", sub(color)), format!("yuv{}p10le", sub(color))]
        }
        Codec::SvtAv1 => vec![if depth > 8 { "yuv420p10le" } else { "yuv420p" }.into()],
        Codec::Prores if layout.has_alpha() => vec!["yuva444p10le".into()],
        Codec::Prores if layout.rgb || layout.log2 == (0, 0) => vec!["yuv444p10le".into()],
        Codec::Prores => vec!["yuv422p10le".into()],
        Codec::Ffv1 => lossless(layout),
        Codec::Png => vec!["rgb24".into()],
    }
}

/// The source's own format, or one that holds all its codes.
fn lossless(layout: &Layout) -> Vec<String> {
    let own = layout.name.replace("yuvj", "yuv").replace("be", "le");
    let wide = match (layout.rgb, layout.has_alpha(), layout.depth()) {
        (true, true, ..=8) => "bgra",
        (true, false, ..=8) => "bgr0",
        (true, true, _) => "rgba64le",
        (true, false, ..=10) => "gbrp10le",
        (true, false, ..=12) => "gbrp12le",
        (true, false, _) => "gbrp16le",
        (false, alpha, depth) => return planar(layout, own, alpha, depth),
    };
    vec![own, wide.into()]
}

fn planar(layout: &Layout, own: String, alpha: bool, depth: u32) -> Vec<String> {
    let sub = match layout.log2 {
        (0, 0) => "444",
        (1, 0) => "422",
        (0, 1) => "440",
        (2, 0) => "411",
        (2, 2) => "410",
        _ => "420",
    };
    let bits = match depth {
        ..=8 => "",
        9 | 10 => "10le",
        11 | 12 => "12le",
        _ => "16le",
    };
    let a = if alpha { "a" } else { "" };
    let packed = format!("yuv{a}{sub}p{bits}");
    let grey = if layout.is_gray() && alpha { vec![format!("yuva444p{bits}")] } else { Vec::new() };
    [vec![own], grey, vec![packed, format!("yuv{a}444p{bits}"), format!("yuv{a}{sub}p16le")]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_before_work() {
        let with = |codec, crf, preset: Option<&str>| {
            Encoding { codec, crf, preset: preset.map(String::from), ..Encoding::default() }.check()
        };
        assert!(with(Codec::X264, Some(23.0), Some("slow")).is_ok());
        assert!(with(Codec::X264, Some(52.0), None).is_err_and(|e| e.is_usage()));
        assert!(with(Codec::Ffv1, Some(0.0), None).is_err_and(|e| e.is_usage()));
        assert!(
            with(Codec::X265, None, Some("swift"))
                .is_err_and(|e| e.hint_text().unwrap().contains("veryslow"))
        );
        assert!(with(Codec::SvtAv1, Some(63.0), Some("13")).is_ok());
        let odd = Encoding { pixel_format: Some("yuv420q".into()), ..Encoding::default() };
        assert!(odd.check().is_err_and(|e| e.is_usage()));
    }

    #[test]
    fn formats_near_the_source() {
        let chosen = |codec, name: &str, size| {
            let layout = Layout::of(name.parse().unwrap()).unwrap();
            candidates(codec, &layout, size)[0].clone()
        };
        assert_eq!(chosen(Codec::X264, "yuv420p", (64, 48)), "yuv420p");
        assert_eq!(chosen(Codec::X264, "yuv420p", (63, 48)), "yuv444p");
        assert_eq!(chosen(Codec::X264, "yuv420p", (64, 47)), "yuv422p");
        assert_eq!(chosen(Codec::X264, "p010le", (64, 48)), "yuv420p10le");
        assert_eq!(chosen(Codec::X265, "yuv422p12le", (64, 48)), "yuv422p12le");
        assert_eq!(chosen(Codec::X264, "bgra", (64, 48)), "yuv420p");
        assert_eq!(chosen(Codec::Prores, "yuva444p12le", (64, 48)), "yuva444p10le");
        assert_eq!(chosen(Codec::Ffv1, "yuvj422p", (64, 48)), "yuv422p");
        assert_eq!(chosen(Codec::Ffv1, "gray16be", (64, 48)), "gray16le");
    }
}
