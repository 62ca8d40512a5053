//! Many clips: one after another, a journal of what became of each, and none stops the rest.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::io::is_series;
use crate::{Error, Result};

/// Endings of clips in a folder.
pub const EXTENSIONS: [&str; 10] = ["mp4", "mov", "mkv", "webm", "avi", "m4v", "gif", "ts", "mpg", "wmv"];

/// What became of one clip: a line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The clip.
    pub input: PathBuf,
    /// The edited clip.
    pub output: PathBuf,
    /// All settings, in words.
    pub settings: String,
    /// What happened.
    pub status: Status,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Frames written.
    pub frames: u64,
    /// Wall time.
    pub seconds: f64,
}

/// What happened to a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Written.
    Done,
    /// Not written.
    Failed,
}

/// One JSON line a clip, in the order they ended; the last line about a clip counts.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
}

impl Journal {
    /// Reads the journal at `path`, or starts an empty one. A last line that was cut off is ignored.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io(path, e)),
        };
        let entries = text.lines().filter_map(|l| serde_json::from_str::<Entry>(l).ok());
        Ok(Self { path: path.to_owned(), entries: entries.map(|e| (e.output.clone(), e)).collect() })
    }

    /// True if the same edit of the same clip is done and its product is there.
    pub fn is_done(&self, input: &Path, output: &Path, settings: &str) -> bool {
        self.entries.get(output).is_some_and(|e| {
            e.status == Status::Done && e.input == input && e.settings == settings && output.exists()
        })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&mut self, entry: Entry) -> Result<()> {
        let line = serde_json::to_string(&entry).map_err(|e| Error::Failed(e.to_string()))?;
        let io = |e| Error::io(&self.path, e);
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.path).map_err(io)?;
        writeln!(file, "{line}").and_then(|()| file.sync_data()).map_err(io)?;
        self.entries.insert(entry.output.clone(), entry);
        Ok(())
    }
}

/// The clips that are meant: files as they are, folders of clips file by file.
///
/// # Errors
/// [`Error::Invalid`] for a folder without clips.
pub fn clips(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for input in inputs {
        if !input.is_dir() {
            all.push(input.clone());
            continue;
        }
        let files = fs::read_dir(input).map_err(|e| Error::io(input, e))?;
        let mut found: Vec<_> = files.filter_map(|f| Some(f.ok()?.path())).filter(|p| is_clip(p)).collect();
        found.sort();
        match found.is_empty() {
            // A folder of pictures is one clip.
            true if is_series(input) && !super::io::pictures(input)?.is_empty() => all.push(input.clone()),
            true => {
                return Err(Error::invalid(input.display().to_string(), "there are no clips in it")
                    .hint(format!("clips are {}", EXTENSIONS.map(|e| format!(".{e}")).join(", "))));
            }
            false => all.extend(found),
        }
    }
    Ok(all)
}

fn is_clip(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    path.is_file() && EXTENSIONS.contains(&ending.as_str())
}

/// The output of each clip in `folder`, under its own name with `ending` (or its own ending).
///
/// # Errors
/// [`Error::Invalid`] if two would have the same name.
pub fn outputs(clips: &[PathBuf], folder: &Path, ending: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut taken: BTreeMap<PathBuf, &PathBuf> = BTreeMap::new();
    clips
        .iter()
        .map(|clip| {
            let mut out = folder.join(clip.file_name().unwrap_or_default());
            if let Some(ending) = ending {
                out.set_extension(ending);
            }
            match taken.insert(out.clone(), clip) {
                Some(other) => Err(Error::invalid(
                    "--out-dir",
                    format!("{} and {} would both become {}", other.display(), clip.display(), out.display()),
                )
                .hint("give them in two runs with two folders, or use --jobs")),
                None => Ok(out),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(output: &Path, status: Status) -> Entry {
        Entry {
            input: "a.mp4".into(),
            output: output.to_owned(),
            settings: "s".into(),
            status,
            error: None,
            frames: 3,
            seconds: 0.5,
        }
    }

    #[test]
    fn the_journal_knows_what_is_done_even_after_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let (path, out) = (dir.path().join("journal.jsonl"), dir.path().join("b.mp4"));
        let mut journal = Journal::open(&path).unwrap();
        journal.add(entry(&out, Status::Failed)).unwrap();
        assert!(!journal.is_done(Path::new("a.mp4"), &out, "s"));
        journal.add(entry(&out, Status::Done)).unwrap();
        assert!(!journal.is_done(Path::new("a.mp4"), &out, "s"), "the product is missing");
        fs::write(&out, "x").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{}", &text[..20])).unwrap();
        let journal = Journal::open(&path).unwrap();
        assert!(journal.is_done(Path::new("a.mp4"), &out, "s"));
        assert!(!journal.is_done(Path::new("a.mp4"), &out, "other settings"));
    }

    #[test]
    fn folders_and_names() {
        let dir = tempfile::tempdir().unwrap();
        assert!(clips(&[dir.path().to_owned()]).is_err_and(|e| e.is_usage()));
        for name in ["b.mp4", "a.MOV", "notes.txt"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let found = clips(&[dir.path().to_owned(), "x.mkv".into()]).unwrap();
        assert_eq!(found, [dir.path().join("a.MOV"), dir.path().join("b.mp4"), "x.mkv".into()]);
        assert_eq!(outputs(&found, Path::new("o"), Some("mkv")).unwrap()[0], Path::new("o/a.mkv"));
        assert!(
            outputs(&["p/a.mp4".into(), "q/a.mp4".into()], Path::new("o"), None).is_err_and(|e| e.is_usage())
        );
    }
}
