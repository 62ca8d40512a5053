//! What a surface sends to the eye under an environment and lamps, and the exact slopes of that.

use glam::DVec3;

use super::environment::Environment;
use super::ggx::{Look, MIN_COSINE, lamp};
use super::lut::split_sum;
use super::scalar::{Dual, Scalar, V3, add, dot, fixed, normalize, scale};

/// Light on a surface.
#[derive(Debug, Clone)]
pub struct Light<'a> {
    /// From all around.
    pub environment: &'a Environment,
    /// How far it is turned about the y axis, radians.
    pub turn: f64,
    /// Factor on it.
    pub strength: f64,
    /// Lamps at infinity: unit direction towards the lamp, linear RGB.
    pub lamps: Vec<(DVec3, DVec3)>,
}

impl<'a> Light<'a> {
    /// An environment as it is.
    pub fn from(environment: &'a Environment) -> Self {
        Self { environment, turn: 0.0, strength: 1.0, lamps: Vec::new() }
    }

    fn turned<T: Scalar>(&self, [x, y, z]: V3<T>) -> V3<T> {
        let (sin, cos) = self.turn.sin_cos();
        [x * cos - z * sin, y, x * sin + z * cos]
    }
}

/// Linear light towards `v` (unit, from the surface).
///
/// The environment's part is the split sum with light between the microfacets (Fdez-Agüera 2019): under
/// constant light nothing is lost, so a white surface is as bright as what surrounds it.
pub fn shade<T: Scalar>(look: &Look<T>, light: &Light<'_>, v: DVec3) -> [T; 3] {
    let n = normalize(look.normal);
    let eye = fixed::<T>(v);
    let n_v = dot(n, eye);
    let r = bent(std::array::from_fn(|i| n[i] * n_v * 2.0 - eye[i]), n, look.roughness);
    let specular = light.environment.specular(light.turned(r), look.roughness);
    let matte = light.environment.irradiance(light.turned(n));
    let [a, b] = split_sum(n_v.at_least(MIN_COSINE), look.roughness);
    let (f0, diffuse) = (look.f0(), look.diffuse());
    let missing = -(a + b) + 1.0;
    let from_around: V3<T> = std::array::from_fn(|c| {
        let single = f0[c] * a + b;
        let average = f0[c] + (-f0[c] + 1.0) * (1.0 / 21.0);
        let multiple = single * average / (-(missing * average) + 1.0) * missing;
        let below = (-(single + multiple) + 1.0) * diffuse[c];
        (single * specular[c] + (multiple + below) * matte[c]) * light.strength
    });
    light.lamps.iter().fold(from_around, |sum, (direction, color)| {
        let sent = lamp(look, fixed(*direction), eye);
        add(sum, std::array::from_fn(|c| sent[c] * color.to_array()[c]))
    })
}

/// The middle of a rough surface's lobe: from the mirror's direction towards the normal (Lagarde and de
/// Rousiers 2014, section 4.9.3).
fn bent<T: Scalar>(r: V3<T>, n: V3<T>, roughness: T) -> V3<T> {
    let alpha = roughness * roughness;
    let smooth = (-alpha + 1.0).at_least(0.0);
    let share = smooth * (smooth.sqrt() + alpha);
    std::array::from_fn(|i| n[i].lerp(r[i], share))
}

/// Gradient by a [`Look`], in its shape.
pub type LookGradient = Look<f64>;

/// Light towards `v`, and a function that takes a gradient by it to one by the look.
pub fn shade_with_gradient(
    look: &Look,
    light: &Light<'_>,
    v: DVec3,
    by_light: impl FnOnce(DVec3) -> DVec3,
) -> (DVec3, LookGradient) {
    let variable = |value, i| Dual::<8>::variable(value, i);
    let dual = Look {
        base: std::array::from_fn(|i| variable(look.base[i], i)),
        metallic: variable(look.metallic, 3),
        roughness: variable(look.roughness, 4),
        normal: std::array::from_fn(|i| variable(look.normal[i], 5 + i)),
    };
    let out = shade(&dual, light, v);
    let value = DVec3::from_array(out.map(|x| x.value));
    let by = by_light(value).to_array();
    let slope = |i: usize| (0..3).map(|c| by[c] * out[c].slope[i]).sum::<f64>();
    let gradient = Look {
        base: [slope(0), slope(1), slope(2)],
        metallic: slope(3),
        roughness: slope(4),
        normal: [slope(5), slope(6), slope(7)],
    };
    (value, gradient)
}

/// World normal of a tangent-space one (x along the tangent, y along the bitangent), and of which sign
/// the bitangent is; not unit.
pub fn from_tangent_space<T: Scalar>(mapped: [T; 3], normal: DVec3, tangent: DVec3, sign: f64) -> [T; 3] {
    let bitangent = normal.cross(tangent) * sign;
    add(
        add(scale(fixed(tangent), mapped[0]), scale(fixed(bitangent), mapped[1])),
        scale(fixed(normal), mapped[2]),
    )
}
