//! Priors by name: what `gen3d models` keeps track of.
//!
//! Below the data folder (`$GEN3D_HOME`, else `$XDG_DATA_HOME/gen3d`, else `~/.local/share/gen3d`) lies
//! `models/`. A pulled prior is a folder there; one that lies elsewhere is a small file `NAME.toml` that
//! says where.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::Prior;
use crate::error::{Error, Result};

/// A prior that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What `--prior` takes.
    pub name: String,
    /// The folder or checkpoint; nothing for the embedded prior.
    pub path: Option<PathBuf>,
    /// Digest of the weights when it was added, if it was.
    pub sha256: Option<String>,
    /// The path is still there.
    pub present: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    path: PathBuf,
    sha256: String,
}

/// The data folder.
pub fn home() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("GEN3D_HOME")
        .or_else(|| set("XDG_DATA_HOME").map(|d| d.join("gen3d")))
        .or_else(|| set("HOME").map(|d| d.join(".local/share/gen3d")))
        .unwrap_or_else(|| PathBuf::from(".gen3d"))
}

/// Where named priors lie.
pub fn models() -> PathBuf {
    home().join("models")
}

/// Refuses names that would be a path, a hidden file or the embedded prior.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Error::invalid("name", format!("{name:?}"))
            .hint("use letters, digits, '-', '_' and '.', at most 64, not beginning with '.'"));
    }
    // Unfinished downloads are called so.
    if name.ends_with(".partial") {
        return Err(Error::invalid("name", "must not end in .partial"));
    }
    if name == "mini" {
        return Err(Error::invalid("name", "mini is the embedded prior"));
    }
    Ok(())
}

/// Where the prior of that name lies.
pub fn find(name: &str) -> Option<PathBuf> {
    find_in(&models(), name)
}

fn find_in(models: &Path, name: &str) -> Option<PathBuf> {
    check_name(name).ok()?;
    let folder = models.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    Some(read_link(&models.join(format!("{name}.toml"))).ok()?.path)
}

fn read_link(path: &Path) -> Result<Link> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    toml::from_str(&text).map_err(|e| Error::file(path, e.to_string()))
}

/// The embedded prior and all named ones, by name.
pub fn list() -> Vec<Entry> {
    let mini = Entry { name: "mini".into(), path: None, sha256: None, present: true };
    let mut all = vec![mini];
    all.extend(list_in(&models()));
    all
}

fn list_in(models: &Path) -> Vec<Entry> {
    let files = std::fs::read_dir(models).into_iter().flatten().flatten();
    let mut found: Vec<Entry> = files
        .filter_map(|file| {
            let path = file.path();
            let name = file.file_name().into_string().ok()?;
            if path.is_dir() {
                return check_name(&name).is_ok().then_some(Entry {
                    name,
                    path: Some(path),
                    sha256: None,
                    present: true,
                });
            }
            let name = name.strip_suffix(".toml").filter(|n| check_name(n).is_ok())?.to_owned();
            let link = read_link(&path).ok()?;
            let present = link.path.exists();
            Some(Entry { name, path: Some(link.path), sha256: Some(link.sha256), present })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Names a folder or checkpoint, after loading it once: what is damaged is refused here and not in the
/// middle of a run.
///
/// # Errors
/// As [`Prior::load`]; a name that is taken or no name; a data folder that cannot be written.
pub fn add(name: &str, path: &Path) -> Result<Entry> {
    add_in(&models(), name, path)
}

fn add_in(models: &Path, name: &str, path: &Path) -> Result<Entry> {
    check_name(name)?;
    if let Some(old) = find_in(models, name) {
        return Err(Error::invalid("name", format!("{name} is already {}", old.display()))
            .hint("choose another name, or remove the old one with `gen3d models remove`"));
    }
    let full = std::fs::canonicalize(path).map_err(|e| Error::io(path, e))?;
    let text = full.to_str().ok_or_else(|| Error::file(path, "is no UTF-8 path"))?;
    let prior = Prior::load(text, &Device::Cpu)?;
    let link = Link { path: full.clone(), sha256: prior.digest.clone() };
    let toml = toml::to_string(&link).map_err(|e| Error::Failed(e.to_string()))?;
    std::fs::create_dir_all(models).map_err(|e| Error::io(models, e))?;
    crate::asset::replace(&models.join(format!("{name}.toml")), toml.as_bytes())?;
    Ok(Entry { name: name.into(), path: Some(full), sha256: Some(prior.digest), present: true })
}

/// Forgets a name. What was pulled is deleted; what lies elsewhere stays.
///
/// # Errors
/// [`Error::Invalid`] if there is no such name; files that cannot be removed.
pub fn remove(name: &str) -> Result<()> {
    remove_in(&models(), name)
}

fn remove_in(models: &Path, name: &str) -> Result<()> {
    check_name(name)?;
    let (folder, link) = (models.join(name), models.join(format!("{name}.toml")));
    if folder.is_dir() {
        return std::fs::remove_dir_all(&folder).map_err(|e| Error::io(folder, e));
    }
    if link.is_file() {
        return std::fs::remove_file(&link).map_err(|e| Error::io(link, e));
    }
    Err(Error::invalid("name", format!("no prior {name:?}")).hint("`gen3d models list` names them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_added_found_listed_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let models = home.path().join("models");
        let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini");
        let entry = add_in(&models, "small", &mini).unwrap();
        assert_eq!(entry.sha256.as_ref().map(String::len), Some(64));
        assert_eq!(find_in(&models, "small"), std::fs::canonicalize(&mini).ok());
        std::fs::create_dir(models.join("pulled")).unwrap();
        std::fs::create_dir(models.join("half.partial")).unwrap();
        let names: Vec<String> = list_in(&models).into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["pulled", "small"]);
        assert!(add_in(&models, "small", &mini).unwrap_err().to_string().contains("already"));
        remove_in(&models, "small").unwrap();
        remove_in(&models, "pulled").unwrap();
        assert!(mini.is_dir() && list_in(&models).is_empty());
        assert!(remove_in(&models, "small").unwrap_err().is_usage());
    }

    #[test]
    fn bad_names_and_damaged_priors_are_refused() {
        let home = tempfile::tempdir().unwrap();
        for name in ["", ".", "..", "a/b", "a\\b", ".hidden", "mini", "x.partial", "ä", &"x".repeat(65)] {
            assert!(check_name(name).unwrap_err().is_usage(), "{name}");
            assert_eq!(find_in(home.path(), name), None);
        }
        let empty = home.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        assert!(add_in(home.path(), "e", &empty).is_err());
        assert!(add_in(home.path(), "n", &home.path().join("nowhere")).is_err());
        std::fs::write(home.path().join("bad.toml"), "path = 3").unwrap();
        assert!(list_in(home.path()).iter().all(|e| e.name != "bad" && e.name != "e"));
    }
}
