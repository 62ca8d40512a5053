//! The pictures of a dataset: found, decoded, and kept as 8-bit sRGB with straight alpha.

use std::path::{Path, PathBuf};

use image::ImageReader;

use crate::render::color::srgb8_to_linear;
use crate::{Error, Result};
use glam::Vec3;

/// Endings that are tried on names without one.
const EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "PNG"];
/// Longest side that is read.
const MAX_SIDE: u32 = 8192;

/// A decoded picture, row 0 on top.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Straight (not premultiplied) RGBA, sRGB.
    pub rgba: Vec<[u8; 4]>,
    /// The file had an alpha channel.
    pub has_alpha: bool,
}

impl Picture {
    /// Linear colour and alpha of a pixel.
    pub fn at(&self, x: u32, y: u32) -> (Vec3, f32) {
        let [r, g, b, a] = self.rgba[y as usize * self.width as usize + x as usize];
        (srgb8_to_linear([r, g, b]), f32::from(a) / 255.0)
    }

    /// Every `stride`-th pixel, the first at the stride's middle.
    #[must_use]
    pub fn reduced(&self, stride: u32) -> Self {
        let (width, height) = (self.width / stride, self.height / stride);
        let source =
            |i: u32| (i / width * stride + stride / 2) * self.width + i % width * stride + stride / 2;
        let rgba = (0..width * height).map(|i| self.rgba[source(i) as usize]).collect();
        Self { width, height, rgba, has_alpha: self.has_alpha }
    }

    /// The smallest rectangle `[x0, y0, x1, y1)` that holds every pixel which is not transparent.
    pub fn seen(&self) -> Option<[u32; 4]> {
        let mut out: Option<[u32; 4]> = None;
        for (i, _) in self.rgba.iter().enumerate().filter(|(_, p)| p[3] > 0) {
            let (x, y) = ((i % self.width as usize) as u32, (i / self.width as usize) as u32);
            let b = out.get_or_insert([x, y, x + 1, y + 1]);
            *b = [b[0].min(x), b[1].min(y), b[2].max(x + 1), b[3].max(y + 1)];
        }
        out
    }
}

/// The file that `name` means: as it stands, relative to `folder`, with or without its ending.
///
/// # Errors
/// [`Error::File`] with a hint if there is none.
pub(super) fn find(folder: &Path, name: &str, origin: &Path) -> Result<PathBuf> {
    let base = folder.join(name.replace('\\', "/"));
    let tries = std::iter::once(base.clone()).chain(EXTENSIONS.iter().map(|e| {
        let mut with = base.clone().into_os_string();
        with.push(".");
        with.push(e);
        PathBuf::from(with)
    }));
    for path in tries {
        if path.is_file() {
            return Ok(path);
        }
    }
    Err(Error::file(origin, format!("the picture `{name}` does not exist"))
        .hint("paths are relative to the folder of the transforms; .png, .jpg and .webp may be left out"))
}

/// Reads and decodes one file; 16-bit samples are rounded to 8.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`].
pub(super) fn read(path: &Path) -> Result<Picture> {
    let reader = ImageReader::open(path).map_err(|e| Error::io(path, e))?;
    let reader = reader.with_guessed_format().map_err(|e| Error::io(path, e))?;
    let bad = |reason: String| Error::file(path, reason);
    let (width, height) = size(path)?;
    if width.max(height) > MAX_SIDE {
        return Err(bad(format!("{width} × {height} pixels; at most {MAX_SIDE} a side are read"))
            .hint("scale the pictures down; 400 to 1000 pixels a side are plenty"));
    }
    let image = reader.decode().map_err(|e| bad(format!("not a readable picture: {e}")))?;
    let has_alpha = image.color().has_alpha();
    let rgba = image.into_rgba8();
    let rgba = rgba.pixels().map(|p| p.0).collect();
    Ok(Picture { width, height, rgba, has_alpha })
}

/// Width and height from the file's header.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`].
pub(super) fn size(path: &Path) -> Result<(u32, u32)> {
    let reader = ImageReader::open(path).map_err(|e| Error::io(path, e))?;
    let reader = reader.with_guessed_format().map_err(|e| Error::io(path, e))?;
    match reader.into_dimensions() {
        Ok((0, _) | (_, 0)) => Err(Error::file(path, "has no pixels")),
        Ok(size) => Ok(size),
        Err(e) => Err(Error::file(path, format!("not a readable picture: {e}"))
            .hint("PNG, JPEG and WebP are read; was the file cut off?")),
    }
}
