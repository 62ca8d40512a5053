//! Which runs there are, and which of their files may be seen.
//!
//! Nothing of a request becomes part of a path: runs are found by a number made from their place, and files
//! by one of a few fixed names.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::follow;
use crate::generate::folder::EXTENSIONS;
use crate::{Error, Result};

/// Pictures of a run that are shown.
const PICTURES: [&str; 4] = ["preview.png", "history.png", "sheet.png", "compare.png"];
/// How deep runs are looked for in a folder of runs, and how many are listed.
const DEPTH: usize = 3;
const MOST: usize = 2000;
/// Bytes of a log that its overview is read from.
const TAIL: u64 = 1 << 16;
/// Nothing larger is sent.
const LARGEST: u64 = 1 << 30;

/// What is watched.
#[derive(Debug)]
pub struct Site {
    root: PathBuf,
    /// `root` is a run and no folder of runs.
    single: bool,
}

/// A run folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What requests call it.
    pub id: String,
    /// What people call it: its place within the folder of runs, without the ending.
    pub name: String,
    folder: PathBuf,
}

/// A run in a line.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Overview {
    /// What requests call it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What is made, if the log says so.
    pub what: Option<String>,
    /// Steps done.
    pub step: u64,
    /// Steps in all; 0 if not known.
    pub steps: u64,
    /// The newest stage.
    pub stage: Option<String>,
    /// The product is written.
    pub finished: bool,
    /// Seconds since the log grew.
    pub age: Option<u64>,
    /// Pictures that are there.
    pub pictures: Vec<&'static str>,
    /// Products that are there, by file name.
    pub assets: Vec<String>,
}

impl Site {
    /// The runs at `path`: a run folder, its product, or a folder of runs (which may be empty yet).
    ///
    /// # Errors
    /// [`Error::Invalid`] with a hint if there is nothing.
    pub fn open(path: &Path) -> Result<Self> {
        let beside = path.with_extension("gen3d");
        let run = match () {
            () if path.is_dir() && (is_run_name(path) || path.join("log.jsonl").is_file()) => path,
            () if !path.is_dir() && path.extension().is_some() && beside.is_dir() => &beside,
            () if path.is_dir() => return Ok(Self { root: absolute(path)?, single: false }),
            () => {
                let what = format!("{} is no run", path.display());
                return Err(Error::invalid("watch", what)
                    .hint("name a run folder (jay.gen3d), its product (jay.glb), or a folder of runs"));
            }
        };
        Ok(Self { root: absolute(run)?, single: true })
    }

    /// All runs, by name.
    pub fn runs(&self) -> Vec<Run> {
        let mut out = Vec::new();
        if self.single {
            out.push(self.run(&self.root));
        } else {
            self.collect(&self.root, DEPTH, &mut out);
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        out
    }

    /// A run by what requests call it.
    pub fn find(&self, id: &str) -> Option<Run> {
        self.runs().into_iter().find(|run| run.id == id)
    }

    fn collect(&self, dir: &Path, depth: usize, out: &mut Vec<Run>) {
        let Ok(entries) = dir.read_dir() else { return };
        for entry in entries.filter_map(std::result::Result::ok) {
            // Links lead elsewhere, or in circles.
            if out.len() >= MOST || !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            let path = entry.path();
            if is_run_name(&path) {
                out.push(self.run(&path));
            } else if depth > 1 {
                self.collect(&path, depth - 1, out);
            }
        }
    }

    fn run(&self, folder: &Path) -> Run {
        let base = if self.single { self.root.parent().unwrap_or(&self.root) } else { &self.root };
        let place = folder.strip_prefix(base).unwrap_or(folder).with_extension("");
        let id = Sha256::digest(folder.as_os_str().as_encoded_bytes());
        let id = id[..8].iter().map(|b| format!("{b:02x}")).collect();
        Run { id, name: place.display().to_string(), folder: folder.to_owned() }
    }
}

impl Run {
    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log.jsonl")
    }

    /// Its configuration as it was written, if it is there.
    pub fn config(&self) -> Option<String> {
        let bytes = contents(&self.folder.join("config.toml")).ok()?;
        String::from_utf8(bytes).ok()
    }

    /// One of its pictures, or `asset-N.glb` (N from 0, as [`Overview::assets`] counts), with its media type.
    pub fn file(&self, name: &str) -> Option<(Vec<u8>, &'static str)> {
        if let Some(known) = PICTURES.iter().find(|known| **known == name) {
            return Some((contents(&self.folder.join(known)).ok()?, "image/png"));
        }
        let number: usize = name.strip_prefix("asset-")?.strip_suffix(".glb")?.parse().ok()?;
        let path = self.products().into_iter().nth(number)?;
        (extension(&path) == "glb").then(|| Some((contents(&path).ok()?, "model/gltf-binary")))?
    }

