//! A clip as a folder of PNG pictures and a table of their times.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageBuffer, Rgb, Rgba};

use super::clock::{Ratio, Stamp};
use super::layout::Layout;
use super::picture::Picture;
use super::source::Info;
use super::writer::{Written, waiting_room};
use crate::{Error, Result};

/// Name of the table of times.
const TIMES: &str = "times.csv";

/// A folder that is being filled.
pub(super) struct Series {
    out: PathBuf,
    part: tempfile::TempDir,
    base: Ratio,
    deep: bool,
    times: String,
    written: Written,
}

impl Series {
    /// # Errors
    /// [`Error::Invalid`] for a folder that holds something already.
    pub(super) fn check(out: &Path) -> Result<()> {
        let wrong = |reason: &str, hint: &str| {
            Err(Error::invalid(format!("--out {}", out.display()), reason).hint(hint))
        };
        if out.is_file() {
            return wrong("it is a file", "pictures go into a folder; name one");
        }
        if fs::read_dir(out).is_ok_and(|mut d| d.next().is_some()) {
            return wrong("the folder is not empty", "name a new folder");
        }
        Ok(())
    }

    pub(super) fn create(out: &Path, info: &Info) -> Result<Self> {
        let folder = waiting_room(out);
        let part = tempfile::Builder::new()
            .prefix(".gen3d-")
            .tempdir_in(&folder)
            .map_err(|e| Error::io(folder, e))?;
        let layout = info.pixel_format.parse().ok().and_then(|p| Layout::of(p).ok());
        Ok(Self {
            out: out.to_owned(),
            part,
            base: info.time_base,
            deep: layout.is_some_and(|l| l.depth() > 8) && !info.tags.is_hdr(),
            times: "frame,pts,duration,time_base\n".into(),
            written: Written::default(),
        })
    }

    pub(super) fn push(&mut self, picture: &Picture, stamp: Stamp) -> Result<()> {
        let path = self.part.path().join(format!("{:06}.png", self.written.frames));
        let image = if self.deep { deep(picture) } else { shallow(picture) };
        let image = image.ok_or_else(|| Error::Failed("a picture does not have the size it says".into()))?;
        image.save(&path).map_err(|e| match e {
            image::ImageError::IoError(e) => Error::io(&path, e),
            e => Error::file(&path, e.to_string()),
        })?;
        self.written.bytes += fs::metadata(&path).map_err(|e| Error::io(&path, e))?.len();
        // Writing to a string does not fail.
        let _ =
            writeln!(self.times, "{},{},{},{}", self.written.frames, stamp.pts, stamp.duration, self.base);
        self.written.frames += 1;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Written> {
        let times = self.part.path().join(TIMES);
        fs::write(&times, &self.times).map_err(|e| Error::io(&times, e))?;
        let io = |e| Error::io(&self.out, e);
        #[cfg(unix)]
        fs::set_permissions(self.part.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(io)?;
        // An empty folder in its place gives way.
        fs::rename(self.part.path(), &self.out).map_err(io)?;
        let _ = self.part.keep();
        Ok(self.written)
    }
}

fn samples(picture: &Picture) -> impl Iterator<Item = f32> + '_ {
    let n = picture.width * picture.height;
    let alpha = picture.alpha.as_deref();
    (0..n).flat_map(move |i| {
        let color = [0, 1, 2].map(|c| picture.rgb[c * n + i]);
        color.into_iter().chain(alpha.map(|a| a[i]))
    })
}

fn shallow(picture: &Picture) -> Option<DynamicImage> {
    let codes: Vec<u8> = samples(picture).map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    let (w, h) = (picture.width as u32, picture.height as u32);
    Some(match picture.alpha {
        Some(_) => ImageBuffer::<Rgba<u8>, _>::from_raw(w, h, codes)?.into(),
        None => ImageBuffer::<Rgb<u8>, _>::from_raw(w, h, codes)?.into(),
    })
}

fn deep(picture: &Picture) -> Option<DynamicImage> {
    let codes: Vec<u16> = samples(picture).map(|v| (v.clamp(0.0, 1.0) * 65535.0).round() as u16).collect();
    let (w, h) = (picture.width as u32, picture.height as u32);
    Some(match picture.alpha {
        Some(_) => ImageBuffer::<Rgba<u16>, _>::from_raw(w, h, codes)?.into(),
        None => ImageBuffer::<Rgb<u16>, _>::from_raw(w, h, codes)?.into(),
    })
}
