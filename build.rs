//! Validates every permutation of every shader and embeds the sources; embeds the prior.

#[path = "build/mini.rs"]
mod mini;
#[path = "src/gpu/shader/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the build script uses a part of the module that it shares with the library"
)]
mod shader;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=shaders");
    println!("cargo::rerun-if-changed=src/gpu/shader");
    if let Err(messages) = embed() {
        for line in messages.iter().flat_map(|m| m.lines()) {
            println!("cargo::error={line}");
        }
    }
    mini::embed()
}

fn embed() -> Result<(), Vec<String>> {
    let variable = |name: &str| std::env::var_os(name).ok_or_else(|| vec![format!("{name} is not set")]);
    let dir = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("shaders");
    let out = PathBuf::from(variable("OUT_DIR")?).join("shaders.rs");
    let sources = shader::Sources::from_dir(&dir).map_err(|e| vec![e.to_string()])?;
    sources.check_all().map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let mut text = String::from("&[\n");
    for (path, source) in sources.iter() {
        let _ = writeln!(text, "    ({path:?}, {source:?}),");
    }
    text.push_str("]\n");
    std::fs::write(&out, text).map_err(|e| vec![format!("{}: {e}", out.display())])
}
