//! Editing of clips without training (LOVECon, Liao and Deng 2023, and its neighbours as presets).
//!
//! The source's frames become latents, DDIM inversion takes those to noise, and the target prompt brings
//! them back: window by window, with self-attention that sees frames of other windows ([`attention`]),
//! the source's latents fused in under a mask from cross-attention maps ([`fusion`]), ControlNets, and in
//! the end the source's own pixels where nothing was to change. All windows are at one step before any is
//! at the next, so that keys and values of other windows' frames are those of the same step, computed once;
//! inversion and edit use the same attention, which makes one the inverse of the other.
//!
//! Frames come from a [`FrameSource`] and go to a [`FrameSink`]; latents wait in a [`Store`], so that memory
//! does not grow with the clip, and a run that was stopped goes on where it was.

pub mod attention;
mod blend;
mod config;
mod editor;
mod frames;
pub mod fusion;
mod grid;
mod invert;
mod keep;
mod mask;
mod memory;
mod motion;
mod run;
mod session;
mod smooth;
mod store;
pub mod tune;
mod window;
mod words;

pub use blend::BlendConfig;
pub use config::{
    CameraConfig, EditConfig, EditKind, FusionConfig, InversionConfig, KeepConfig, MaskConfig,
    NullTextConfig, PRESETS, SmootherConfig, Start,
};
pub use editor::{ControlPictures, ControlTrack, Editor, Progress, Stage};
pub use frames::{FrameSink, FrameSource, Frames};
pub use memory::estimate as memory_estimate;
pub use smooth::{Average, Interpolator};
pub use store::{FileStore, MemoryStore, Store};
pub use window::{Window, windows};

#[cfg(test)]
mod tests;
