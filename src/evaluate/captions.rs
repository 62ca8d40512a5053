//! Lists of captions to judge by.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    prompt: Vec<Prompt>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    text: String,
    #[serde(default)]
    unseen: bool,
}

/// Reads a list: TOML with `[[prompt]] text = …, unseen = true|false`, or plain text, one caption a line
/// (empty lines and those that begin with `#` do not count). Each caption with whether it is unseen.
///
/// # Errors
/// [`Error::File`] if the file does not parse, holds fewer than two captions or one twice.
pub fn read(path: &Path) -> Result<Vec<(String, bool)>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let list: Vec<(String, bool)> = if path.extension().is_some_and(|e| e == "toml") {
        let file: File = toml::from_str(&text).map_err(|e| {
            Error::file(path, e.to_string()).hint("a list holds `[[prompt]]` tables with `text = \"…\"`")
        })?;
        file.prompt.into_iter().map(|p| (p.text.trim().to_owned(), p.unseen)).collect()
    } else {
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        lines.map(|l| (l.to_owned(), false)).collect()
    };
    let mut known = HashSet::new();
    if let Some((twice, _)) = list.iter().find(|(caption, _)| !known.insert(slug(caption))) {
        return Err(Error::file(path, format!("lists {twice:?} twice"))
            .hint("captions must differ by more than case and punctuation: files are named after them"));
    }
    if list.len() < 2 {
        return Err(Error::file(path, "holds fewer than two captions").hint("nothing can be told apart"));
    }
    Ok(list)
}

/// The name of a caption's file, without its ending: lower case, `_` for all but letters and digits.
pub fn slug(caption: &str) -> String {
    caption.trim().to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::data::split::is_held_out;
    use crate::train::data::{DataConfig, Dataset};

    #[test]
    fn the_list_of_a_hundred_keeps_to_the_split() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let list = read(&root.join("prompts/eval-100.toml")).unwrap();
        assert_eq!((list.len(), list.iter().filter(|p| p.1).count()), (100, 30));
        assert!(list.contains(&("a blue jay on macarons".to_owned(), false)));
        let data = Dataset::open(None, &root.join("scenes/props"), DataConfig::default(), 1).unwrap();
        for (caption, unseen) in &list {
            let compositions = data.compositions_of(caption);
            let compositions =
                compositions.unwrap_or_else(|| panic!("{caption} is not of the engine's making"));
            assert_eq!(compositions.iter().any(|c| is_held_out(c)), *unseen, "{caption}: {compositions:?}");
        }
    }

    #[test]
    fn lists_are_read_and_faults_named() {
        let dir = tempfile::tempdir().unwrap();
        let with = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            read(&path)
        };
        let plain = with("a.txt", "# birds\na robin\n\n an owl \n").unwrap();
        assert_eq!(plain, [("a robin".to_owned(), false), ("an owl".to_owned(), false)]);
        let toml = "[[prompt]]\ntext = \"a cat\"\n[[prompt]]\ntext = \"a dog\"\nunseen = true\n";
        assert_eq!(with("a.toml", toml).unwrap()[1], ("a dog".to_owned(), true));
        assert!(with("b.txt", "a cat\nA CAT\n").unwrap_err().to_string().contains("A CAT"));
        assert!(with("c.txt", "a cat\n").is_err());
        assert!(with("d.toml", "[[prompt]]\nname = 1\n").unwrap_err().hint_text().is_some());
        assert_eq!(slug("A Blue-Jay on macarons"), "a_blue_jay_on_macarons");
    }
}
