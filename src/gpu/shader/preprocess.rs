//! The line-based preprocessor: `#import`, `#ifdef`, `#ifndef`, `#else`, `#endif`.
//!
//! `#import name` brings in `shared/name.wgsl` once. `#import name argument` brings in a template:
//! every `$` of the file stands for the argument. (WGSL has no pointers to storage as parameters,
//! so a function that works on a given buffer must be written with the buffer's name.)

use super::ShaderError;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Names a shader is assembled with. A name with a number becomes a WGSL `const` of abstract type
/// at the top of the module; every name answers `#ifdef`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Defines(BTreeMap<String, Option<String>>);

impl Defines {
    /// From words `NAME` or `NAME=NUMBER`.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, ShaderError> {
        let mut map = BTreeMap::new();
        for word in words {
            let (name, value) = match word.as_ref().split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_ref(), None),
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(plain) {
                return Err(ShaderError(format!("{name:?} is no usable name of a define")));
            }
            if value.is_some_and(|v| v.parse::<f64>().is_err()) {
                return Err(ShaderError(format!("{}: a define's value must be a number", word.as_ref())));
            }
            map.insert(name.to_owned(), value.map(str::to_owned));
        }
        Ok(Self(map))
    }

    /// The same defines and `name` without a value.
    #[must_use]
    pub fn with(mut self, name: &str) -> Self {
        self.0.insert(name.to_owned(), None);
        self
    }

    /// Whether `name` is defined, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl fmt::Display for Defines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { " " })?;
            match value {
                Some(value) => write!(f, "{name}={value}")?,
                None => f.write_str(name)?,
            }
        }
        Ok(())
    }
}

/// A shader's complete text, and where each of its lines was written.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// Entry file and defines, for messages and GPU labels.
    pub label: String,
    /// WGSL without directives.
    pub source: String,
    /// `(file, line from 1)` of each line of `source`.
    pub(super) origins: Vec<(String, usize)>,
}

/// One open `#ifdef`: are its lines wanted, was the enclosing text, and did `#else` come yet?
struct Condition {
    active: bool,
    outer: bool,
    else_seen: bool,
    line: usize,
}

struct Assembler<'a> {
    files: &'a BTreeMap<String, String>,
    defines: &'a Defines,
    imported: BTreeSet<String>,
    out: Assembled,
}

pub(super) fn assemble(
    files: &BTreeMap<String, String>,
    entry: &str,
    defines: &Defines,
) -> Result<Assembled, ShaderError> {
    let label = if defines.0.is_empty() { entry.to_owned() } else { format!("{entry} [{defines}]") };
    let out = Assembled { label, source: String::new(), origins: Vec::new() };
    let mut assembler = Assembler { files, defines, imported: BTreeSet::new(), out };
    for (name, value) in &defines.0 {
        if let Some(value) = value {
            assembler.push(&format!("const {name} = {value};"), "(defines)", 1);
        }
    }
    assembler.file(&format!("{entry}.wgsl"), None, entry)?;
    Ok(assembler.out)
}

impl Assembler<'_> {
    fn push(&mut self, line: &str, file: &str, number: usize) {
        self.out.source.push_str(line);
        self.out.source.push('\n');
        self.out.origins.push((file.to_owned(), number));
    }

    /// Appends file `path` with `argument` for every `$`; `wanted_by` is named if it does not exist.
    fn file(&mut self, path: &str, argument: Option<&str>, wanted_by: &str) -> Result<(), ShaderError> {
        let Some(text) = self.files.get(path) else {
            return Err(ShaderError(format!("{wanted_by}: there is no shader file {path}")));
        };
        let mut conditions: Vec<Condition> = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let at = |reason: &str| ShaderError(format!("{path}:{}: {reason}", i + 1));
            let active = conditions.last().is_none_or(|c| c.active);
            let Some(directive) = line.trim_start().strip_prefix('#') else {
                match argument {
                    Some(argument) if active => self.push(&line.replace('$', argument), path, i + 1),
                    None if active => self.push(line, path, i + 1),
                    _ => {}
                }
                continue;
            };
            let mut words = directive.split("//").next().unwrap_or("").split_whitespace();
            let name = words.next().unwrap_or("");
            match (name, words.next(), words.next()) {
                ("ifdef" | "ifndef", Some(what), None) => {
                    let wanted = self.defines.has(what) == (name == "ifdef");
                    let line = i + 1;
                    conditions.push(Condition {
                        active: active && wanted,
                        outer: active,
                        else_seen: false,
                        line,
                    });
                }
                ("else", None, None) => match conditions.last_mut() {
                    Some(c) if !c.else_seen => (c.active, c.else_seen) = (c.outer && !c.active, true),
                    _ => return Err(at("#else without #ifdef")),
                },
                ("endif", None, None) => {
                    conditions.pop().ok_or_else(|| at("#endif without #ifdef"))?;
                }
                ("import", Some(what), argument) => {
                    let key = format!("{what} {}", argument.unwrap_or(""));
                    if active && self.imported.insert(key) {
                        self.file(&format!("shared/{what}.wgsl"), argument, &format!("{path}:{}", i + 1))?;
                    }
                }
                _ => return Err(at(&format!("unknown or malformed directive {:?}", line.trim()))),
            }
        }
        match conditions.last() {
            Some(open) => Err(ShaderError(format!("{path}:{}: #ifdef without #endif", open.line))),
            None => Ok(()),
        }
    }
}
