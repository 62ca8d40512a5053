//! Lists of captions to judge by.

use std::path::Path;

use crate::error::{Error, Result};
use crate::prompts;
pub use crate::prompts::slug;

/// Reads a list of [`prompts`]. Each caption with whether it is unseen.
///
/// # Errors
/// As [`prompts::read`], and if there are fewer than two.
pub fn read(path: &Path) -> Result<Vec<(String, bool)>> {
    let list: Vec<(String, bool)> = prompts::read(path)?.into_iter().map(|p| (p.text, p.unseen)).collect();
    if list.len() < 2 {
        return Err(Error::file(path, "holds fewer than two captions").hint("nothing can be told apart"));
    }
    Ok(list)
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
    fn one_caption_is_too_few() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        std::fs::write(&path, "a cat\n").unwrap();
        assert!(read(&path).unwrap_err().hint_text().is_some());
        std::fs::write(&path, "a cat\na dog\n").unwrap();
        assert_eq!(read(&path).unwrap()[1], ("a dog".to_owned(), false));
    }
}
