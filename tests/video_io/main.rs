//! Clips in and out: what an edit that changes nothing must leave as it was, and hostile files.
//!
//! The clips are made by the `ffmpeg` program, which is also the judge: it decodes what is written.

mod colour;
mod common;
mod copying;
mod hostile;
mod shape;
