//! Where a run writes: the product `out.glb`, and `out.gen3d/` beside it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The asset formats by file extension.
pub const EXTENSIONS: [&str; 4] = ["glb", "obj", "ply", "usda"];

/// The product and the folder beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    product: PathBuf,
    folder: PathBuf,
}

impl RunFolder {
    /// Checks, before any work is done, that `product` can be written later. Creates nothing.
    ///
    /// An existing product is not an obstacle: it is replaced, in one step, when the new one is
    /// complete.
    ///
    /// # Errors
    /// With hints: unknown extension, missing or unwritable folder, `product` is a folder or
    /// read-only.
    pub fn check(product: &Path) -> Result<Self> {
        let invalid = |reason: String, hint: String| {
            Err(Error::invalid(format!("--out {}", product.display()), reason).hint(hint))
        };
        let extension = product.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        match extension {
            Some(e) if EXTENSIONS.contains(&e.as_str()) => {}
            Some(e) => return invalid(format!("unknown extension `.{e}`"), formats()),
            None => return invalid("no file extension".into(), formats()),
        }
        let parent = parent(product);
        if !parent.exists() {
            let hint = format!("create it first: mkdir -p {}", parent.display());
            return invalid(format!("the folder {} does not exist", parent.display()), hint);
        }
        if product.is_dir() {
            return invalid("is a folder".into(), "name a file in it".into());
        }
        if fs::metadata(product).is_ok_and(|m| m.permissions().readonly()) {
            return invalid("exists and is read-only".into(), "choose another name or remove it".into());
        }
        let folder = product.with_extension("gen3d");
        if folder.exists() && !folder.is_dir() {
            let hint = "the run keeps its checkpoints in a folder of that name; choose another --out".into();
            return invalid(format!("{} exists and is no folder", folder.display()), hint);
        }
        let probe = if folder.is_dir() { &folder } else { parent };
        tempfile::Builder::new().prefix(".gen3d-").tempfile_in(probe).map_err(|e| {
            Error::io(probe, e).hint("choose a folder that you may write to, on a disk that has space")
        })?;
        Ok(Self { product: product.to_owned(), folder })
    }

    /// The asset of a particle, from 0: the product itself, then `jay-2.glb`, `jay-3.glb` …
    pub fn particle(&self, particle: usize) -> PathBuf {
        if particle == 0 {
            return self.product.clone();
        }
        let part = |s: Option<&std::ffi::OsStr>| s.unwrap_or_default().to_string_lossy().into_owned();
        let (stem, extension) = (part(self.product.file_stem()), part(self.product.extension()));
        self.product.with_file_name(format!("{stem}-{}.{extension}", particle + 1))
    }

    /// The product.
    pub fn product(&self) -> &Path {
        &self.product
    }

    /// The folder beside it.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Removes an earlier run's pictures of its field: a run that begins anew has none yet.
    pub(crate) fn forget_previews(&self) {
        for name in ["preview.png", "history.png"] {
            // What is not there, or cannot be removed, will be replaced.
            let _ = fs::remove_file(self.file(name));
        }
    }

    /// Creates the folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(|e| Error::io(&self.folder, e))
    }
}

fn formats() -> String {
    format!("formats: {}", EXTENSIONS.map(|e| format!(".{e}")).join(", "))
}

/// The folder a file is in.
fn parent(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(path: &Path) -> String {
        let e = RunFolder::check(path).unwrap_err();
        assert!(e.hint_text().is_some(), "{e}");
        e.to_string()
    }

    #[test]
    fn impossible_products_are_refused_before_work() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(reason(&at("a.stl")).contains("unknown extension `.stl`"));
        assert!(reason(&at("a")).contains("no file extension"));
        assert!(reason(&at("no/such/a.glb")).contains("does not exist"));
        fs::create_dir(at("folder.glb")).unwrap();
        assert!(reason(&at("folder.glb")).contains("is a folder"));
        fs::write(at("b.gen3d"), "").unwrap();
        assert!(reason(&at("b.glb")).contains("exists and is no folder"));
        // Nothing may be created in /proc, not even by root.
        assert!(reason(Path::new("/proc/a.glb")).starts_with("/proc: "));
        let ok = RunFolder::check(&at("jay.GLB")).unwrap();
        assert_eq!(ok.path(), at("jay.gen3d"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the check leaves nothing behind");
    }
}
