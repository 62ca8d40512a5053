//! Clips: a clip and two prompts into an edited clip.

pub mod edit;
