//! gen3d turns words into things: a prompt into a game-ready 3D asset.
//!
//! A field (multiresolution hash grid and tiny MLPs) is rendered by a differentiable volume
//! renderer and optimised by score distillation from a latent diffusion prior. `ARCHITECTURE.md`
//! holds the map of the rooms and the path of one optimisation step through them.
#![warn(missing_docs, unreachable_pub)]

pub mod alloc;
pub mod asset;
pub mod bench;
pub mod cli;
pub mod config;
pub mod distill;
pub mod error;
pub mod evaluate;
pub mod field;
pub mod fit;
pub mod generate;
pub mod gpu;
pub mod mesh;
pub mod paint;
pub mod prior;
pub mod prompts;
pub mod refine;
pub mod render;
pub mod rng;
pub mod sample;
pub mod suggest;
pub mod train;
pub mod video;
pub mod watch;

pub use error::{Error, Result};
