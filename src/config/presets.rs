//! The presets in the binary, and what `--scene` may name.

use std::path::Path;

use super::layers::Layer;
use super::nearest;
use crate::{Error, Result};

/// Name and text of every preset.
pub const PRESETS: [(&str, &str); 3] = [
    ("default", include_str!("../../scenes/default.toml")),
    ("draft", include_str!("../../scenes/draft.toml")),
    ("fine", include_str!("../../scenes/fine.toml")),
];

/// The layers a `--scene` argument stands for: the default preset, then the named preset or file.
///
/// An argument that ends in `.toml` or holds a path separator is a file.
///
/// # Errors
/// [`Error::Invalid`] for a name that is no preset (the hint lists them) and for bad TOML,
/// [`Error::Io`] for a file that cannot be read.
pub fn layers(scene: Option<&str>) -> Result<Vec<Layer>> {
    let mut out = vec![Layer::parse(PRESETS[0].1, "scene `default`")?];
    match scene {
        None => {}
        Some(file) if file.ends_with(".toml") || file.contains(std::path::MAIN_SEPARATOR) => {
            out.push(Layer::read(Path::new(file))?);
        }
        Some(name) => {
            let found = PRESETS.iter().find(|(n, _)| *n == name).ok_or_else(|| unknown(name))?;
            out.push(Layer::parse(found.1, &format!("scene `{name}`"))?);
        }
    }
    Ok(out)
}

fn unknown(name: &str) -> Error {
    let names: Vec<&str> = PRESETS.iter().map(|(n, _)| *n).collect();
    let error = Error::invalid("--scene", format!("there is no scene `{name}`"));
    let list = format!("scenes: {}; or give a .toml file", names.join(", "));
    match nearest(name, names) {
        Some(near) => error.hint(format!("did you mean `{near}`? {list}")),
        None => error.hint(list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, layers};

    #[test]
    fn every_preset_resolves_and_default_lists_every_key() {
        for (name, _) in PRESETS {
            layers::resolve(&super::layers(Some(name)).unwrap()).unwrap();
        }
        // The default preset is the documentation of the keys: it names each, at its default value.
        let text = PRESETS[0].1.parse::<toml::Table>().unwrap();
        for (key, value) in layers::flatten(&Config::default()) {
            let mut at = toml::Value::Table(text.clone());
            for part in key.split('.') {
                at = at.get(part).unwrap_or_else(|| panic!("scenes/default.toml lacks {key}")).clone();
            }
            let one = layers::resolve(&[layers::Layer::one("x", &key, at)]).unwrap();
            assert_eq!(layers::flatten(&one).get(&key), Some(&value), "{key}");
        }
    }

    #[test]
    fn unknown_scene_lists_what_exists() {
        let e = super::layers(Some("draff")).unwrap_err();
        assert!(e.is_usage());
        let hint = e.hint_text().unwrap();
        assert!(hint.contains("did you mean `draft`?") && hint.contains("default, draft, fine"), "{hint}");
    }
}
