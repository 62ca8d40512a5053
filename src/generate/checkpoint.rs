//! Checkpoints: everything a run needs to go on as if it had never stopped.
//!
//! A safetensors file of named f32 tensors (parameters, Adam's moments, occupancy), with the step,
//! prompt, prior and resolved configuration in its header, and a SHA-256 over all of it. The two
//! newest are kept: one that is damaged costs some steps, not the run.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

use super::folder::RunFolder;
use crate::{Error, Result, asset};

/// The newest checkpoint's name in the run folder.
pub const CURRENT: &str = "checkpoint.safetensors";
/// The one before.
pub const PREVIOUS: &str = "checkpoint.previous.safetensors";

/// Changes when the meaning of the tensors does.
const FORMAT: &str = "gen3d-checkpoint-1";

/// Named tensors of the renderer and its field, flat.
pub type State = BTreeMap<String, Vec<f32>>;

/// A run at the end of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u32,
    /// The prompt.
    pub prompt: String,
    /// The prior's identity (name and digest of its weights).
    pub prior: String,
    /// The resolved configuration as TOML.
    pub config: String,
    /// The renderer's state.
    pub state: State,
}

impl Checkpoint {
    /// Writes the checkpoint; the one that was newest becomes the previous one.
    ///
    /// # Errors
    /// [`Error::Io`] (a full disk, say). Whatever happens, one complete checkpoint remains.
    pub fn save(&self, run: &RunFolder) -> Result<PathBuf> {
        let (current, previous) = (run.file(CURRENT), run.file(PREVIOUS));
        let bytes = self.to_bytes()?;
        let fresh = run.file("checkpoint.new.safetensors");
        asset::replace(&fresh, &bytes)?;
        if current.exists() {
            fs::rename(&current, &previous).map_err(|e| Error::io(&previous, e))?;
        }
        fs::rename(&fresh, &current).map_err(|e| Error::io(&current, e))?;
        Ok(current)
    }

    /// Reads the newest usable checkpoint of a run, if there is any, with a warning about each
    /// newer one that could not be used.
    ///
    /// # Errors
    /// The newest one's error, if there are checkpoints and none is usable.
    pub fn load_newest(run: &RunFolder) -> Result<Option<(Self, Vec<String>)>> {
        let mut errors: Vec<Error> = Vec::new();
        for name in [CURRENT, PREVIOUS] {
            let path = run.file(name);
            if !path.exists() {
                continue;
            }
            match Self::read(&path) {
                Ok(checkpoint) => {
                    let warnings = errors.iter().map(|e| format!("{e}; using the checkpoint before")).collect();
                    return Ok(Some((checkpoint, warnings)));
                }
                Err(e) => errors.push(e),
            }
        }
        match errors.into_iter().next() {
            Some(e) => Err(e.hint("start anew without --resume")),
            None => Ok(None),
        }
    }

    /// Reads and verifies one file.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::File`] if it is truncated, damaged or of another format.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::from_bytes(&bytes).map_err(|reason| Error::file(path, format!("damaged checkpoint: {reason}")))
    }

    /// Removes a run's checkpoints.
    ///
    /// # Errors
    /// [`Error::Io`] if one exists and cannot be removed.
    pub fn remove_all(run: &RunFolder) -> Result<()> {
        for name in [CURRENT, PREVIOUS] {
            let path = run.file(name);
            if path.exists() {
                fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
            }
        }
        Ok(())
    }

    fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("step".to_owned(), self.step.to_string()),
            ("prompt".to_owned(), self.prompt.clone()),
            ("prior".to_owned(), self.prior.clone()),
            ("config".to_owned(), self.config.clone()),
        ]);
        metadata.insert("sha256".to_owned(), self.digest());
        let views: Result<Vec<_>, _> = self
            .state
            .iter()
            .map(|(name, data)| {
                let bytes: &[u8] = bytemuck::cast_slice(data);
                TensorView::new(Dtype::F32, vec![data.len()], bytes).map(|view| (name.as_str(), view))
            })
            .collect();
        let to_error = |e: safetensors::SafeTensorError| Error::Failed(format!("checkpoint: {e}"));
        safetensors::serialize(views.map_err(to_error)?, Some(metadata)).map_err(to_error)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let text = |key: &str| metadata.get(key).cloned().ok_or_else(|| format!("no `{key}` in its header"));
        let format = text("format")?;
        if format != FORMAT {
            return Err(format!("format `{format}`, not `{FORMAT}`"));
        }
        let mut state = State::new();
        for (name, view) in tensors.tensors() {
            if view.dtype() != Dtype::F32 {
                return Err(format!("`{name}` is not f32"));
            }
            state.insert(name, bytemuck::pod_collect_to_vec(view.data()));
        }
        let checkpoint = Self {
            step: text("step")?.parse().map_err(|e| format!("step: {e}"))?,
            prompt: text("prompt")?,
            prior: text("prior")?,
            config: text("config")?,
            state,
        };
        if checkpoint.digest() != text("sha256")? {
            return Err("its checksum does not match".into());
        }
        Ok(checkpoint)
    }

    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        // Lengths first, so that no two different contents run together to the same bytes.
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(&self.step.to_le_bytes());
        part(self.prompt.as_bytes());
        part(self.prior.as_bytes());
        part(self.config.as_bytes());
        for (name, data) in &self.state {
            part(name.as_bytes());
            part(bytemuck::cast_slice(data));
        }
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(step: u32) -> Checkpoint {
        Checkpoint {
            step,
            prompt: "a \"jay\"\n".into(),
            prior: "mini".into(),
            config: "seed = 1\n".into(),
            state: State::from([
                ("field.grid".into(), vec![1.5, f32::MIN_POSITIVE / 4.0, -0.0]),
                ("empty".into(), vec![]),
            ]),
        }
    }

    fn run() -> (tempfile::TempDir, RunFolder) {
        let dir = tempfile::tempdir().unwrap();
        let run = RunFolder::check(&dir.path().join("a.glb")).unwrap();
        run.create().unwrap();
        (dir, run)
    }

    #[test]
    fn what_was_saved_is_loaded_bit_for_bit() {
        let (_dir, run) = run();
        assert!(Checkpoint::load_newest(&run).unwrap().is_none());
        sample(7).save(&run).unwrap();
        let (loaded, warnings) = Checkpoint::load_newest(&run).unwrap().unwrap();
        assert!(warnings.is_empty());
        assert_eq!(loaded, sample(7));
        assert!(loaded.state["field.grid"][2].is_sign_negative());
    }

    #[test]
    fn damage_anywhere_is_noticed_and_the_previous_one_serves() {
        let (_dir, run) = run();
        sample(1).save(&run).unwrap();
        sample(2).save(&run).unwrap();
        let path = run.file(CURRENT);
        let good = fs::read(&path).unwrap();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            assert!(Checkpoint::from_bytes(&bad).ok().is_none_or(|c| c == sample(2)), "byte {i}");
            assert!(Checkpoint::from_bytes(&good[..i]).is_err(), "cut at {i}");
        }
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        let (loaded, warnings) = Checkpoint::load_newest(&run).unwrap().unwrap();
        assert_eq!(loaded.step, 1);
        assert!(warnings[0].contains("damaged checkpoint"), "{warnings:?}");
        fs::write(run.file(PREVIOUS), b"").unwrap();
        let e = Checkpoint::load_newest(&run).unwrap_err();
        assert!(e.to_string().contains("damaged checkpoint") && e.hint_text().is_some());
    }
}
