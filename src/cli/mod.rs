//! The command line: one file a command; parsing, progress, hints and exit codes.

pub mod render;
