//! Layers of configuration and how they become one [`Config`].

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, nearest};
use crate::{Error, Result};

/// Keys that have no value unless one is given; TOML has no way to write that.
const OPTIONAL: [&str; 1] = ["mesh.threshold"];

/// Keys and values from one origin: a preset, a file, or one flag.
#[derive(Debug, Clone)]
pub struct Layer {
    origin: String,
    table: Table,
}

impl Layer {
    /// Parses TOML text. `origin` (a file name, say) is named in errors.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the parser's line and column.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let table = text.parse::<Table>().map_err(|e| Error::invalid(origin, e.to_string().trim_end()))?;
        Ok(Self { origin: origin.into(), table })
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Invalid`] if it is not TOML.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// One dotted key set to a value, as a flag does. `origin` is the flag.
    pub fn one(origin: &str, key: &str, value: impl Into<Value>) -> Self {
        let mut parts = key.rsplit('.');
        let mut table = Table::new();
        table.insert(parts.next().unwrap_or_default().into(), value.into());
        for part in parts {
            table = Table::from_iter([(part.to_owned(), Value::Table(table))]);
        }
        Self { origin: origin.into(), table }
    }

    /// The same layer with one of its topmost keys alone.
    #[must_use]
    pub(super) fn only(mut self, key: &str) -> Self {
        self.table.retain(|k, _| k == key);
        self
    }

    /// `KEY=VALUE` with the value in TOML's notation; a value that is not TOML is taken as a string.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no `=` or no key.
    pub fn assignment(text: &str) -> Result<Self> {
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or_else(|| Error::invalid("--set", format!("`{text}` is not KEY=VALUE")))
            .map_err(|e| e.hint("for example: --set optim.steps=500"))?;
        let (key, value) = (key.trim(), value.trim());
        let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
        let value = parsed.unwrap_or_else(|| Value::String(value.into()));
        Ok(Self::one(&format!("--set {key}"), key, value))
    }

    /// Lays this layer's keys over `table`.
    pub fn put(&self, table: &mut Table) {
        fn merge(table: &mut Table, over: &Table) {
            for (key, value) in over {
                match (table.get_mut(key), value) {
                    (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
                    _ => drop(table.insert(key.clone(), value.clone())),
                }
            }
        }
        merge(table, &self.table);
    }
}

/// Lays `layers` over the defaults, later ones winning, and checks the result.
///
/// # Errors
/// [`Error::Invalid`] naming the key for unknown keys, wrong types and values out of range.
pub fn resolve(layers: &[Layer]) -> Result<Config> {
    let defaults = to_table(&Config::default());
    let mut merged = defaults.clone();
    let mut origins = BTreeMap::new();
    for layer in layers {
        for (key, value) in leaves(&layer.table, &defaults) {
            check(&layer.origin, &key, &value, &defaults)?;
            set(&mut merged, &key, value);
            origins.insert(key, layer.origin.clone());
        }
    }
    let config = Config::deserialize(Value::Table(merged))
        .map_err(|e| Error::invalid("config", e.to_string().trim_end()))?;
    config.validate().map_err(|e| name_origin(e, &origins))?;
    Ok(config)
}

/// Adds where the offending value was set.
fn name_origin(error: Error, origins: &BTreeMap<String, String>) -> Error {
    let origin = match &error {
        Error::Invalid { what, .. } => origins.get(what).cloned(),
        _ => None,
    };
    match origin {
        Some(origin) => error.hint(format!("the value comes from {origin}")),
        None => error,
    }
}

/// The configuration as dotted keys and values.
pub fn flatten(config: &Config) -> BTreeMap<String, Value> {
    let table = to_table(config);
    leaves(&table, &table).into_iter().collect()
}

fn to_table(config: &Config) -> Table {
    // Only integers past i64 have no TOML form, and `limits` bounds the seed.
    Table::try_from(config).unwrap_or_default()
}

/// Dotted keys of every leaf. Where `shape` has a value and not a table, a table is a leaf too.
fn leaves(table: &Table, shape: &Table) -> Vec<(String, Value)> {
    let mut out = Vec::new();
    for (key, value) in table {
        match (value, shape.get(key)) {
            (Value::Table(inner), Some(Value::Table(inner_shape))) => {
                out.extend(leaves(inner, inner_shape).into_iter().map(|(k, v)| (format!("{key}.{k}"), v)));
            }
            _ => out.push((key.clone(), value.clone())),
        }
    }
    out
}

/// The key exists and the value has its type, judged with that one key laid over the defaults.
fn check(origin: &str, key: &str, value: &Value, defaults: &Table) -> Result<()> {
    let mut known: Vec<String> = leaves(defaults, defaults).into_iter().map(|(k, _)| k).collect();
    known.extend(OPTIONAL.map(str::to_owned));
    if !known.iter().any(|k| k == key) {
        let table = known.iter().any(|k| k.starts_with(&format!("{key}.")));
        let reason = if table { "is a table, not a value" } else { "unknown key" };
        let error = Error::invalid(origin, format!("{reason}: `{key}`"));
        return Err(match nearest(key, known.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("scenes/default.toml lists every key"),
        });
    }
    let mut probe = defaults.clone();
    set(&mut probe, key, value.clone());
    match Config::deserialize(Value::Table(probe)) {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::invalid(origin, format!("`{key}`: {}", first_line(e.message())))),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}

fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.into(), value);
        }
        Some((head, rest)) => {
            let inner = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(layers: &[Layer]) -> String {
        let e = resolve(layers).unwrap_err();
        format!("{e} / {}", e.hint_text().unwrap_or_default())
    }

    #[test]
    fn later_layers_win_key_by_key() {
        let preset = Layer::parse("[optim]\nsteps = 10\nwarmup = 2\n", "preset").unwrap();
        let file = Layer::parse("seed = 3\n[optim]\nsteps = 20\n", "file").unwrap();
        let flag = Layer::one("--seed", "seed", 4);
        let config = resolve(&[preset, file, flag]).unwrap();
        assert_eq!((config.seed, config.optim.steps, config.optim.warmup), (4, 20, 2));
        assert_eq!(config.camera, Config::default().camera);
    }

    #[test]
    fn unknown_keys_and_wrong_types_name_key_and_origin() {
        let layer = Layer::parse("[optim]\nstepz = 10\n", "a.toml").unwrap();
        assert_eq!(error(&[layer]), "a.toml: unknown key: `optim.stepz` / did you mean `optim.steps`?");
        let layer = Layer::parse("[nonsense]\nx = 1\n", "a.toml").unwrap();
        assert!(error(&[layer]).contains("unknown key: `nonsense`"));
        let layer = Layer::one("--set optim", "optim", 3);
        assert!(error(&[layer]).contains("is a table, not a value: `optim`"));
        let layer = Layer::assignment("optim.steps=many").unwrap();
        let text = error(&[layer]);
        assert!(text.starts_with("--set optim.steps: `optim.steps`: invalid type: string"), "{text}");
        let layer = Layer::one("--steps", "optim.steps", 0);
        let text = error(&[layer]);
        assert!(text.contains("optim.steps: 0 is outside 1 … 100000"), "{text}");
        assert!(text.ends_with("the value comes from --steps"), "{text}");
    }

    #[test]
    fn assignments_take_toml_and_bare_words() {
        let set = |text| resolve(&[Layer::assignment(text).unwrap()]).unwrap();
        assert_eq!(set("camera.elevation=[0, 10]").camera.elevation, [0.0, 10.0]);
        assert_eq!(set("device=cpu").device, "cpu");
        assert_eq!(set("mesh.threshold = 4").mesh.threshold, Some(4.0));
        assert!(Layer::assignment("=3").unwrap_err().is_usage());
    }
}
