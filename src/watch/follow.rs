//! Reading a log that somebody else is writing.
//!
//! A reader keeps a [`Place`] and asks for what came after it. The log may be cut, begun anew or replaced by
//! another file in between: the place carries a mark of the bytes before it, and where they are no longer the
//! same, reading begins again. Lines that are not complete yet wait for the next time; lines that are no
//! events are counted and left out.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Bytes read at once; a longer line is no event of ours.
const CHUNK: u64 = 1 << 20;
/// Bytes before a place that make its mark.
const MARK: u64 = 96;

/// How far a reader has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Bytes read.
    pub offset: u64,
    /// Of the bytes before; see [`Chunk::mark`].
    pub mark: String,
}

/// What came after a place.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Chunk {
    /// The log is not the one that was read before: this chunk is from its beginning.
    pub reset: bool,
    /// Where the next chunk begins …
    pub next: u64,
    /// … and the mark to show then.
    pub mark: String,
    /// There is more to read at once.
    pub more: bool,
    /// Lines that were no events.
    pub skipped: usize,
    /// The events, in order.
    pub events: Vec<Value>,
}

/// The events of the log at `path` after `place`, at most a mebibyte of them.
///
/// # Errors
/// If the file cannot be read; a log that is not there yet is an empty one.
pub fn read(path: &Path, place: &Place) -> io::Result<Chunk> {
    let mut file = match open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Chunk { reset: place.offset > 0, ..Chunk::default() });
        }
        file => file?,
    };
    let length = file.metadata()?.len();
    let mut chunk = Chunk { next: place.offset, ..Chunk::default() };
    if place.offset > length || (place.offset > 0 && mark(&mut file, place.offset)? != place.mark) {
        (chunk.reset, chunk.next) = (true, 0);
    }
    file.seek(SeekFrom::Start(chunk.next))?;
    let mut bytes = Vec::new();
    file.by_ref().take(CHUNK).read_to_end(&mut bytes)?;
    let whole = match bytes.iter().rposition(|b| *b == b'\n') {
        Some(end) => end + 1,
        None if bytes.len() as u64 == CHUNK => {
            chunk.skipped += 1;
            bytes.len()
        }
        None => 0,
    };
    if bytes[..whole].contains(&b'\n') {
        for line in bytes[..whole].split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            match event(line) {
                Some(event) => chunk.events.push(event),
                None => chunk.skipped += 1,
            }
        }
    }
    chunk.next += whole as u64;
    // Half a line at the end is nothing to ask for at once.
    chunk.more = bytes.len() as u64 == CHUNK;
    chunk.mark = mark(&mut file, chunk.next)?;
    Ok(chunk)
}

/// The last events of a log, as many as fit into `bytes`.
///
/// # Errors
/// If the file cannot be read.
pub fn last(path: &Path, bytes: u64) -> io::Result<Vec<Value>> {
    let mut file = open(path)?;
    let start = file.metadata()?.len().saturating_sub(bytes);
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text)?;
    // What stands before the first line's end may be half a line; a half one at the end is no event.
    let lines = text.split(|b| *b == b'\n').skip(usize::from(start > 0));
    Ok(lines.filter_map(event).collect())
}

/// Opens a file, but no link to one and nothing that could block.
pub(super) fn open(path: &Path) -> io::Result<File> {
    if !path.symlink_metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)
}

/// An object that says what event it is.
fn event(line: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Value>(line).ok().filter(|v| v.get("event").is_some_and(Value::is_string))
}

/// Of the bytes before `offset`.
fn mark(file: &mut File, offset: u64) -> io::Result<String> {
    let start = offset.saturating_sub(MARK);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.by_ref().take(offset - start).read_to_end(&mut bytes)?;
    Ok(Sha256::digest(&bytes)[..8].iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use super::*;

    fn line(step: usize) -> String {
        format!("{{\"event\":\"step\",\"step\":{step},\"seconds\":0.{step}}}\n")
    }

    fn steps(chunk: &Chunk) -> Vec<u64> {
        chunk.events.iter().map(|e| e["step"].as_u64().unwrap()).collect()
    }

    fn after(chunk: &Chunk) -> Place {
        Place { offset: chunk.next, mark: chunk.mark.clone() }
    }

    fn append(path: &Path, text: &str) {
        OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_log_is_followed_through_half_lines_cuts_and_replacement() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let none = read(&path, &Place::default()).unwrap();
        assert!(none.events.is_empty() && !none.reset && none.next == 0, "not there yet");
        append(&path, &(line(1) + &line(2) + &line(3)[..9]));
        let first = read(&path, &Place::default()).unwrap();
        assert_eq!((steps(&first), first.skipped, first.more), (vec![1, 2], 0, false));
        assert_eq!(read(&path, &after(&first)).unwrap().events.len(), 0, "half a line waits");
        append(&path, &line(3)[9..]);
        let second = read(&path, &after(&first)).unwrap();
        assert_eq!((steps(&second), second.reset), (vec![3], false));
        // Begun anew, and already longer than what was read: only the mark tells.
        fs::write(&path, (11..20).map(line).collect::<String>()).unwrap();
        let third = read(&path, &after(&second)).unwrap();
        assert_eq!((steps(&third), third.reset), ((11..20).collect(), true));
        // Cut short.
        fs::write(&path, line(5)).unwrap();
        let fourth = read(&path, &after(&third)).unwrap();
        assert_eq!((steps(&fourth), fourth.reset), (vec![5], true));
        fs::remove_file(&path).unwrap();
        assert!(read(&path, &after(&fourth)).unwrap().reset);
    }

    #[test]
    fn what_is_no_event_is_counted_and_long_logs_come_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        append(&path, &(line(1) + "nonsense\n[1]\n{\"event\":7}\n\u{0}\n\n" + &line(2)));
        let chunk = read(&path, &Place::default()).unwrap();
        assert_eq!((steps(&chunk), chunk.skipped), (vec![1, 2], 4));
        // Longer than a chunk, with one line that is longer than a chunk itself.
        let many: String = (0..60_000).map(|i| line(i % 10)).collect();
        fs::write(&path, many + &"x".repeat(2 * CHUNK as usize) + "\n" + &line(7)).unwrap();
        let (mut place, mut seen, mut parts) = (Place::default(), Vec::new(), 0);
        loop {
            let chunk = read(&path, &place).unwrap();
            seen.extend(steps(&chunk));
            (place, parts) = (after(&chunk), parts + 1);
            if !chunk.more {
                break;
            }
        }
        assert_eq!((seen.len(), seen[60_000], parts > 3), (60_001, 7, true));
        assert_eq!(last(&path, 100).unwrap().len(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("other"), line(1)).unwrap();
        std::os::unix::fs::symlink(dir.path().join("other"), dir.path().join("log.jsonl")).unwrap();
        assert!(read(&dir.path().join("log.jsonl"), &Place::default()).is_err());
    }
}
