//! Pictures over all directions: cube maps with a border, so that reading does not stop at a face's end.

use glam::DVec3;
use rayon::prelude::*;

use super::scalar::{Scalar, V3};

/// A cube map of linear RGB.
#[derive(Debug, Clone)]
pub(super) struct Cube {
    side: usize,
    /// `[6, side + 2, side + 2]`; the outermost texels look past the face's edge.
    texels: Vec<[f32; 3]>,
}

/// Which coordinate a face looks along, and the two that run over it.
const AXES: [[usize; 3]; 3] = [[0, 1, 2], [1, 2, 0], [2, 0, 1]];

/// Unit direction of face coordinates in [−1, 1]² (beyond it, past the edge).
fn direction(face: usize, u: f64, v: f64) -> DVec3 {
    let [main, first, second] = AXES[face / 2];
    let mut d = [0.0; 3];
    d[main] = if face.is_multiple_of(2) { 1.0 } else { -1.0 };
    (d[first], d[second]) = (u, v);
    DVec3::from_array(d).normalize()
}

impl Cube {
    /// Texel centres filled from a function of the unit direction.
    pub(super) fn new(side: usize, value: impl Fn(DVec3) -> [f64; 3] + Sync) -> Self {
        let row = side + 2;
        let texels = (0..6 * row * row)
            .into_par_iter()
            .map(|i| {
                let center = |k: usize| 2.0 * (k as f64 - 0.5) / side as f64 - 1.0;
                let d = direction(i / (row * row), center(i % row), center(i / row % row));
                value(d).map(|x| x as f32)
            })
            .collect();
        Self { side, texels }
    }

    /// Direction, solid angle and value of each texel (borders left out).
    pub(super) fn radiance(&self) -> Vec<(DVec3, f64, DVec3)> {
        let n = self.side;
        let mut out = Vec::with_capacity(6 * n * n);
        for face in 0..6 {
            for y in 0..n {
                for x in 0..n {
                    let at = |k: usize| 2.0 * (k as f64 + 0.5) / n as f64 - 1.0;
                    let (u, v) = (at(x), at(y));
                    let solid = 4.0 / (n * n) as f64 / (1.0 + u * u + v * v).powf(1.5);
                    let value = self.texel(face, x + 1, y + 1);
                    out.push((direction(face, u, v), solid, DVec3::from_array(value.map(f64::from))));
                }
            }
        }
        out
    }

    fn texel(&self, face: usize, x: usize, y: usize) -> [f32; 3] {
        let row = self.side + 2;
        self.texels[(face * row + y) * row + x]
    }

    /// The value in direction `d` (any length but 0), bilinear.
    pub(super) fn sample<T: Scalar>(&self, d: V3<T>) -> V3<T> {
        let size = d.map(|x| x.value().abs());
        let axis = match (size[0] >= size[1], size[0] >= size[2], size[1] >= size[2]) {
            (true, true, _) => 0,
            (_, _, true) => 1,
            _ => 2,
        };
        let [main, first, second] = AXES[axis];
        let positive = d[main].value() > 0.0;
        let depth = if positive { d[main] } else { -d[main] }.at_least(1e-12);
        let face = 2 * axis + usize::from(!positive);
        // In texels, the border's centre at 0.
        let place = |x: T| (x / depth + 1.0) * (0.5 * self.side as f64) + 0.5;
        let (x, y) = (place(d[first]), place(d[second]));
        let cell = |t: T| (t.value().floor().max(0.0) as usize).min(self.side);
        let (i, j) = (cell(x), cell(y));
        let (fx, fy) = (x - i as f64, y - j as f64);
        let corners = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(a, b)| self.texel(face, i + a, j + b));
        std::array::from_fn(|c| {
            let [p, q, r, s] = corners.map(|t| T::constant(f64::from(t[c])));
            p.lerp(q, fx).lerp(r.lerp(s, fx), fy)
        })
    }

    /// The cube blurred by a kernel of the cosine to each direction (not negative; its scale does not
    /// matter), by summing over all of `source`'s texels. A constant stays that constant.
    pub(super) fn blurred(source: &Self, side: usize, kernel: impl Fn(f64) -> f64 + Sync) -> Self {
        let radiance = source.radiance();
        Self::new(side, |d| {
            let (mut sum, mut total) = (DVec3::ZERO, 0.0);
            for (l, solid, value) in &radiance {
                let cosine = d.dot(*l);
                if cosine > 0.0 {
                    let weight = kernel(cosine) * solid;
                    sum += *value * weight;
                    total += weight;
                }
            }
            (sum / total.max(f64::MIN_POSITIVE)).to_array()
        })
    }

    /// Half the side, each texel the mean over the solid angle of the four that it covers.
    pub(super) fn halved(&self) -> Self {
        let n = self.side / 2;
        let mean = |face: usize, x: usize, y: usize| -> DVec3 {
            let (mut sum, mut total) = (DVec3::ZERO, 0.0);
            for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                let at = |k: usize| 2.0 * (k as f64 + 0.5) / self.side as f64 - 1.0;
                let (u, v) = (at(2 * x + dx), at(2 * y + dy));
                let solid = (1.0 + u * u + v * v).powf(-1.5);
                let texel = self.texel(face, 2 * x + dx + 1, 2 * y + dy + 1);
                sum += DVec3::from_array(texel.map(f64::from)) * solid;
                total += solid;
            }
            sum / total
        };
        let inner: Vec<DVec3> = (0..6 * n * n).map(|i| mean(i / (n * n), i % n, i / n % n)).collect();
        // The border reads what lies there on the neighbouring face.
        let nearest = |d: DVec3| -> [f64; 3] {
            let a = d.abs();
            let axis = if a.x >= a.y && a.x >= a.z {
                0
            } else if a.y >= a.z {
                1
            } else {
                2
            };
            let [main, first, second] = AXES[axis];
            let depth = a[main];
            let face = 2 * axis + usize::from(d[main] < 0.0);
            let cell = |x: f64| (((x / depth + 1.0) * 0.5 * n as f64) as usize).min(n - 1);
            inner[(face * n + cell(d[second])) * n + cell(d[first])].to_array()
        };
        Self::new(n, nearest)
    }
}
