//! The marching-cubes case table, derived instead of typed in.
//!
//! Corner `c` of a cell sits at `(c & 1, c >> 1 & 1, c >> 2 & 1)`. On every face each run of inside
//! corners is cut off on its own (diagonal inside corners are never joined). The rule looks only
//! at the face's four signs, so both cells of a face draw the same segments and the surface has
//! no crack. A loop is triangulated only with diagonals whose ends share no cell face: such a
//! diagonal lies strictly inside the cell and nothing else can use it, so every edge has exactly
//! two triangles. Loops without such a triangulation get a fan around their centroid.

use std::sync::LazyLock;

/// Corner pairs of the twelve cell edges: edge `4·axis + j`.
pub(super) const EDGES: [[u8; 2]; 12] =
    [[0, 1], [2, 3], [4, 5], [6, 7], [0, 2], [1, 3], [4, 6], [5, 7], [0, 4], [1, 5], [2, 6], [3, 7]];

/// Corners of the six faces, counter-clockwise seen from outside the cell.
const FACES: [[u8; 4]; 6] =
    [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]];

/// One closed polygon of cell edges.
pub(super) struct Loop {
    /// Cell edges in order.
    pub(super) edges: Vec<u8>,
    /// Triangles as cell edges; empty where a centroid fan is needed.
    pub(super) triangles: Vec<[u8; 3]>,
}

/// Loops of every case; bit `c` of the case is set where corner `c` is inside.
pub(super) static CASES: LazyLock<Vec<Vec<Loop>>> =
    LazyLock::new(|| (0..256).map(|case| loops(case as u8)).collect());

fn edge_between(a: u8, b: u8) -> u8 {
    EDGES.iter().position(|e| *e == [a.min(b), a.max(b)]).unwrap_or(0) as u8
}

/// `next[e]`: the cell edge that follows crossing `e` around its loop.
fn segments(case: u8) -> [Option<u8>; 12] {
    let inside = |c: u8| case >> c & 1 == 1;
    let mut next = [None; 12];
    for face in FACES {
        for i in 0..4 {
            let (from, to) = (face[i], face[(i + 1) % 4]);
            if inside(from) || !inside(to) {
                continue;
            }
            // The run of inside corners that starts at `to` ends where the walk leaves it.
            let mut j = (i + 1) % 4;
            while inside(face[(j + 1) % 4]) {
                j = (j + 1) % 4;
            }
            let leave = edge_between(face[j], face[(j + 1) % 4]);
            next[usize::from(edge_between(from, to))] = Some(leave);
        }
    }
    next
}

fn loops(case: u8) -> Vec<Loop> {
    let mut next = segments(case);
    let mut found = Vec::new();
    for start in 0..12u8 {
        let mut edges = Vec::new();
        let mut edge = start;
        while let Some(following) = next[usize::from(edge)].take() {
            edges.push(edge);
            edge = following;
        }
        if !edges.is_empty() {
            let triangles = triangulate(&edges, 0, edges.len() - 1).unwrap_or_default();
            found.push(Loop { edges, triangles });
        }
    }
    found
}

/// True if cell edges `a` and `b` lie on one face.
fn share_face(a: u8, b: u8) -> bool {
    let on = |e: u8, face: &[u8; 4]| EDGES[usize::from(e)].iter().all(|c| face.contains(c));
    FACES.iter().any(|f| on(a, f) && on(b, f))
}

/// Triangles of the sub-polygon `i..=j`, all of whose diagonals are inside the cell.
fn triangulate(edges: &[u8], i: usize, j: usize) -> Option<Vec<[u8; 3]>> {
    if j < i + 2 {
        return Some(Vec::new());
    }
    let allowed = |a: usize, b: usize| b == a + 1 || !share_face(edges[a], edges[b]);
    // Middle apexes first: they give rounder triangles than fans from one end.
    let mut apexes: Vec<usize> = (i + 1..j).collect();
    apexes.sort_by_key(|k| (2 * k).abs_diff(i + j));
    apexes.into_iter().find_map(|k| {
        if !allowed(i, k) || !allowed(k, j) {
            return None;
        }
        let mut triangles = triangulate(edges, i, k)?;
        triangles.push([edges[i], edges[k], edges[j]]);
        triangles.extend(triangulate(edges, k, j)?);
        Some(triangles)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crossed_edge_is_in_exactly_one_loop() {
        for case in 0..256usize {
            let mut count = [0; 12];
            CASES[case].iter().flat_map(|l| &l.edges).for_each(|&e| count[usize::from(e)] += 1);
            for (e, [a, b]) in EDGES.iter().enumerate() {
                let crossed = (case >> a ^ case >> b) & 1;
                assert_eq!(count[e], crossed, "case {case} edge {e}");
            }
            for l in &CASES[case] {
                assert!(l.edges.len() >= 3);
                assert!(l.triangles.is_empty() || l.triangles.len() == l.edges.len() - 2);
            }
        }
    }

    #[test]
    fn faces_walk_along_cell_edges_and_use_each_twice() {
        let mut uses = [0; 12];
        for f in FACES {
            for i in 0..4 {
                let pair = [f[i].min(f[(i + 1) % 4]), f[i].max(f[(i + 1) % 4])];
                assert!(EDGES.contains(&pair), "{pair:?}");
                uses[usize::from(edge_between(pair[0], pair[1]))] += 1;
            }
        }
        assert_eq!(uses, [2; 12]);
    }
}
