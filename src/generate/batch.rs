//! Many prompts, one after the other: a journal, retries, and one manifest of what there is.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Job;
use super::event::Summary;
use super::folder::RunFolder;
use crate::asset::replace;
use crate::config::Config;
use crate::prompts::Prompt;
use crate::{Error, Result};

/// What to make, and where.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The prompts, in this order.
    pub prompts: Vec<Prompt>,
    /// The folder of the assets; made if it is not there.
    pub dir: PathBuf,
    /// Ending of the assets' names: see [`super::folder::EXTENSIONS`].
    pub format: String,
    /// The configuration of all.
    pub config: Config,
    /// How often a prompt that failed is tried again, each time with the next seed.
    pub retries: u32,
}

/// What became of one prompt: a line of `batch.jsonl`, and an entry of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// See [`Prompt::id`].
    pub id: String,
    /// The prompt.
    pub prompt: String,
    /// SHA-256 of the configuration: another one makes the asset anew.
    pub config: String,
    /// Seed of the last try.
    pub seed: u64,
    /// Tries.
    pub tries: u32,
    /// The asset; nothing if it failed.
    pub file: Option<PathBuf>,
    /// Why it failed.
    pub error: Option<String>,
    /// Seconds of all tries.
    pub seconds: f64,
    /// Triangles of the asset.
    pub triangles: usize,
    /// Size of the asset in bytes.
    pub bytes: u64,
    /// Closed and without edges of more than two triangles.
    pub sound: bool,
}

