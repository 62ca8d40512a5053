//! Which priors there are to choose from.

use std::path::Path;

use serde::Serialize;

use crate::prior::Prior;

/// Where priors are looked for, from the current folder.
const FOLDER: &str = "models";

/// A prior and what it is.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) about: String,
}

/// The embedded prior, the diffusers folders under `models/` of the current folder, and what has a name.
pub(super) fn find() -> Vec<Found> {
    let mut found = vec![embedded()];
    found.extend(in_folder(Path::new(FOLDER)));
    found.extend(crate::prior::registry::list().into_iter().filter_map(|entry| {
        let path = entry.path?;
        let about = describe(&path).map_or(format!("at {}", path.display()), |f| f.about);
        Some(Found { name: entry.name, about })
    }));
    found
}

/// What the binary carries; loaded once, so that damage shows here and not in the first run.
fn embedded() -> Found {
    let about = match Prior::load("mini", &candle_core::Device::Cpu) {
        Ok(prior) => {
            let camera = if prior.is_camera_conditioned() { ", conditioned by the camera" } else { "" };
            let size = prior.image_size();
            format!("embedded in this binary, {size}×{size} pictures{camera}, digest {}", &prior.digest[..12])
        }
        Err(error) => format!("not usable: {error}"),
    };
    Found { name: "mini".into(), about }
}

fn in_folder(folder: &Path) -> Vec<Found> {
    // A folder that is not there or not readable holds no prior.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.filter_map(|entry| describe(&entry.path())).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn describe(path: &Path) -> Option<Found> {
    let index = std::fs::read_to_string(path.join("model_index.json")).ok()?;
    let class = match serde_json::from_str::<serde_json::Value>(&index) {
        Ok(index) => index["_class_name"].as_str().unwrap_or("unnamed pipeline").to_owned(),
        Err(error) => format!("damaged model_index.json: {error}"),
    };
    let about = format!("{class}, {:.1} MB of weights", weight_bytes(path) as f64 / 1e6);
    Some(Found { name: path.display().to_string(), about })
}

/// Bytes of the safetensors files in the parts' folders.
fn weight_bytes(prior: &Path) -> u64 {
    let parts = std::fs::read_dir(prior).into_iter().flatten().flatten().map(|e| e.path());
    parts
        .flat_map(|part| std::fs::read_dir(part).into_iter().flatten().flatten())
        .filter(|file| file.path().extension().is_some_and(|e| e == "safetensors"))
        .filter_map(|file| file.metadata().ok())
        .map(|data| data.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_with_an_index_are_priors() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        for (file, text) in [
            ("b/model_index.json", r#"{"_class_name": "StableDiffusionPipeline"}"#),
            ("b/unet/diffusion_pytorch_model.safetensors", "123456"),
            ("a/model_index.json", "{"),
            ("c/readme.md", "not a prior"),
        ] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap_or(dir.path()))?;
            std::fs::write(path, text)?;
        }
        let found = in_folder(dir.path());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].name.ends_with('a') && found[0].about.contains("damaged"), "{found:?}");
        assert!(found[1].about.starts_with("StableDiffusionPipeline, 0.0 MB"), "{found:?}");
        assert_eq!(weight_bytes(&dir.path().join("b")), 6);
        assert_eq!(in_folder(&dir.path().join("nowhere")), []);
        Ok(())
    }
}
