//! The loops of cut edges on the cells of a lattice, paired alike by neighbours.

use std::collections::HashMap;

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
}

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
        let mut out = Self { inside, flipped, of_edge: [NONE; 12], count: 0 };
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
        let [first, second] = pairs(self.inside, face, self.flipped >> face & 1 == 1);
        match (first, second) {
            (Some([a, _]), Some([b, _])) => self.of_edge[a] == self.of_edge[b],
            _ => false,
        }
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

/// The loops of every cell that is cut, by ascending cell; inside is positive. No two loops of neighbours
/// are joined twice.
pub(super) fn trace(lattice: Lattice, sdf: &[f64]) -> Vec<(usize, CellLoops)> {
    let n = lattice.cells();
    let mut cells = Vec::new();
    let mut place = HashMap::new();
    for cell in 0..n.pow(3) {
        let inside = (0..8).fold(0u8, |mask, c| mask | u8::from(sdf[corner(lattice, cell, c)] > 0.0) << c);
        if inside != 0 && inside != 255 {
            place.insert(cell, cells.len());
            cells.push((cell, CellLoops::new(inside, 0)));
        }
    }
    // A flip parts loops, and can only on other faces join what was apart there: each face flips once.
    let mut changed = true;
    while changed {
        changed = false;
        for at in 0..cells.len() {
            for axis in 0..3 {
                let beyond = cells[at].0 + n.pow(axis as u32);
                let last = cell_coordinates(lattice, cells[at].0)[axis] + 1 == n;
                let Some(&other) = place.get(&beyond).filter(|_| !last) else { continue };
                let (near, far) = (2 * axis + 1, 2 * axis);
                let fresh = cells[at].1.flipped >> near & 1 == 0;
                if fresh && cells[at].1.joined_twice(near) && cells[other].1.joined_twice(far) {
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
