//! The metallic-roughness reflectance of glTF 2.0: a matte body under Cook and Torrance's microfacets with
//! GGX normals (Walter et al. 2007), Smith's height-correlated shadowing (Heitz 2014) and Schlick's
//! Fresnel term (1994).
//!
//! The body gets what the microfacets let through on the way in and out, (1 − E(l)) (1 − E(v)) / (1 − Ē) with
//! their directional reflectance E = F₀ A + B (Kulla and Conty 2017): the sum is reciprocal and never reflects
//! more than it gets, which Lambert times 1 − F(v·h) does at grazing angles.

use super::lut::{split_sum, split_sum_mean};
use super::scalar::{Scalar, V3, add, dot, normalize, scale};
use std::f64::consts::PI;

/// Roughness below which highlights of lamps (which have no size) would be points.
pub const MIN_ROUGHNESS: f64 = 0.04;
/// Cosines to the eye below this are taken as this: surfaces seen edge-on.
pub(super) const MIN_COSINE: f64 = 1e-4;
/// Reflectance of dielectrics at normal incidence (index of refraction 1.5).
pub const DIELECTRIC: f64 = 0.04;

/// A surface's look at a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look<T = f64> {
    /// Linear base colour.
    pub base: [T; 3],
    /// 0 dielectric … 1 metal.
    pub metallic: T,
    /// Perceptual roughness 0 … 1; α is its square.
    pub roughness: T,
    /// World-space normal; made unit.
    pub normal: [T; 3],
}

impl<T: Scalar> Look<T> {
    /// F₀ = .04 (1 − m) + m · base: reflectance at normal incidence.
    pub(super) fn f0(&self) -> V3<T> {
        self.base.map(|b| T::constant(DIELECTRIC).lerp(b, self.metallic))
    }

    /// The diffuse colour: base · (1 − m).
    pub(super) fn diffuse(&self) -> V3<T> {
        let share = -self.metallic + 1.0;
        self.base.map(|b| b * share)
    }

    /// α, for lamps.
    fn alpha(&self) -> T {
        let r = self.roughness.at_least(MIN_ROUGHNESS).at_most(1.0);
        r * r
    }
}

/// D(h): density of microfacets along h.
pub(super) fn distribution<T: Scalar>(n_h: T, alpha: T) -> T {
    let a2 = alpha * alpha;
    let t = n_h * n_h * (a2 - 1.0) + 1.0;
    a2 / (t * t * PI)
}

/// V = G₂ / (4 (n·l)(n·v)).
pub(super) fn visibility<T: Scalar>(n_l: T, n_v: T, alpha: T) -> T {
    let a2 = alpha * alpha;
    let smith = |to: T, from: T| to * (from * from * (-a2 + 1.0) + a2).sqrt();
    T::constant(0.5) / (smith(n_l, n_v) + smith(n_v, n_l)).at_least(1e-12)
}

/// (1 − x)⁵.
pub(super) fn fifth<T: Scalar>(x: T) -> T {
    let y = (-x + 1.0).at_least(0.0);
    let y2 = y * y;
    y2 * y2 * y
}

/// The BRDF f(l, v), without the cosine; symmetric in `l` and `v` (unit vectors). Zero where either
/// is below the surface.
pub fn brdf<T: Scalar>(look: &Look<T>, l: [T; 3], v: [T; 3]) -> [T; 3] {
    let n = normalize(look.normal);
    let (n_l, n_v) = (dot(n, l), dot(n, v));
    if n_l.value() <= 0.0 || n_v.value() <= 0.0 {
        return [T::constant(0.0); 3];
    }
    let (n_l, n_v) = (n_l.at_least(MIN_COSINE), n_v.at_least(MIN_COSINE));
    let h = normalize(add(l, v));
    let alpha = look.alpha();
    let microfacets = distribution(dot(n, h).at_least(0.0), alpha) * visibility(n_l, n_v, alpha);
    let schlick = fifth(dot(v, h));
    let roughness = look.roughness.at_least(MIN_ROUGHNESS).at_most(1.0);
    let (inward, outward) = (split_sum(n_l, roughness), split_sum(n_v, roughness));
    let mean = split_sum_mean(roughness);
    let (f0, diffuse) = (look.f0(), look.diffuse());
    std::array::from_fn(|c| {
        let fresnel = f0[c].lerp(T::constant(1.0), schlick);
        let through = |[a, b]: [T; 2]| -(f0[c] * a + b) + 1.0;
        let body = through(inward) * through(outward) / through(mean).at_least(1e-6);
        fresnel * microfacets + body * diffuse[c] * (1.0 / PI)
    })
}

/// Light that a lamp at infinity in direction `l` sends towards `v`. A white matte surface that faces a
/// lamp of 1 comes out as (nearly) 1: the lamp's irradiance is π.
pub fn lamp<T: Scalar>(look: &Look<T>, l: [T; 3], v: [T; 3]) -> [T; 3] {
    let n_l = dot(normalize(look.normal), l).at_least(0.0);
    scale(brdf(look, l, v), n_l * PI)
}
