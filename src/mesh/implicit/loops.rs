//! The loops of cut edges on the cells of a lattice, paired alike by neighbours.

use std::sync::LazyLock;

use rayon::prelude::*;

use super::Lattice;

/// Corners (bits: x, y, z) of the edges: number `4·axis + k`.
pub(super) const EDGES: [[u8; 2]; 12] = {
    let mut out = [[0; 2]; 12];
    let mut axis = 0;
    while axis < 3 {
        let (b, c) = ((axis + 1) % 3, (axis + 2) % 3);
        let mut k = 0;
        while k < 4 {
            let low = (k & 1) << b | (k >> 1) << c;
            out[4 * axis + k] = [low as u8, (low | 1 << axis) as u8];
            k += 1;
        }
        axis += 1;
    }
    out
};

const NONE: u8 = u8::MAX;

/// The edge along `axis` from corner `low` (whose bit of the axis is 0).
pub(super) fn edge(low: usize, axis: usize) -> usize {
    let (b, c) = ((axis + 1) % 3, (axis + 2) % 3);
    4 * axis + (low >> b & 1) + 2 * (low >> c & 1)
}

/// Coordinates of a cell: x first, `cells` a side.
pub(super) fn cell_coordinates(lattice: Lattice, cell: usize) -> [usize; 3] {
    let n = lattice.cells();
    [cell % n, cell / n % n, cell / (n * n)]
}

/// The lattice point of a cell's corner.
pub(super) fn corner(lattice: Lattice, cell: usize, corner: usize) -> usize {
    let [x, y, z] = cell_coordinates(lattice, cell);
    lattice.index([x + (corner & 1), y + (corner >> 1 & 1), z + (corner >> 2)])
}

/// The four corners of a face (`2·axis + side`), one after the other around it.
fn face_corners(face: usize) -> [usize; 4] {
    let (axis, side) = (face / 2, face % 2);
    let (b, c) = (1 << ((axis + 1) % 3), 1 << ((axis + 2) % 3));
    [0, b, b | c, c].map(|k| k | side << axis)
}

/// The edge between two corners.
fn between(a: usize, b: usize) -> usize {
    edge(a & b, (a ^ b).trailing_zeros() as usize)
}

/// The loops of one cell.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CellLoops {
    inside: u8,
    /// Faces (bits) that are paired the other way.
    flipped: u8,
    /// The loop of each edge.
    of_edge: [u8; 12],
    count: u8,
    /// Ambiguous faces (bits) whose pairs both lie on one loop.
    joined: u8,
}

/// The loops of cells without a flipped face, by the corners inside.
static PLAIN: LazyLock<Vec<CellLoops>> =
    LazyLock::new(|| (0..=255).map(|inside| CellLoops::new(inside, 0)).collect());

impl CellLoops {
    fn new(inside: u8, flipped: u8) -> Self {
        let mut next = [[NONE; 2]; 12];
        for face in 0..6 {
            for [a, b] in pairs(inside, face, flipped >> face & 1 == 1).into_iter().flatten() {
                for (from, to) in [(a, b), (b, a)] {
                    let slot = usize::from(next[from][0] != NONE);
                    next[from][slot] = to as u8;
                }
            }
        }
        let mut out = Self { inside, flipped, of_edge: [NONE; 12], count: 0, joined: 0 };
        for start in 0..12 {
            if next[start][0] == NONE || out.of_edge[start] != NONE {
                continue;
            }
            let mut at = start;
            loop {
                out.of_edge[at] = out.count;
                // The way on is the neighbour that has not been visited.
                match next[at].into_iter().find(|&e| out.of_edge[usize::from(e)] == NONE) {
                    Some(e) => at = usize::from(e),
                    None => break,
                }
            }
            out.count += 1;
        }
        for face in 0..6 {
            if let [Some([a, _]), Some([b, _])] = pairs(inside, face, flipped >> face & 1 == 1) {
                out.joined |= u8::from(out.of_edge[a] == out.of_edge[b]) << face;
            }
        }
        out
    }

    /// The loop that an edge is on.
    pub(super) fn of_edge(&self, edge: usize) -> Option<u8> {
        Some(self.of_edge[edge]).filter(|l| *l != NONE)
    }

    /// The edges of each loop, as bits.
    pub(super) fn loops(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.count).map(|l| (0..12).filter(|&e| self.of_edge[e] == l).fold(0, |mask, e| mask | 1 << e))
    }

    /// Whether both pairs of an ambiguous face lie on one loop.
    fn joined_twice(&self, face: usize) -> bool {
        self.joined >> face & 1 == 1
    }
}