/// What the listener hears.
#[derive(Debug)]
pub enum News<'a> {
    /// A prompt begins: its number from 0.
    Begins(usize, &'a Prompt),
    /// A prompt was done by an earlier call.
    Known(usize, &'a Entry),
    /// A try failed and another follows.
    Retries(&'a Error),
    /// A prompt is done or has failed.
    Ended(usize, &'a Entry),
}

/// Makes one asset.
pub type Make<'a> = &'a mut dyn FnMut(&Job) -> Result<Summary>;

/// Runs a batch. What the journal of an earlier call knows as done under the same prompt and configuration, and
/// whose file is there, is not made again; an interrupted run goes on from its checkpoint; a failure does not
/// stop the others. Returns the entries in the order of the prompts.
///
/// # Errors
/// A folder that cannot be written; [`Error::Interrupted`] if `cancel` became true.
pub fn run(
    batch: &Batch,
    make: Make<'_>,
    cancel: &AtomicBool,
    listener: &mut dyn FnMut(News<'_>),
) -> Result<Vec<Entry>> {
    std::fs::create_dir_all(&batch.dir).map_err(|e| Error::io(&batch.dir, e))?;
    let config = fingerprint(&batch.config)?;
    let known = journal(&batch.dir);
    let mut entries = Vec::new();
    for (number, prompt) in batch.prompts.iter().enumerate() {
        let done = known.iter().rev().find(|e| {
            e.id == prompt.id
                && (&e.prompt, &e.config) == (&prompt.text, &config)
                && e.file.as_ref().is_some_and(|f| batch.dir.join(f).is_file())
        });
        if let Some(entry) = done {
            listener(News::Known(number, entry));
            entries.push(entry.clone());
            continue;
        }
        listener(News::Begins(number, prompt));
        let entry = one(batch, prompt, &config, make, cancel, listener)?;
        append(&batch.dir, &entry)?;
        listener(News::Ended(number, &entry));
        entries.push(entry);
        manifest(&batch.dir, &entries)?;
    }
    manifest(&batch.dir, &entries)?;
    Ok(entries)
}

/// One prompt with its retries.
fn one(
    batch: &Batch,
    prompt: &Prompt,
    config: &str,
    make: Make<'_>,
    cancel: &AtomicBool,
    listener: &mut dyn FnMut(News<'_>),
) -> Result<Entry> {
    let name = format!("{}.{}", prompt.id, batch.format);
    let mut entry = Entry {
        id: prompt.id.clone(),
        prompt: prompt.text.clone(),
        config: config.to_owned(),
        seed: batch.config.seed,
        tries: 0,
        file: None,
        error: None,
        seconds: 0.0,
        triangles: 0,
        bytes: 0,
        sound: false,
    };
    let start = std::time::Instant::now();
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let mut own = batch.config.clone();
        own.seed = batch.config.seed + u64::from(entry.tries);
        (entry.seed, entry.tries) = (own.seed, entry.tries + 1);
        let made = job(&batch.dir.join(&name), prompt, own).and_then(|job| make(&job));
        entry.seconds = start.elapsed().as_secs_f64();
        match made {
            Ok(summary) => {
                (entry.triangles, entry.bytes) = (summary.mesh.triangles, summary.bytes);
                entry.sound = summary.mesh.watertight && summary.mesh.manifold;
                entry.file = Some(name.into());
                entry.error = None;
                return Ok(entry);
            }
            Err(e) if is_interrupt(&e) => return Err(e),
            // Another seed does not help against a wrong word in the configuration.
            Err(e) if entry.tries <= batch.retries && !e.is_usage() => listener(News::Retries(&e)),
            Err(e) => {
                entry.error = Some(e.to_string());
                return Ok(entry);
            }
        }
    }
}

/// The run of `path`; one of the same configuration that was interrupted is continued.
fn job(path: &Path, prompt: &Prompt, config: Config) -> Result<Job> {
    let folder = RunFolder::check(path)?;
    let text = std::fs::read_to_string(folder.file("config.toml")).ok();
    let saved = text.and_then(|t| Config::from_toml(&t, "config.toml").ok());
    let resume = !path.exists() && saved.is_some_and(|s| s.differences(&config).is_empty());
    Ok(Job { prompt: prompt.text.clone(), folder, config, resume })
}

fn is_interrupt(error: &Error) -> bool {
    match error {
        Error::Interrupted => true,
        Error::Hinted { source, .. } => is_interrupt(source),
        _ => false,
    }
}

/// What decides the assets: neither the device's name nor how often something is reported.
fn fingerprint(config: &Config) -> Result<String> {
    let neutral = Config { device: String::new(), output: Default::default(), ..config.clone() };
    Ok(format!("{:x}", Sha256::digest(neutral.to_toml()?)))
}

/// The entries of earlier calls; lines that a crash cut off do not count.
fn journal(dir: &Path) -> Vec<Entry> {
    let Ok(file) = File::open(dir.join("batch.jsonl")) else { return Vec::new() };
    let lines = BufReader::new(file).lines().map_while(std::result::Result::ok);
    lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
}

/// Adds a line, on the disk before anything else happens.
fn append(dir: &Path, entry: &Entry) -> Result<()> {
    let path = dir.join("batch.jsonl");
    let failed = |e: std::io::Error| Error::io(&path, e);
    let line = serde_json::to_string(entry).map_err(|e| Error::Failed(e.to_string()))?;
    let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
    // The line before may have been cut off.
    file.write_all(format!("\n{line}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

fn manifest(dir: &Path, entries: &[Entry]) -> Result<()> {
    let text = serde_json::to_string_pretty(entries).map_err(|e| Error::Failed(e.to_string()))?;
    replace(&dir.join("manifest.json"), (text + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::MeshReport;

    fn batch(dir: &Path) -> Batch {
        let prompt = |text: &str| Prompt { id: text.into(), text: text.into(), ..Prompt::default() };
        Batch {
            prompts: ["cat", "dog", "owl"].map(prompt).to_vec(),
            dir: dir.join("out"),
            format: "glb".into(),
            config: Config { seed: 5, ..Config::default() },
            retries: 1,
        }
    }

    /// Writes a file; the owl never works, the dog at its second try.
    fn fake(job: &Job) -> Result<Summary> {
        if job.prompt == "owl" || (job.prompt == "dog" && job.config.seed == 5) {
            return Err(Error::Failed("an empty scene".into()));
        }
        std::fs::write(job.folder.product(), "x").unwrap();
        let mesh: MeshReport = MeshReport { triangles: 7, ..MeshReport::default() };
        let (output, run_folder) = (job.folder.product().to_owned(), job.folder.path().to_owned());
        Ok(Summary {
            output,
            run_folder,
            mesh,
            bytes: 1,
            peak_memory: 0,
            seconds: 1.0,
            timings: Vec::new(),
            others: Vec::new(),
        })
    }

    fn go(batch: &Batch) -> (Vec<Entry>, Vec<String>) {
        let mut made = Vec::new();
        let mut make = |job: &Job| {
            made.push(format!("{} {}", job.prompt, job.config.seed));
            fake(job)
        };
        let entries = run(batch, &mut make, &AtomicBool::new(false), &mut |_| ()).unwrap();
        (entries, made)
    }

    #[test]
    fn failures_are_retried_and_stop_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let batch = batch(dir.path());
        let (entries, made) = go(&batch);
        assert_eq!(made, ["cat 5", "dog 5", "dog 6", "owl 5", "owl 6"]);
        assert_eq!(entries.iter().map(|e| e.tries).collect::<Vec<_>>(), [1, 2, 2]);
        assert!(entries[1].file.is_some() && entries[1].seed == 6);
        assert!(entries[2].file.is_none() && entries[2].error.as_ref().unwrap().contains("empty"));
        let text = std::fs::read_to_string(batch.dir.join("manifest.json")).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Entry>>(&text).unwrap(), entries);
    }

    #[test]
    fn a_second_call_makes_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let mut batch = batch(dir.path());
        let (first, _) = go(&batch);
        // A crash while the journal was written.
        let path = batch.dir.join("batch.jsonl");
        let text = std::fs::read_to_string(&path).unwrap() + "{\"id\": \"ca";
        std::fs::write(&path, text).unwrap();
        std::fs::remove_file(batch.dir.join("dog.glb")).unwrap();
        batch.config.device = "cpu".into();
        let (second, made) = go(&batch);
        assert_eq!(made, ["dog 5", "dog 6", "owl 5", "owl 6"]);
        assert_eq!(second[0], first[0]);
        assert_eq!(go(&batch).1, ["owl 5", "owl 6"], "the journal goes on after the cut line");
        batch.config.optim.steps += 1;
        assert_eq!(go(&batch).1.len(), 5, "another configuration");
    }

    #[test]
    fn an_interruption_ends_the_batch() {
        let dir = tempfile::tempdir().unwrap();
        let batch = batch(dir.path());
        let cancel = AtomicBool::new(false);
        let mut make = |job: &Job| {
            cancel.store(true, Ordering::Relaxed);
            fake(job)
        };
        let error = run(&batch, &mut make, &cancel, &mut |_| ()).unwrap_err();
        assert!(matches!(error, Error::Interrupted));
        assert_eq!(journal(&batch.dir).len(), 1, "what was finished is kept");
    }
}
