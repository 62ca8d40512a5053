//! A primitive's triangles in its own space, before placing and colouring.

use std::collections::HashMap;

use glam::{Vec2, Vec3};

/// Triangles of one primitive.
#[derive(Debug, Clone, Default)]
pub(super) struct Surface {
    pub(super) positions: Vec<Vec3>,
    /// Angle around the axis and position along it, both 0 … 1.
    pub(super) uvs: Vec<Vec2>,
    /// Counter-clockwise seen from outside.
    pub(super) triangles: Vec<[u32; 3]>,
}

impl Surface {
    /// Adds a vertex and returns its index.
    pub(super) fn vertex(&mut self, position: Vec3, uv: Vec2) -> u32 {
        self.positions.push(position);
        self.uvs.push(uv);
        (self.positions.len() - 1) as u32
    }

    /// Adds the quadrilateral `a b c d`, dropping triangles that share vertices.
    pub(super) fn quad(&mut self, a: u32, b: u32, c: u32, d: u32) {
        for t in [[a, b, c], [a, c, d]] {
            if t[0] != t[1] && t[1] != t[2] && t[2] != t[0] {
                self.triangles.push(t);
            }
        }
    }

    /// Connects rings of equal length (or single poles), each following the one before outwards-right.
    pub(super) fn connect(&mut self, rings: &[Vec<u32>]) {
        for pair in rings.windows(2) {
            let (low, high) = (&pair[0], &pair[1]);
            let n = low.len().max(high.len());
            for i in 0..n {
                let j = (i + 1) % n;
                let at = |ring: &Vec<u32>, k: usize| ring[k % ring.len()];
                self.quad(at(low, i), at(low, j), at(high, j), at(high, i));
            }
        }
    }

    /// Bounds `(centre, half extent)`; half extents are at least a tiny positive number.
    pub(super) fn frame(&self) -> (Vec3, Vec3) {
        let lo = self.positions.iter().fold(Vec3::INFINITY, |a, p| a.min(*p));
        let hi = self.positions.iter().fold(Vec3::NEG_INFINITY, |a, p| a.max(*p));
        ((lo + hi) * 0.5, ((hi - lo) * 0.5).max(Vec3::splat(1e-6)))
    }

    /// Six times the enclosed volume, by the divergence theorem; positive when faces look outwards.
    pub(super) fn volume6(&self) -> f32 {
        signed_volume6(&self.positions, &self.triangles)
    }

    /// Reverses every triangle.
    pub(super) fn flip(&mut self) {
        self.triangles.iter_mut().for_each(|t| t.swap(1, 2));
    }

    /// Moves vertices along the direction from the centre by value noise.
    pub(super) fn bump(&mut self, amount: f32, waves: f32, seed: u32) {
        let (centre, half) = self.frame();
        for p in &mut self.positions {
            let unit = (*p - centre) / half;
            let n = value_noise(unit * waves * 0.5, seed) * 2.0 - 1.0;
            *p += (*p - centre).normalize_or_zero() * (n * amount);
        }
    }
}

/// `Σ a · (b × c)` over the triangles.
pub(super) fn signed_volume6(positions: &[Vec3], triangles: &[[u32; 3]]) -> f32 {
    let at = |i: u32| positions[i as usize];
    triangles.iter().map(|t| at(t[0]).dot(at(t[1]).cross(at(t[2])))).sum()
}

/// Smooth noise in 0 … 1, trilinear between random values at the integer lattice.
pub(crate) fn value_noise(p: Vec3, seed: u32) -> f32 {
    let base = p.floor();
    let f = p - base;
    let f = f * f * (Vec3::splat(3.0) - 2.0 * f);
    let corner = |k: u32| {
        let d = Vec3::new((k & 1) as f32, (k >> 1 & 1) as f32, (k >> 2) as f32);
        let q = base + d;
        let w = d * f + (Vec3::ONE - d) * (Vec3::ONE - f);
        let word =
            crate::rng::philox([q.x as i32 as u32, q.y as i32 as u32, q.z as i32 as u32, 0], [seed, 0]);
        w.x * w.y * w.z * (word[0] >> 8) as f32 / 16_777_216.0
    };
    (0..8).map(corner).sum()
}

/// A surface with normals: positions, normals and, for each new vertex, the vertex it came from.
#[derive(Clone)]
pub(super) struct Shaded {
    pub(super) positions: Vec<Vec3>,
    pub(super) normals: Vec<Vec3>,
    pub(super) source: Vec<u32>,
    pub(super) triangles: Vec<[u32; 3]>,
}

/// Smooth normals, but edges sharper than about 50° stay hard: each corner averages the faces around
/// its position that lean less than that from its own face.
pub(super) fn shade(positions: &[Vec3], triangles: &[[u32; 3]], scale: f32) -> Shaded {
    const CREASE_COS: f32 = 0.64;
    let quantum = 1e5 / scale.max(1e-6);
    let key = |p: Vec3| (p * quantum).round().to_array().map(|v| v as i64);
    let mut weld: HashMap<[i64; 3], u32> = HashMap::with_capacity(positions.len());
    let ids: Vec<u32> = positions
        .iter()
        .map(|p| {
            let next = weld.len() as u32;
            *weld.entry(key(*p)).or_insert(next)
        })
        .collect();
    let corner = |t: &[u32; 3]| t.map(|i| positions[i as usize]);
    let faces: Vec<Vec3> = triangles
        .iter()
        .map(|t| {
            let [a, b, c] = corner(t);
            (b - a).cross(c - a)
        })
        .collect();
    let mut around: Vec<Vec<u32>> = vec![Vec::new(); weld.len()];
    for (k, t) in triangles.iter().enumerate() {
        for i in t {
            around[ids[*i as usize] as usize].push(k as u32);
        }
    }
    let mut out = Shaded { positions: vec![], normals: vec![], source: vec![], triangles: vec![] };
    let mut made: HashMap<(u32, [i32; 3]), u32> = HashMap::new();
    for (k, t) in triangles.iter().enumerate() {
        let own = faces[k].normalize_or_zero();
        if own == Vec3::ZERO {
            continue;
        }
        let new = t.map(|i| {
            let sum: Vec3 = around[ids[i as usize] as usize]
                .iter()
                .map(|f| faces[*f as usize])
                .filter(|f| f.dot(own) > CREASE_COS * f.length())
                .sum();
            let normal = sum.try_normalize().unwrap_or(own);
            *made.entry((i, (normal * 1e3).round().to_array().map(|v| v as i32))).or_insert_with(|| {
                out.positions.push(positions[i as usize]);
                out.normals.push(normal);
                out.source.push(i);
                (out.positions.len() - 1) as u32
            })
        });
        out.triangles.push(new);
    }
    out
}
