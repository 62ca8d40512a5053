//! Frames on disk: any frame at any time, in the memory of one.

use std::fs;
use std::path::{Path, PathBuf};

use super::io::Picture;
use crate::{Error, Result};

/// First bytes of a frame's file; then width and height (u32) and `[3, height, width]` u16, all little
/// endian. 65535 is 1.
const MAGIC: &[u8; 8] = b"gen3dfr1";

/// A folder of frames of one size. A frame is there whole or not at all, so a run that was killed
/// goes on where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameStore {
    folder: PathBuf,
    size: (usize, usize),
}

impl FrameStore {
    /// The store at `folder`, for pictures of `size`; the folder is made.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(folder: &Path, size: (usize, usize)) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        Ok(Self { folder: folder.to_owned(), size })
    }

    /// Width and height of all frames.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Bytes on disk of a frame of `size`.
    pub fn bytes_of(size: (usize, usize)) -> u64 {
        16 + 6 * size.0 as u64 * size.1 as u64
    }

    /// Number of frames from the first without a gap.
    pub fn len(&self) -> usize {
        (0..).take_while(|&i| self.has(i)).count()
    }

    /// True if the first frame is missing.
    pub fn is_empty(&self) -> bool {
        !self.has(0)
    }

    /// True if frame `i` is there, with the right size.
    pub fn has(&self, i: usize) -> bool {
        fs::metadata(self.path(i)).is_ok_and(|m| m.len() == Self::bytes_of(self.size))
    }

    /// Keeps frame `i`, its values clamped to 0 … 1.
    ///
    /// # Errors
    /// [`Error::Io`] (a full disk), [`Error::Failed`] for a picture of another size.
    pub fn put(&self, i: usize, picture: &Picture) -> Result<()> {
        if (picture.width, picture.height) != self.size {
            let (w, h) = self.size;
            return Err(Error::Failed(format!(
                "frame {i} has {}x{} pixels, not {w}x{h}",
                picture.width, picture.height
            )));
        }
        let mut bytes = Vec::with_capacity(Self::bytes_of(self.size) as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(self.size.0 as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.size.1 as u32).to_le_bytes());
        for value in &picture.rgb {
            let code = (value.clamp(0.0, 1.0) * 65535.0).round() as u16;
            bytes.extend_from_slice(&code.to_le_bytes());
        }
        let (path, part) = (self.path(i), self.folder.join(format!(".{i:06}.part")));
        fs::write(&part, &bytes)
            .and_then(|()| fs::rename(&part, &path))
            .map_err(|e| Error::io(&path, e).hint("a clip's frames wait on disk: free some space"))
    }

    /// Frame `i`.
    ///
    /// # Errors
    /// [`Error::Io`] if it is not there, [`Error::File`] if it is damaged.
    pub fn get(&self, i: usize) -> Result<Picture> {
        let path = self.path(i);
        let bytes = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let (width, height) = self.size;
        let header = [&MAGIC[..], &(width as u32).to_le_bytes(), &(height as u32).to_le_bytes()].concat();
        if bytes.len() as u64 != Self::bytes_of(self.size) || bytes[..16] != header[..] {
            return Err(Error::file(&path, format!("is no frame of {width}x{height} pixels"))
                .hint("run again without --resume"));
        }
        let rgb = bytes[16..].chunks_exact(2).map(|b| f32::from(u16::from_le_bytes([b[0], b[1]])) / 65535.0);
        Ok(Picture { width, height, rgb: rgb.collect(), alpha: None })
    }

    /// Removes all frames and the folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(|e| Error::io(&self.folder, e))
    }

    fn path(&self, i: usize) -> PathBuf {
        self.folder.join(format!("{i:06}.frame"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = FrameStore::open(&dir.path().join("frames"), (3, 2)).unwrap();
        let picture =
            |i: usize| Picture::from_fn(3, 2, |x, y| [x as f32 / 4.0, y as f32, i as f32 / 65535.0]);
        for i in [2, 0, 1, 5] {
            store.put(i, &picture(i)).unwrap();
        }
        assert_eq!(store.len(), 3);
        for i in [5, 1, 0, 2] {
            let got = store.get(i).unwrap();
            let error = got.rgb.iter().zip(&picture(i).rgb).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 0.51 / 65535.0, "{error}");
        }
        assert!(store.get(3).is_err());
        assert!(store.put(0, &Picture::filled(2, 2, [0.0; 3])).is_err());
    }

    #[test]
    fn a_torn_frame_is_no_frame() {
        let dir = tempfile::tempdir().unwrap();
        let store = FrameStore::open(dir.path(), (4, 4)).unwrap();
        store.put(0, &Picture::filled(4, 4, [2.0, -1.0, 0.5])).unwrap();
        assert_eq!(store.get(0).unwrap().plane(0)[0], 1.0);
        let path = dir.path().join("000000.frame");
        fs::write(&path, &fs::read(&path).unwrap()[..50]).unwrap();
        assert!(!store.has(0) && store.get(0).unwrap_err().hint_text().is_some());
        assert!(!FrameStore::open(dir.path(), (8, 4)).unwrap().has(0));
    }
}
