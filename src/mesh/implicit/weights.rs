//! The weights of FlexiCubes, kept only for cells that the surface has passed: few of all.

use super::Lattice;

/// How far raw weights can move the weights from 1.
const SCALE: f64 = 0.99;

/// Raw weights of one cell: any real number, 0 at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CellWeights {
    /// Of the corners' distances, `1 + 0.99 tanh`.
    pub alpha: [f64; 8],
    /// Of the edges' crossings, `1 + 0.99 tanh`.
    pub beta: [f64; 12],
    /// Of the cell's vertices where a quadrilateral is split, `0.99 sigmoid + 0.005`.
    pub gamma: f64,
}

impl CellWeights {
    /// Numbers of a row.
    pub const LEN: usize = 21;

    /// All numbers in a row.
    pub fn to_array(&self) -> [f64; Self::LEN] {
        let mut out = [self.gamma; Self::LEN];
        out[..8].copy_from_slice(&self.alpha);
        out[8..20].copy_from_slice(&self.beta);
        out
    }

    /// From [`CellWeights::to_array`]'s order.
    pub fn from_array(x: &[f64; Self::LEN]) -> Self {
        Self { alpha: std::array::from_fn(|i| x[i]), beta: std::array::from_fn(|i| x[8 + i]), gamma: x[20] }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.add_scaled(other, 1.0);
    }

    /// Adds `scale` times another row.
    pub fn add_scaled(&mut self, other: &Self, scale: f64) {
        self.alpha.iter_mut().zip(&other.alpha).for_each(|(a, o)| *a += scale * o);
        self.beta.iter_mut().zip(&other.beta).for_each(|(a, o)| *a += scale * o);
        self.gamma += scale * other.gamma;
    }
}

const NONE: u32 = u32::MAX;
static NEUTRAL: CellWeights = CellWeights { alpha: [0.0; 8], beta: [0.0; 12], gamma: 0.0 };

/// Rows of weights by cell; a cell without a row is neutral.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    place: Vec<u32>,
    cells: Vec<u32>,
    /// In the order in which cells were first [kept](Weights::keep).
    pub rows: Vec<CellWeights>,
}

impl Weights {
    /// No rows yet.
    pub fn new(lattice: Lattice) -> Self {
        Self { place: vec![NONE; lattice.cells().pow(3)], cells: Vec::new(), rows: Vec::new() }
    }

    /// Gives each cell a row that has none; returns the rows' numbers. Cells beyond the lattice are left out.
    pub fn keep(&mut self, cells: &[u32]) -> Vec<u32> {
        let mut out = Vec::with_capacity(cells.len());
        for &cell in cells {
            let Some(place) = self.place.get_mut(cell as usize) else { continue };
            if *place == NONE {
                *place = self.rows.len() as u32;
                self.cells.push(cell);
                self.rows.push(NEUTRAL);
            }
            out.push(*place);
        }
        out
    }

    /// The cells that have rows, in the rows' order.
    pub fn cells(&self) -> &[u32] {
        &self.cells
    }

    /// A cell's weights.
    pub fn of(&self, cell: usize) -> &CellWeights {
        self.place.get(cell).and_then(|p| self.rows.get(*p as usize)).unwrap_or(&NEUTRAL)
    }

    /// Cells that could have rows.
    pub(super) fn capacity(&self) -> usize {
        self.place.len()
    }
}

/// `1 + 0.99 tanh(raw)` and its slope.
pub(super) fn moved(raw: f64) -> (f64, f64) {
    let t = raw.tanh();
    (1.0 + SCALE * t, SCALE * (1.0 - t * t))
}

/// `0.99 sigmoid(raw) + 0.005` and its slope.
pub(super) fn share(raw: f64) -> (f64, f64) {
    let s = 1.0 / (1.0 + (-raw).exp());
    (SCALE * s + 0.5 * (1.0 - SCALE), SCALE * s * (1.0 - s))
}
