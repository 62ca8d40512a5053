//! What can be chosen of a surface model.

use serde::{Deserialize, Serialize};

/// How triangles come from signed distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extractor {
    /// Deep marching tetrahedra: distances and a deformation of the lattice.
    Dmtet,
    /// FlexiCubes: also weights of the cells; sharper edges, rounder triangles.
    Flexicubes,
}

/// Weights of the surface's regularisers (each 0 … 100,000; 0 leaves a term out).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// Neighbouring triangles lie in one plane: the mean of 1 − cos over edges.
    pub normal_consistency: f64,
    /// Vertices lie amid their neighbours: the mean squared distance, in cells of the lattice.
    pub laplacian: f64,
    /// Few changes of sign: the mean cross-entropy over the cut edges of the lattice, distances in cells.
    pub sign_changes: f64,
    /// FlexiCubes' L_dev, in cells.
    pub deviation: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { normal_consistency: 0.01, laplacian: 0.01, sign_changes: 0.01, deviation: 0.01 }
    }
}
