//! What may be a prompt.

use std::ffi::OsStr;

use crate::{Error, Result};

/// Longest prompt in characters. The text encoder reads far less; more than this is a mistake.
pub const MAX_CHARACTERS: usize = 1000;

/// The prompt as text, surrounding white space removed.
///
/// # Errors
/// [`Error::Invalid`], each with a hint: not UTF-8, empty, longer than [`MAX_CHARACTERS`], control
/// characters.
pub fn check(raw: &OsStr) -> Result<String> {
    let invalid = |reason: String, hint: &str| Err(Error::invalid("prompt", reason).hint(hint));
    let Some(text) = raw.to_str() else {
        return invalid("not valid UTF-8".into(), "check the terminal's or the file's encoding");
    };
    let text = text.trim();
    if text.is_empty() {
        return invalid("empty".into(), r#"say what to make: gen3d "a blue jay" --out jay.glb"#);
    }
    let characters = text.chars().count();
    if characters > MAX_CHARACTERS {
        return invalid(
            format!("{characters} characters, at most {MAX_CHARACTERS} are read"),
            "a noun with its colours and materials says most",
        );
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return invalid(
            format!("holds the control character {}", c.escape_unicode()),
            "one line of plain text is expected",
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_prompts_are_usage_errors_with_hints() {
        use std::os::unix::ffi::OsStrExt;
        let long = "x".repeat(10_000);
        let cases: [(&OsStr, &str); 5] = [
            (OsStr::new(""), "empty"),
            (OsStr::new(" \t "), "empty"),
            (OsStr::new(&long), "10000 characters, at most 1000"),
            (OsStr::from_bytes(b"a \xff jay"), "not valid UTF-8"),
            (OsStr::new("a\u{1b}[31mjay"), "control character \\u{1b}"),
        ];
        for (raw, reason) in cases {
            let e = check(raw).unwrap_err();
            assert!(e.is_usage() && e.hint_text().is_some() && e.to_string().contains(reason), "{e}");
        }
        assert_eq!(check(OsStr::new("  ein blauer Häher 🐦 ")).unwrap(), "ein blauer Häher 🐦");
        // Characters are counted, not bytes.
        assert!(check(OsStr::new(&"ä".repeat(1000))).is_ok());
    }
}
