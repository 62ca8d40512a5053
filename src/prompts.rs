//! Lists of prompts, for batches and for judging.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    prompt: Vec<Prompt>,
}

/// One prompt of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// What files made for it are called; [`slug`] of the text if the list gives none.
    #[serde(default)]
    pub id: String,
    /// The prompt.
    pub text: String,
    /// A word by which parts of a list are picked.
    #[serde(default)]
    pub group: String,
    /// A composition that the embedded prior was not trained on.
    #[serde(default)]
    pub unseen: bool,
}

/// Reads a list: TOML with `[[prompt]]` tables (`text`, and optionally `id`, `group`, `unseen`), or plain text,
/// one prompt a line (empty lines and those that begin with `#` do not count).
///
/// # Errors
/// [`Error::File`] if the file does not parse, holds no prompt or two of one name, or a name that is no file
/// name.
pub fn read(path: &Path) -> Result<Vec<Prompt>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let mut list: Vec<Prompt> = if path.extension().is_some_and(|e| e == "toml") {
        let file: File = toml::from_str(&text).map_err(|e| {
            Error::file(path, e.to_string()).hint("a list holds `[[prompt]]` tables with `text = \"…\"`")
        })?;
        file.prompt
    } else {
        let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.trim().starts_with('#'));
        lines.map(|l| Prompt { text: l.to_owned(), ..Prompt::default() }).collect()
    };
    for prompt in &mut list {
        prompt.text = prompt.text.trim().to_owned();
        if prompt.id.is_empty() {
            prompt.id = slug(&prompt.text);
        }
    }
    check(&list).map_err(|(why, hint)| Error::file(path, why).hint(hint))?;
    Ok(list)
}

fn check(list: &[Prompt]) -> std::result::Result<(), (String, &'static str)> {
    let mut known = HashSet::new();
    for Prompt { id, text, .. } in list {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() {
            return Err(("lists an empty prompt".into(), "give every `[[prompt]]` a `text`"));
        }
        if id.is_empty() || id.len() > 200 || id.starts_with('.') || !id.chars().all(plain) {
            return Err((
                format!("calls a prompt {id:?}"),
                "files are named so: use letters, digits, - and _",
            ));
        }
        if !known.insert(id.to_lowercase()) {
            let hint = "prompts must differ by more than case and punctuation: files are named after them";
            return Err((format!("lists {text:?} twice"), hint));
        }
    }
    if list.is_empty() {
        return Err(("holds no prompt".into(), "write one prompt a line"));
    }
    Ok(())
}

/// The name of a prompt's file, without its ending: lower case, `_` for all but letters and digits.
pub fn slug(text: &str) -> String {
    text.trim().to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, text: &str) -> Result<Vec<Prompt>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn lists_are_read() {
        let plain = with("a.txt", "# birds\na robin\n\n an owl \n").unwrap();
        let seen: Vec<_> = plain.iter().map(|p| (p.text.as_str(), p.id.as_str())).collect();
        assert_eq!(seen, [("a robin", "a_robin"), ("an owl", "an_owl")]);
        let toml =
            "[[prompt]]\ntext = \"a cat\"\n[[prompt]]\ntext = \"a dog\"\nunseen = true\nid = \"rex-1\"\n";
        let list = with("a.toml", toml).unwrap();
        assert!(list[1].unseen && list[1].id == "rex-1" && !list[0].unseen);
        assert_eq!(slug("A Blue-Jay on macarons"), "a_blue_jay_on_macarons");
        for name in ["props.toml", "eval-100.toml"] {
            read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("prompts").join(name)).unwrap();
        }
    }

    #[test]
    fn faults_are_named() {
        assert!(with("b.txt", "a cat\nA CAT\n").unwrap_err().to_string().contains("A CAT"));
        for (name, text) in [
            ("c.txt", "# nothing\n"),
            ("d.toml", "[[prompt]]\nname = 1\n"),
            ("e.toml", "[[prompt]]\ntext = \"a\"\nid = \"../a\"\n"),
            ("f.toml", "[[prompt]]\ntext = \" \"\n"),
        ] {
            assert!(with(name, text).unwrap_err().hint_text().is_some(), "{name}");
        }
    }
}
