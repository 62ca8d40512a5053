//! Clips: reading, editing, judging and writing them.

pub mod io;
