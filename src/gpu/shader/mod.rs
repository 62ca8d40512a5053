//! Shader assembly: imports, conditions, numeric defines; parsing and validation by naga.
//!
//! This one module is compiled three times over: into `build.rs` (which validates every permutation
//! and embeds the sources), into the library (which assembles them at run time) and thereby into
//! `tests/shader_validation.rs`. It depends on naga and the standard library alone.

mod check;
mod preprocess;

pub use check::{Binding, BindingKind, Checked};
pub use preprocess::{Assembled, Defines};

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The file that lists which entry files exist with which defines.
pub const PERMUTATIONS: &str = "permutations";

/// What is wrong with a shader, worded with the file and line the author wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShaderError(pub String);

impl fmt::Display for ShaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ShaderError {}

/// One pipeline to be built: an entry file and its defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permutation {
    /// Entry file without `.wgsl`.
    pub entry: String,
    /// The defines it is assembled with.
    pub defines: Defines,
}

/// All shader files by their path under `shaders/`, for instance `adam.wgsl` and `shared/rng.wgsl`.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: BTreeMap<String, String>,
}

impl Sources {
    /// Sources from `(path, text)` pairs.
    pub fn new<P: Into<String>, T: Into<String>>(files: impl IntoIterator<Item = (P, T)>) -> Self {
        Self { files: files.into_iter().map(|(path, text)| (path.into(), text.into())).collect() }
    }

    /// Every `.wgsl` file of `dir` and of `dir/shared`, and the permutation list.
    pub fn from_dir(dir: &Path) -> Result<Self, ShaderError> {
        let mut files = BTreeMap::new();
        for (folder, prefix) in [(dir.to_owned(), ""), (dir.join("shared"), "shared/")] {
            let io = |e: std::io::Error| ShaderError(format!("{}: {e}", folder.display()));
            for entry in std::fs::read_dir(&folder).map_err(io)? {
                let entry = entry.map_err(io)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(".wgsl") || (prefix.is_empty() && name == PERMUTATIONS) {
                    let text = std::fs::read_to_string(entry.path()).map_err(io)?;
                    files.insert(format!("{prefix}{name}"), text);
                }
            }
        }
        Ok(Self { files })
    }

    /// `(path, text)` of every file, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The permutation list: one line a pipeline, `entry [NAME | NAME=NUMBER]…`, `#` comments.
    /// It is an error to list a file that does not exist or to leave out one that does.
    pub fn permutations(&self) -> Result<Vec<Permutation>, ShaderError> {
        let text = self.files.get(PERMUTATIONS).map_or("", String::as_str);
        let mut list = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split('#').next().unwrap_or("").split_whitespace();
            let Some(entry) = words.next() else { continue };
            let at = |reason: String| ShaderError(format!("{PERMUTATIONS}:{}: {reason}", number + 1));
            if !self.files.contains_key(&format!("{entry}.wgsl")) {
                return Err(at(format!("there is no {entry}.wgsl")));
            }
            let defines = words.map(str::to_owned).collect::<Vec<_>>();
            let defines = Defines::parse(&defines).map_err(|e| at(e.0))?;
            list.push(Permutation { entry: entry.to_owned(), defines });
        }
        let listed = |path: &str| list.iter().any(|p| format!("{}.wgsl", p.entry) == path);
        match self.files.keys().find(|p| p.ends_with(".wgsl") && !p.starts_with("shared/") && !listed(p)) {
            Some(path) => Err(ShaderError(format!("{path} is not listed in {PERMUTATIONS}"))),
            None => Ok(list),
        }
    }

    /// The complete text of entry file `entry` (without `.wgsl`) under `defines`.
    pub fn assemble(&self, entry: &str, defines: &Defines) -> Result<Assembled, ShaderError> {
        preprocess::assemble(&self.files, entry, defines)
    }

    /// Assembles and validates every listed permutation; all failures, not only the first.
    pub fn check_all(&self) -> Result<Vec<(Permutation, Checked)>, Vec<ShaderError>> {
        let list = self.permutations().map_err(|e| vec![e])?;
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for permutation in list {
            match self.assemble(&permutation.entry, &permutation.defines).and_then(|a| a.check()) {
                Ok(checked) => good.push((permutation, checked)),
                Err(error) => bad.push(error),
            }
        }
        if bad.is_empty() { Ok(good) } else { Err(bad) }
    }
}
