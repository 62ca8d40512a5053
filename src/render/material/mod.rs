//! How surfaces look in light: the metallic-roughness model of glTF 2.0 under lamps and environments.
//!
//! Everything is one function of a point's look, written over [`Scalar`]: with plain numbers it draws, with
//! [`Dual`] ones it gives the exact slopes by base colour, metalness, roughness and normal. It runs per
//! sample on the CPU, in f64.

mod cube;
mod environment;
mod ggx;
mod lut;
mod scalar;
mod shading;
mod studios;
#[cfg(test)]
mod tests;
mod tone;

pub use environment::Environment;
pub use ggx::{DIELECTRIC, Look, MIN_ROUGHNESS, brdf, lamp};
pub use scalar::{Dual, Scalar};
pub use shading::{Light, LookGradient, from_tangent_space, shade, shade_with_gradient};
pub use studios::Studio;
pub use tone::Tone;
