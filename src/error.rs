//! The library's error type. Every error says what is wrong, with what, and (as a hint) what to do.

use std::path::{Path, PathBuf};

/// What can go wrong in the library.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read, written or renamed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A file was read but does not hold what it should (truncated, corrupt, wrong shape…).
    #[error("{}: {reason}", path.display())]
    File {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A value from the command line, a config or an API call is unusable.
    #[error("{what}: {reason}")]
    Invalid {
        /// The option or argument.
        what: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The GPU, its driver or a shader failed.
    #[error("gpu: {0}")]
    Gpu(String),
    /// A tensor operation failed (shape or device mismatch).
    #[error("tensor: {0}")]
    Tensor(#[from] candle_core::Error),
    /// The optimisation produced something unusable (NaN, empty surface…).
    #[error("{0}")]
    Failed(String),
    /// A number that was to be learned from is NaN or infinite.
    #[error("{0}")]
    NotFinite(String),
    /// The user asked to stop; a checkpoint was saved.
    #[error("interrupted; progress is saved")]
    Interrupted,
    /// Any of the above with advice.
    #[error("{source}")]
    Hinted {
        /// The error itself.
        source: Box<Error>,
        /// What to do about it, one sentence.
        hint: String,
    },
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`] about `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), source }
    }

    /// An [`Error::File`] about `path`.
    pub fn file(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_owned(), reason: reason.into() }
    }

    /// An [`Error::Invalid`] about an option or argument.
    pub fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), reason: reason.into() }
    }

    /// The same error with advice that the command line prints as a `hint:` line.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self::Hinted { source: Box::new(self), hint: hint.into() }
    }

    /// The advice, if there is any.
    pub fn hint_text(&self) -> Option<&str> {
        match self {
            Self::Hinted { hint, .. } => Some(hint),
            _ => None,
        }
    }

    /// True for [`Error::NotFinite`], whatever hints are wrapped around it.
    pub fn is_not_finite(&self) -> bool {
        match self {
            Self::NotFinite(_) => true,
            Self::Hinted { source, .. } => source.is_not_finite(),
            _ => false,
        }
    }

    /// True for [`Error::Invalid`] (exit code 2), whatever hints are wrapped around it.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Invalid { .. } => true,
            Self::Hinted { source, .. } => source.is_usage(),
            _ => false,
        }
    }
}
