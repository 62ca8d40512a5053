//! A surface that is optimised: the second stage of a run.
//!
//! ```text
//! model     signed distances, deformation, weights on a lattice  →  triangles     (mesh::implicit)
//! stage     triangles → pictures, antialiased silhouettes                         (render::surface)
//!           colour of what is seen: the volume field's, asked at the seen points  (render::volume)
//! back      pictures → vertices (silhouettes, and the colour's slope) → distances, weights; → the field
//! adam      of what the surface passes; the rest of the lattice rests
//! ```
//!
//! The stage knows neither what the pictures are compared with nor who judges them: it gives pictures and
//! takes a gradient, as the volume renderer does. `fit` and `generate` are its callers.

mod adam;
mod model;
mod refinement;
mod settings;
mod stage;
mod supersample;
#[cfg(test)]
mod tests;

pub use model::{Extracted, Rates, SurfaceModel};
pub use refinement::Refinement;
pub use settings::{Extractor, Weights};
pub use stage::{Colors, Penalties, Shot, SurfaceStage};
