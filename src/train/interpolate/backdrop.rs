//! Backdrops that move: dead leaves (Lee, Mumford and Huang 2001), whose edges and sizes are spread like
//! those of photographs.

use glam::{Mat2, Vec2, Vec3};

use crate::rng::Rng;

/// Random numbers of a leaf.
const LEAF_DRAWS: u64 = 16;

/// A texture of `side`² texels, linear RGB, mirrored beyond its border.
pub(super) struct Backdrop {
    side: usize,
    texels: Vec<Vec3>,
    motion: Motion,
}

/// Movement of the plane: all of it linear in time.
struct Motion {
    /// Pixels over the whole sequence.
    shift: Vec2,
    /// Radians.
    turn: f32,
    /// Logarithm of the growth.
    zoom: f32,
}

/// Samples a texel is averaged from, each way.
const FINER: usize = 2;

/// A number of magnitude up to `most`, small ones more often.
pub(super) fn small(u: f32, most: f32) -> f32 {
    let signed = 2.0 * u - 1.0;
    most * signed * signed.abs()
}

impl Backdrop {
    /// A pure function of `rng` from `base` on, for pictures of `size` pixels.
    pub(super) fn new(rng: &Rng, base: u64, size: usize) -> Self {
        let u = |k: u64| rng.uniform(base + k);
        let side = 2 * size;
        // A third of all cameras stand still.
        let most = if u(0) < 0.33 { 0.0 } else { 1.0 };
        let motion = Motion {
            shift: Vec2::new(small(u(1), 0.22), small(u(2), 0.16)) * size as f32 * most,
            turn: small(u(3), 0.2) * most,
            zoom: small(u(4), 0.15) * most,
        };
        let plain = u(5) < 0.15;
        let leaves = if plain { 0 } else { 40 + (u(6) * 500.0) as u64 };
        let texels = leaves_of(rng, base + LEAF_DRAWS, side * FINER, leaves);
        Self { side, texels: averaged(&texels, side), motion }
    }

    /// The linear colour at pixel (`x`, `y`), centres at +0.5, of a picture of `size`, at time 0 … 1.
    pub(super) fn at(&self, x: f32, y: f32, size: usize, time: f32) -> Vec3 {
        let t = time - 0.5;
        let turn = Mat2::from_angle(self.motion.turn * t) * (self.motion.zoom * t).exp();
        let centre = Vec2::splat(0.5 * size as f32);
        let p = turn * (Vec2::new(x, y) - centre) + self.motion.shift * t;
        self.sample(p + Vec2::splat(0.5 * self.side as f32 - 0.5))
    }

    fn sample(&self, p: Vec2) -> Vec3 {
        let n = self.side as i64;
        let mirrored = |i: i64| {
            let i = i.rem_euclid(2 * n);
            i.min(2 * n - 1 - i) as usize
        };
        let (low, f) = (p.floor(), p - p.floor());
        let (x0, x1) = (mirrored(low.x as i64), mirrored(low.x as i64 + 1));
        let line = |y: i64| {
            let row = &self.texels[mirrored(y) * self.side..];
            row[x0].lerp(row[x1], f.x)
        };
        line(low.y as i64).lerp(line(low.y as i64 + 1), f.y)
    }
}

/// A gradient, and over it `count` discs and boxes, each over those before, their sizes by the inverse cube.
fn leaves_of(rng: &Rng, base: u64, side: usize, count: u64) -> Vec<Vec3> {
    let colour = |k: u64| Vec3::from_array([0, 1, 2].map(|c| rng.uniform(base + k + c).powi(2)));
    let (a, b) = (colour(0), colour(3));
    let at = |i: usize| a.lerp(b, (i / side) as f32 / side as f32);
    let mut texels: Vec<Vec3> = (0..side * side).map(at).collect();
    for leaf in 0..count {
        let k = LEAF_DRAWS * (leaf + 1);
        let u = |i: u64| rng.uniform(base + k + i);
        // Radii between 1/100 and 1/4 of the side, 1/r² of them above r.
        let (least, most) = (0.01f32, 0.25f32);
        let radius = least / (1.0 - u(0) * (1.0 - (least / most).powi(2))).sqrt() * side as f32;
        let centre = Vec2::new(u(1), u(2)) * side as f32;
        let axes = Mat2::from_angle(std::f32::consts::PI * u(3));
        let (flat, round) = (0.3 + 0.7 * u(4), u(5) < 0.6);
        let (one, two) = (colour(k + 6), colour(k + 9));
        let stripes = if u(12) < 0.25 { 2.0 + 6.0 * u(13) } else { 0.0 };
        let range = |c: f32| {
            let low = (c - 1.5 * radius).max(0.0) as usize;
            low..((c + 1.5 * radius).max(0.0) as usize + 1).min(side)
        };
        for y in range(centre.y) {
            for x in range(centre.x) {
                let q = axes * (Vec2::new(x as f32, y as f32) - centre) / radius;
                let q = Vec2::new(q.x, q.y / flat);
                if if round { q.length() < 1.0 } else { q.abs().max_element() < 1.0 } {
                    let second = stripes > 0.0 && (q.x * stripes).rem_euclid(2.0) < 1.0;
                    texels[y * side + x] = if second { two } else { one };
                }
            }
        }
    }
    texels
}

/// Means of squares of [`FINER`]² texels.
fn averaged(texels: &[Vec3], side: usize) -> Vec<Vec3> {
    let mean = |i: usize| {
        let (x, y) = (i % side * FINER, i / side * FINER);
        let cells = (0..FINER * FINER).map(|k| texels[(y + k / FINER) * side * FINER + x + k % FINER]);
        cells.sum::<Vec3>() / (FINER * FINER) as f32
    };
    (0..side * side).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn a_backdrop_moves_as_a_whole() {
        let rng = Rng::new(5, Stream::Camera, 0);
        let mut backdrop = Backdrop::new(&rng, 0, 32);
        backdrop.motion = Motion { shift: Vec2::new(6.0, -2.0), turn: 0.0, zoom: 0.0 };
        // The point under (x, y) at time 1 was under (x + 6, y − 2) at time 0.
        for (x, y) in [(10.5, 20.5), (3.5, 9.5), (30.5, 31.5)] {
            let (now, then) = (backdrop.at(x, y, 32, 1.0), backdrop.at(x + 6.0, y - 2.0, 32, 0.0));
            assert!((now - then).length() < 1e-4, "{now} {then}");
        }
        let colours: Vec<Vec3> = (0..32).map(|x| backdrop.at(x as f32, 16.0, 32, 0.0)).collect();
        assert!(colours.iter().any(|c| (*c - colours[0]).length() > 0.05), "there is something to see");
    }
}
