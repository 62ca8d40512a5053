//! Writes `OUT_DIR/mini.rs`: the files of `models/mini` as constants, so that the binary carries its prior.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Files that the loader reads; the model card and sample sheets stay outside the binary.
fn wanted(path: &Path) -> bool {
    let ext = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    matches!(ext, "json" | "txt" | "safetensors")
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() {
            walk(&path, files);
        } else if wanted(&path) {
            files.push(path);
        }
    }
}

/// See the module's text. An absent folder gives an empty list, which the loader reports.
pub fn embed() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=models/mini");
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let dir = root.join("models/mini");
    let mut files = Vec::new();
    walk(&dir, &mut files);
    files.sort();
    let mut text = String::from("static MINI: &[(&str, &[u8])] = &[\n");
    for file in &files {
        let name = file.strip_prefix(&dir).unwrap_or(file).to_string_lossy().replace('\\', "/");
        let _ = writeln!(text, "    ({name:?}, include_bytes!({:?})),", file.to_string_lossy());
    }
    text.push_str("];\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    std::fs::write(out.join("mini.rs"), text)
}
