//! Series of pictures as clips: a folder, or a pattern such as `frames/%04d.png`.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use ffmpeg::Dictionary;
use ffmpeg::format::context::Input;
use ffmpeg_next as ffmpeg;

use super::{ff, source};
use crate::{Error, Result};

/// Endings of pictures.
pub(crate) const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "exr"];

/// Frames a second of a series, which has no times of its own.
pub(crate) const RATE: &str = "24";

/// True for folders and for patterns that are no file of that name.
pub fn is_series(path: &Path) -> bool {
    path.is_dir() || (!path.exists() && path.to_string_lossy().contains('%'))
}

/// Opens a clip or a series.
pub(super) fn open(path: &Path) -> Result<Input> {
    if !is_series(path) {
        let url = ff::url(path)?;
        return ffmpeg::format::input(&url).map_err(|e| source::explain_open(path, e));
    }
    let mut options = Dictionary::new();
    options.set("framerate", RATE);
    let pattern = if path.is_dir() {
        options.set("pattern_type", "glob");
        glob(path)?
    } else {
        path.to_owned()
    };
    let Some(text) = pattern.to_str() else {
        return Err(Error::file(path, "the name is not valid UTF-8").hint("rename it"));
    };
    let name = CString::new("image2").map_err(|e| Error::Failed(e.to_string()))?;
    // SAFETY: the table of formats is static.
    let format = unsafe {
        let format = ffmpeg::ffi::av_find_input_format(name.as_ptr());
        if format.is_null() {
            return Err(Error::Failed("this FFmpeg cannot read series of pictures".into()));
        }
        ffmpeg::format::Input::wrap(format.cast_mut())
    };
    match ffmpeg::format::open_with(text, &ffmpeg::Format::Input(format), options) {
        Ok(context) => Ok(context.input()),
        Err(e) => Err(source::explain_open(path, e)),
    }
}

/// A pattern of all pictures of a folder; they must be of one kind.
fn glob(folder: &Path) -> Result<PathBuf> {
    let mut endings: Vec<String> = pictures(folder)?.iter().filter_map(|p| ending(p)).collect();
    endings.dedup();
    match &endings[..] {
        [one] => {
            let escaped: String = folder.to_string_lossy().chars().flat_map(escape).collect();
            Ok(Path::new(&escaped).join(format!("*.{one}")))
        }
        [] => Err(Error::file(folder, "there are no pictures in it")
            .hint(format!("pictures are {}", EXTENSIONS.map(|e| format!(".{e}")).join(", ")))),
        _ => Err(Error::file(
            folder,
            format!("there are pictures of several kinds in it: {}", endings.join(", ")),
        )
        .hint("give a folder with one kind, or a pattern such as frames/%04d.png")),
    }
}

fn escape(c: char) -> impl Iterator<Item = char> {
    let special = "\\*?[]{}".contains(c);
    special.then_some('\\').into_iter().chain([c])
}

/// The pictures of a folder, by ending, then by name.
pub fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut found: Vec<PathBuf> = files
        .filter_map(|f| Some(f.ok()?.path()))
        .filter(|p| p.is_file() && ending(p).is_some_and(|e| EXTENSIONS.contains(&e.to_lowercase().as_str())))
        .collect();
    found.sort_by_key(|p| (ending(p), p.clone()));
    Ok(found)
}

fn ending(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_owned())
}
