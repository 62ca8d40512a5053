//! Words of a prompt that weigh more or less: `a (blue:1.3) jay`.

use crate::error::{Error, Result};

/// A stretch of a prompt with one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The words.
    pub text: String,
    /// 1 is plain; up to [`LARGEST`] either way.
    pub weight: f64,
}

/// Largest weight, either sign.
pub const LARGEST: f64 = 10.0;

/// Splits a prompt at its weights. `(words:1.3)` gives the words the weight 1.3, nested ones multiply;
/// parentheses without a number are text like any other, and so is one after a backslash.
///
/// # Errors
/// [`Error::Invalid`] if a weight is beyond [`LARGEST`].
pub fn parse(prompt: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    walk(prompt, 1.0, &mut pieces)?;
    Ok(pieces)
}

/// The prompt without weights.
///
/// # Errors
/// As [`parse`].
pub fn plain(prompt: &str) -> Result<String> {
    Ok(parse(prompt)?.into_iter().map(|p| p.text).collect())
}

fn walk(text: &str, weight: f64, out: &mut Vec<Piece>) -> Result<()> {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        if c == '('
            && let Some((inside, number, behind)) = group(after)
        {
            let inner = weight * number;
            if inner.is_nan() || inner.abs() > LARGEST {
                return Err(Error::invalid("prompt", format!("a weight of {inner}"))
                    .hint(format!("weights go from -{LARGEST} to {LARGEST}, 1 is plain")));
            }
            walk(inside, inner, out)?;
            rest = behind;
            continue;
        }
        let escaped = c == '\\' && after.starts_with(['(', ')', '\\']);
        let end = if escaped { 1 } else { 0 };
        let shown = if escaped { &after[..end] } else { &rest[..c.len_utf8()] };
        match out.last_mut() {
            Some(last) if last.weight == weight => last.text += shown,
            _ => out.push(Piece { text: shown.to_owned(), weight }),
        }
        rest = &after[end..];
    }
    Ok(())
}

/// What follows a `(`, if it is `inside:number)behind`.
fn group(text: &str) -> Option<(&str, f64, &str)> {
    let (mut depth, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            ')' => {
                let (inside, number) = text[..i].rsplit_once(':')?;
                // `nan` and `inf` are words here, not numbers.
                let digits = |c: char| c.is_ascii_digit() || "+-. ".contains(c);
                let number = number.chars().all(digits).then(|| number.trim().parse().ok())??;
                return Some((inside, number, &text[i + 1..]));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(prompt: &str) -> String {
        parse(prompt).unwrap().iter().map(|p| format!("[{}|{}]", p.text, p.weight)).collect()
    }

    #[test]
    fn weights_nest_and_other_parentheses_are_text() {
        let cases = [
            ("", ""),
            ("a jay", "[a jay|1]"),
            ("a (blue:1.5) jay", "[a |1][blue|1.5][ jay|1]"),
            ("(a (big:2) jay:.5)", "[a |0.5][big|1][ jay|0.5]"),
            ("a jay (blue)", "[a jay (blue)|1]"),
            ("a (b (c:2)) d", "[a (b |1][c|2][) d|1]"),
            ("open (a:2", "[open (a:2|1]"),
            ("close a:2) b", "[close a:2) b|1]"),
            (r"\(a:2\) \\ \x", r"[(a:2) \ \x|1]"),
            ("(ratio a:b)", "[(ratio a:b)|1]"),
            ("(Häher:-1)", "[Häher|-1]"),
            ("(a:nan)", "[(a:nan)|1]"),
        ];
        for (prompt, want) in cases {
            assert_eq!(shown(prompt), want, "{prompt}");
        }
        assert_eq!(plain("a (blue:1.5) jay").unwrap(), "a blue jay");
        for absurd in ["(a:11)", "((a:4):4)", "(a:-99999999999999999999)"] {
            assert!(parse(absurd).unwrap_err().is_usage(), "{absurd}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "[a()\\\\:. 0-9é]{0,40}") {
            if let Ok(pieces) = parse(&text) {
                let length: usize = pieces.iter().map(|p| p.text.len()).sum();
                proptest::prop_assert!(length <= text.len());
            }
        }
    }
}
