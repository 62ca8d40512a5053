//! Errors, warnings and hints on stderr, and the exit code an error stands for.

use std::io::{IsTerminal, Write};

use crate::Error;

/// Exit code of wrong usage.
pub(crate) const USAGE: u8 = 2;

/// Prints `error: …`, a blank line and `hint: …`.
pub(crate) fn error(error: &anyhow::Error) {
    if is_interrupt(error) {
        line("33", "interrupted", "progress is saved");
    } else {
        // Not the chain `{error:#}`: this crate's errors already say what their sources say.
        line("31", "error", &error.to_string());
    }
    if let Some(text) = error.downcast_ref::<Error>().and_then(Error::hint_text) {
        hint(text);
    }
}

/// Prints `warning: …` and, if there is advice, `hint: …`.
pub(crate) fn warning(message: &str, advice: Option<&str>) {
    line("33", "warning", message);
    if let Some(text) = advice {
        hint(text);
    }
}

/// 1 failed, 2 usage, 130 interrupted.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Error>() {
        _ if is_interrupt(error) => 130,
        Some(e) if e.is_usage() => USAGE,
        _ => 1,
    }
}

fn is_interrupt(error: &anyhow::Error) -> bool {
    fn inner(error: &Error) -> bool {
        match error {
            Error::Interrupted => true,
            Error::Hinted { source, .. } => inner(source),
            _ => false,
        }
    }
    error.downcast_ref().is_some_and(inner)
}

fn hint(text: &str) {
    let _ = writeln!(std::io::stderr());
    line("36", "hint", text);
}

/// A coloured label and a text. Nothing can be done if stderr is closed.
fn line(color: &str, label: &str, text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = if colors() {
        writeln!(err, "\u{1b}[1;{color}m{label}\u{1b}[0m: {text}")
    } else {
        writeln!(err, "{label}: {text}")
    };
}

/// Colours on a terminal, unless NO_COLOR is set (<https://no-color.org>).
fn colors() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    std::io::stderr().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_error_through_hints() {
        let code = |e: Error| exit_code(&e.into());
        assert_eq!(code(Error::invalid("--x", "y").hint("z")), 2);
        assert_eq!(code(Error::Failed("x".into())), 1);
        assert_eq!(code(Error::Interrupted), 130);
        assert_eq!(code(Error::Interrupted.hint("x")), 130);
        assert_eq!(exit_code(&anyhow::anyhow!("x")), 1);
    }
}
