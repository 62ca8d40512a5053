//! Views onto the disk: one picture, a clip, or a folder.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, RgbaImage};
use rayon::prelude::*;

use crate::asset;
use crate::error::{Error, Result};
use crate::render::camera::Camera;
use crate::render::sheet::contact_sheet;
use crate::render::show::{Show, Style};
use crate::video::io::{Codec, Encoding, Info, Picture, Stamp, Writer};

/// What is written, by the name's ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All views in one PNG.
    Sheet,
    /// A clip.
    Clip(Codec),
    /// A folder of PNG.
    Folder,
}

impl Kind {
    pub(super) fn of(out: &Path) -> Result<Self> {
        let ending = out.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "png" => Ok(Self::Sheet),
            "mp4" | "mkv" | "m4v" => Ok(Self::Clip(Codec::X264)),
            "mov" => Ok(Self::Clip(Codec::Prores)),
            "" => Ok(Self::Folder),
            _ if out.is_dir() => Ok(Self::Folder),
            _ => Err(Error::invalid(
                "--out",
                format!("{} ends in neither .png nor .mp4, .mov, .mkv", out.display()),
            )
            .hint("pictures are written as PNG, clips as H.264 or (.mov) ProRes; a folder has no ending")),
        }
    }

    /// Checks, before any work, that it can be written.
    pub(super) fn check(self, out: &Path, transparent: bool) -> Result<()> {
        match self {
            Self::Sheet => Ok(()),
            Self::Clip(Codec::X264) if transparent => {
                Err(Error::invalid("--transparent", "H.264 has no transparency")
                    .hint("write a .mov (ProRes), a folder of pictures, or a .png"))
            }
            Self::Clip(codec) => Writer::check(out, Path::new(""), &encoding(codec)),
            Self::Folder => Writer::check(out, Path::new(""), &encoding(Codec::Png)),
        }
    }
}

fn encoding(codec: Codec) -> Encoding {
    // 4444 is the profile with transparency.
    let preset = (codec == Codec::Prores).then(|| "4444".to_owned());
    Encoding { codec, preset, ..Encoding::default() }
}

/// Everything that decides the pictures.
pub(super) struct Shoot<'a> {
    pub(super) show: &'a Show,
    pub(super) style: Style,
    pub(super) cameras: Vec<Camera>,
    /// Views in a row of a sheet.
    pub(super) columns: usize,
    /// Frames a second.
    pub(super) fps: u32,
}

impl Shoot<'_> {
    pub(super) fn write(&self, kind: Kind, out: &Path) -> Result<()> {
        match kind {
            Kind::Sheet => {
                let sheet = contact_sheet(&self.views(&self.cameras), self.columns);
                asset::replace(out, &self.png(sheet)?)
            }
            Kind::Clip(codec) => self.clip(out, codec),
            Kind::Folder => self.clip(out, Codec::Png),
        }
    }

    fn views(&self, cameras: &[Camera]) -> Vec<RgbaImage> {
        cameras.par_iter().map(|camera| self.show.picture(camera, &self.style)).collect()
    }

    fn clip(&self, out: &Path, codec: Codec) -> Result<()> {
        let Some(first) = self.cameras.first() else { return Ok(()) };
        let size = (first.width as usize, first.height as usize);
        let info = Info::made(size, self.fps, self.style.background.is_none());
        let mut writer = Writer::create(out, &info, size, &encoding(codec))?;
        let mut pts = 0;
        for cameras in self.cameras.chunks(rayon::current_num_threads().max(1)) {
            for picture in self.views(cameras) {
                writer.push(self.planes(&picture), Stamp { pts, duration: 1 })?;
                pts += 1;
            }
        }
        writer.finish().map(drop)
    }

    fn planes(&self, picture: &RgbaImage) -> Picture {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let plane = |c: usize| picture.pixels().map(move |p| f32::from(p.0[c]) / 255.0);
        let rgb = (0..3).flat_map(plane).collect();
        let alpha = self.style.background.is_none().then(|| plane(3).collect());
        Picture { width, height, rgb, alpha }
    }

    fn png(&self, picture: RgbaImage) -> Result<Vec<u8>> {
        let picture = DynamicImage::from(picture);
        let opaque = self.style.background.is_some();
        let picture = if opaque { DynamicImage::from(picture.into_rgb8()) } else { picture };
        let mut bytes = Cursor::new(Vec::new());
        picture
            .write_to(&mut bytes, ImageFormat::Png)
            .map_err(|e| Error::Failed(format!("the picture cannot be encoded: {e}")))?;
        Ok(bytes.into_inner())
    }
}