/// The pairs of cut edges of a face: those around the corners inside, or (flipped) outside, where four
/// edges are cut.
fn pairs(inside: u8, face: usize, flipped: bool) -> [Option<[usize; 2]>; 2] {
    let corners = face_corners(face);
    let is_in = corners.map(|c| inside >> c & 1 == 1);
    let around = |k: usize| {
        let (before, at, after) = (corners[(k + 3) % 4], corners[k], corners[(k + 1) % 4]);
        [between(before, at), between(at, after)]
    };
    let cut: Vec<usize> = (0..4).filter(|&k| is_in[k] != is_in[(k + 1) % 4]).collect();
    match cut[..] {
        [i, j] => {
            let edge = |k: usize| between(corners[k], corners[(k + 1) % 4]);
            [Some([edge(i), edge(j)]), None]
        }
        [_, _, _, _] => {
            let k = (0..2).find(|&k| is_in[k] != flipped).unwrap_or(0);
            [Some(around(k)), Some(around(k + 2))]
        }
        _ => [None, None],
    }
}

/// The cells with corners on both sides, ascending, and which of their corners are inside (positive). Each
/// layer of cells is one task; what is far from the surface costs a comparison a point.
pub(super) fn cut_cells(lattice: Lattice, sdf: &[f64]) -> Vec<(u32, u8)> {
    let (n, side) = (lattice.cells(), lattice.cells() + 1);
    let layer = |z: usize| {
        let mut out = Vec::new();
        for y in 0..n {
            let rows = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(dy, dz)| {
                let start = side * (y + dy + side * (z + dz));
                &sdf[start..start + side]
            });
            // The four corners at one x, at the places of a cell's low corners.
            let column = |x: usize| (0..4).fold(0u8, |mask, k| mask | u8::from(rows[k][x] > 0.0) << (2 * k));
            let mut low = column(0);
            for x in 0..n {
                let high = column(x + 1);
                let inside = low | high << 1;
                if inside != 0 && inside != 255 {
                    out.push(((x + n * (y + n * z)) as u32, inside));
                }
                low = high;
            }
        }
        out
    };
    (0..n).into_par_iter().flat_map_iter(layer).collect()
}

/// The loops of every cell that is cut, by ascending cell; inside is positive. No two loops of neighbours
/// are joined twice.
pub(super) fn trace(lattice: Lattice, sdf: &[f64]) -> Vec<(usize, CellLoops)> {
    let n = lattice.cells();
    let mut cells: Vec<(usize, CellLoops)> = cut_cells(lattice, sdf)
        .into_iter()
        .map(|(cell, inside)| (cell as usize, PLAIN[usize::from(inside)].clone()))
        .collect();
    // A flip parts loops, and can only on other faces join what was apart there: each face flips once.
    let mut changed = true;
    while changed {
        changed = false;
        for at in 0..cells.len() {
            for axis in 0..3 {
                let (near, far) = (2 * axis + 1, 2 * axis);
                let fresh = cells[at].1.flipped >> near & 1 == 0;
                let last = cell_coordinates(lattice, cells[at].0)[axis] + 1 == n;
                if !fresh || last || !cells[at].1.joined_twice(near) {
                    continue;
                }
                let beyond = cells[at].0 + n.pow(axis as u32);
                let Ok(other) = cells.binary_search_by_key(&beyond, |c| c.0) else { continue };
                if cells[other].1.joined_twice(far) {
                    for (cell, face) in [(at, near), (other, far)] {
                        let old = &cells[cell].1;
                        cells[cell].1 = CellLoops::new(old.inside, old.flipped | 1 << face);
                    }
                    changed = true;
                }
            }
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_edge_is_on_one_loop_whatever_is_flipped() {
        for inside in 0..=255u8 {
            for flipped in 0..64 {
                let cell = CellLoops::new(inside, flipped);
                for (e, [a, b]) in EDGES.iter().enumerate() {
                    let cut = (inside >> a & 1) != (inside >> b & 1);
                    assert_eq!(cell.of_edge(e).is_some(), cut, "{inside} {flipped} {e}");
                }
                assert!(cell.loops().all(|l| l.count_ones() >= 3), "{inside} {flipped}");
                assert!(cell.count <= 4);
            }
        }
    }

    #[test]
    fn edges_are_numbered_as_they_are_found() {
        for (e, [a, b]) in EDGES.iter().enumerate() {
            assert_eq!(between(usize::from(*a), usize::from(*b)), e);
        }
    }
}