    /// The products beside the run folder: `jay.glb`, and the other particles' `jay-2.glb` ….
    fn products(&self) -> Vec<PathBuf> {
        let mut out = Vec::new();
        let stem = self.folder.file_stem().unwrap_or_default().to_string_lossy();
        for particle in 1.. {
            let stem = if particle == 1 { stem.to_string() } else { format!("{stem}-{particle}") };
            // Another run's product of that name is no particle of this one.
            if particle > 1 && self.folder.with_file_name(format!("{stem}.gen3d")).exists() {
                break;
            }
            let named = |e: &&str| self.folder.with_file_name(format!("{stem}.{e}"));
            let there = |p: &PathBuf| p.symlink_metadata().is_ok_and(|m| m.is_file());
            match EXTENSIONS.iter().map(named).find(there) {
                Some(path) => out.push(path),
                None => break,
            }
        }
        out
    }

    /// What its log says last.
    pub fn overview(&self) -> Overview {
        let mut out = Overview { id: self.id.clone(), name: self.name.clone(), ..Overview::default() };
        out.age = self.log().metadata().and_then(|m| m.modified()).ok().and_then(|t| {
            // A clock that was set back makes no age.
            t.elapsed().ok().map(|d| d.as_secs())
        });
        let first = follow::read(&self.log(), &follow::Place::default()).unwrap_or_default().events;
        let last = follow::last(&self.log(), TAIL).unwrap_or_default();
        let text = |e: &Value, key: &str| e.get(key).and_then(Value::as_str).map(str::to_owned);
        let number = |e: &Value, key: &str| e.get(key).and_then(Value::as_u64).unwrap_or(0);
        for event in first.iter().take(16).chain(&last) {
            match event["event"].as_str().unwrap_or_default() {
                "started" => (out.what, out.finished) = (text(event, "what"), false),
                "stage_started" => (out.stage, out.finished) = (text(event, "stage"), false),
                "step" | "fit_step" => {
                    (out.step, out.steps) = (number(event, "step"), number(event, "steps"));
                }
                "finished" => out.finished = true,
                _ => {}
            }
        }
        let there = |p: &&&str| self.folder.join(p).is_file();
        out.pictures = PICTURES.iter().filter(there).copied().collect();
        let name = |p: PathBuf| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
        out.assets = self.products().into_iter().map(name).collect();
        out
    }
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

fn is_run_name(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "gen3d")
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|e| Error::io(path, e))
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let file: File = follow::open(path)?;
    if file.metadata()?.len() > LARGEST {
        return Err(io::Error::other("too large"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn runs_are_found_by_folder_product_and_folder_of_runs() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for run in ["b.gen3d", "sub/a.gen3d", "1/2/3/deep.gen3d", "plain"] {
            fs::create_dir_all(at(run)).unwrap();
        }
        fs::write(at("b.glb"), "x").unwrap();
        fs::write(at("b-2.glb"), "y").unwrap();
        let names = |path: &Path| -> Vec<String> {
            Site::open(path).unwrap().runs().into_iter().map(|r| r.name).collect()
        };
        assert_eq!(names(dir.path()), ["b", "sub/a"]);
        assert_eq!(names(&at("b.gen3d")), ["b"]);
        assert_eq!(names(&at("b.glb")), ["b"]);
        assert_eq!(names(&at("b.obj")), ["b"], "a product that is not written yet");
        assert!(names(&at("plain")).is_empty());
        let e = Site::open(&at("c.glb")).unwrap_err();
        assert!(e.is_usage() && e.hint_text().is_some());
        let site = Site::open(dir.path()).unwrap();
        let run = site.find(&site.runs()[0].id).unwrap();
        assert_eq!(run.overview().assets, ["b.glb", "b-2.glb"]);
        assert_eq!(run.file("asset-1.glb").unwrap().0, b"y");
        for name in ["asset-2.glb", "asset-.glb", "asset-0.obj", "b.glb", "../b.glb", "config.toml", ""] {
            assert!(run.file(name).is_none(), "{name}");
        }
        assert!(site.find("..").is_none() && site.find("").is_none());
    }

    #[test]
    #[cfg(unix)]
    fn links_out_of_a_run_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("a.gen3d");
        fs::create_dir(&run).unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        for name in ["a.gen3d/preview.png", "a.gen3d/config.toml", "a.glb"] {
            std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink(&run, dir.path().join("b.gen3d")).unwrap();
        let site = Site::open(dir.path()).unwrap();
        let runs = site.runs();
        assert_eq!(runs.len(), 1);
        assert!(runs[0].file("preview.png").is_none() && runs[0].config().is_none());
        assert!(runs[0].file("asset-0.glb").is_none());
    }
}
