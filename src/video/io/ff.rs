//! Small things about FFmpeg: start-up, errors, names that are not URLs.

use std::path::Path;
use std::sync::Once;

use ffmpeg_next as ffmpeg;

use crate::{Error, Result};

/// Initialises FFmpeg and silences it: what goes wrong comes back as an error, not as its log.
pub(super) fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It only registers what is compiled in and has no way to fail in the versions supported.
        let _ = ffmpeg::init();
        ffmpeg::log::set_level(ffmpeg::log::Level::Quiet);
    });
}

/// FFmpeg's error about a file.
pub(super) fn failed(path: &Path, doing: &str, error: ffmpeg::Error) -> Error {
    match error {
        ffmpeg::Error::Other { errno } if is_system(errno) => {
            Error::io(path, std::io::Error::from_raw_os_error(errno))
        }
        error => Error::file(path, format!("{doing}: {error}")),
    }
}

/// Errors of the file system rather than of FFmpeg, which also speaks EINVAL and EAGAIN.
fn is_system(errno: i32) -> bool {
    use ffmpeg::error::{EACCES, EIO, EISDIR, ENOENT, ENOSPC, EPERM, EROFS};
    [EACCES, EIO, EISDIR, ENOENT, ENOSPC, EPERM, EROFS].contains(&errno)
}

/// The file's name so that a colon in it does not make it a protocol.
pub(super) fn url(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| {
        Error::file(path, "the name is not valid UTF-8")
            .hint("rename the file, or link to it under another name")
    })?;
    Ok(format!("file:{text}"))
}
