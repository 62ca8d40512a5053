//! Directional reflectance of the microfacets, ∫ f (n·l) dl = F₀ · A + B (Karis 2013), integrated here
//! and read from a table.

use std::f64::consts::TAU;
use std::sync::LazyLock;

use glam::DVec3;
use rayon::prelude::*;

use super::ggx::{MIN_COSINE, fifth, visibility};
use super::scalar::Scalar;

/// Entries along each side of the table.
const SIDE: usize = 48;
/// Directions an entry is integrated over.
const SAMPLES: u32 = 512;

/// A and B at the corners of a grid over (n·v, roughness), both from 0 to 1.
static TABLE: LazyLock<Vec<[f64; 2]>> = LazyLock::new(|| {
    (0..SIDE * SIDE)
        .into_par_iter()
        .map(|i| {
            let at = |k: usize| k as f64 / (SIDE - 1) as f64;
            integrate(abscissa(at(i % SIDE)).max(MIN_COSINE), at(i / SIDE), SAMPLES)
        })
        .collect()
});

/// Columns are denser at grazing angles, where A and B bend: n·v = x².
fn abscissa(x: f64) -> f64 {
    x * x
}

/// A and B by sampling the visible microfacet normals (Heitz 2018) over a Hammersley set: each sample
/// counts G₂ / G₁(v), which is never far from 1.
pub(super) fn integrate(n_v: f64, roughness: f64, samples: u32) -> [f64; 2] {
    let alpha = (roughness * roughness).max(1e-4);
    // z is the normal; v lies in the plane of x and z.
    let v = DVec3::new((1.0 - n_v * n_v).max(0.0).sqrt(), 0.0, n_v);
    let stretched = DVec3::new(alpha * v.x, 0.0, v.z).normalize();
    let up = stretched.cross(DVec3::Y);
    let a2 = alpha * alpha;
    let masking = 2.0 * n_v / (n_v + (a2 + (1.0 - a2) * n_v * n_v).sqrt());
    let (mut a, mut b) = (0.0, 0.0);
    for i in 0..samples {
        let (x, y) = hammersley(i, samples);
        let (sin, cos) = (TAU * y).sin_cos();
        let (s, t) = (x.sqrt() * cos, x.sqrt() * sin);
        let half = 0.5 * (1.0 + stretched.z);
        let t = (1.0 - half) * (1.0 - s * s).sqrt() + half * t;
        let h = s * DVec3::Y + t * up + (1.0 - s * s - t * t).max(0.0).sqrt() * stretched;
        let h = DVec3::new(alpha * h.x, alpha * h.y, h.z.max(0.0)).normalize();
        let v_h = v.dot(h);
        let n_l = 2.0 * v_h * h.z - n_v;
        if n_l <= 0.0 || v_h <= 0.0 {
            continue;
        }
        let weight = 4.0 * n_l * n_v * visibility(n_l, n_v, alpha) / masking;
        let schlick = fifth(v_h);
        a += (1.0 - schlick) * weight;
        b += schlick * weight;
    }
    [a / f64::from(samples), b / f64::from(samples)]
}

/// Point `i` of `n` of Hammersley's set, at the middle of its cell.
pub(super) fn hammersley(i: u32, n: u32) -> (f64, f64) {
    let reversed = f64::from(i.reverse_bits()) / 4_294_967_296.0;
    ((f64::from(i) + 0.5) / f64::from(n), (reversed + 0.5 / f64::from(n)).min(1.0 - 1e-9))
}

/// A and B at (n·v, roughness), bilinear in the table.
pub(super) fn split_sum<T: Scalar>(n_v: T, roughness: T) -> [T; 2] {
    let table = &*TABLE;
    let last = (SIDE - 1) as f64;
    let x = n_v.at_least(MIN_COSINE).at_most(1.0).sqrt() * last;
    let y = roughness.at_least(0.0).at_most(1.0) * last;
    let cell = |t: T| (t.value().floor().max(0.0) as usize).min(SIDE - 2);
    let (i, j) = (cell(x), cell(y));
    let (fx, fy) = (x - i as f64, y - j as f64);
    std::array::from_fn(|k| {
        let at = |di: usize, dj: usize| T::constant(table[(j + dj) * SIDE + i + di][k]);
        at(0, 0).lerp(at(1, 0), fx).lerp(at(0, 1).lerp(at(1, 1), fx), fy)
    })
}

/// A and B averaged over the cosine-weighted hemisphere, 2 ∫ · μ dμ, by roughness.
static MEANS: LazyLock<Vec<[f64; 2]>> = LazyLock::new(|| {
    let last = (SIDE - 1) as f64;
    let row = |j: usize| {
        // μ = x², so 2 μ dμ = 4 x³ dx; Simpson's rule between the table's entries.
        let (mut sum, f) = ([0.0; 2], |v: f64, x: f64| 4.0 * v * x.powi(3));
        for i in 1..SIDE {
            let (x, y) = ((i - 1) as f64 / last, i as f64 / last);
            for (k, sum) in sum.iter_mut().enumerate() {
                let (p, q) = (TABLE[j * SIDE + i - 1][k], TABLE[j * SIDE + i][k]);
                *sum += (y - x) / 6.0 * (f(p, x) + 4.0 * f(0.5 * (p + q), 0.5 * (x + y)) + f(q, y));
            }
        }
        sum
    };
    (0..SIDE).map(row).collect()
});

/// The means of A and B at a roughness.
pub(super) fn split_sum_mean<T: Scalar>(roughness: T) -> [T; 2] {
    let means = &*MEANS;
    let y = roughness.at_least(0.0).at_most(1.0) * (SIDE - 1) as f64;
    let j = (y.value().floor().max(0.0) as usize).min(SIDE - 2);
    let f = y - j as f64;
    std::array::from_fn(|k| T::constant(means[j][k]).lerp(T::constant(means[j + 1][k]), f))
}
