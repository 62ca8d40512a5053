//! Oracles: closed forms, brute-force integrals, invariants, finite differences.

use std::f64::consts::{PI, TAU};

use glam::{DVec3, Vec3};

use super::environment::Environment;
use super::ggx::{brdf, distribution};
use super::lut::{integrate, split_sum};
use super::shading::{Light, from_tangent_space, shade, shade_with_gradient};
use super::{Look, Studio, Tone, lamp};
use crate::rng::{Rng, Stream};

/// Uniform numbers; another series for each key.
fn draws(key: u32) -> impl FnMut(f64, f64) -> f64 {
    let rng = Rng::new(41, Stream::Probe, key);
    let mut i = 0;
    move |low, high| {
        i += 1;
        low + (high - low) * f64::from(rng.uniform(i))
    }
}

/// A unit vector at least `height` above the plane of the normal +Y.
fn above(draw: &mut impl FnMut(f64, f64) -> f64, height: f64) -> DVec3 {
    let (y, turn) = (draw(height, 1.0), draw(0.0, TAU));
    let r = (1.0 - y * y).sqrt();
    DVec3::new(r * turn.cos(), y, r * turn.sin())
}

fn look(base: [f64; 3], metallic: f64, roughness: f64) -> Look {
    Look { base, metallic, roughness, normal: [0.0, 1.0, 0.0] }
}

/// ∫ f(l) dl over the upper hemisphere, on a grid that is finer towards the pole (y = 1 − t²).
fn hemisphere(steps: usize, f: impl Fn(DVec3) -> f64) -> f64 {
    let mut sum = 0.0;
    for i in 0..steps {
        let t = (i as f64 + 0.5) / steps as f64;
        let y = 1.0 - t * t;
        let r = (1.0 - y * y).sqrt();
        for j in 0..4 * steps {
            let turn = TAU * (j as f64 + 0.5) / (4 * steps) as f64;
            sum += 2.0 * t * f(DVec3::new(r * turn.cos(), y, r * turn.sin()));
        }
    }
    sum * TAU / (steps * 4 * steps) as f64
}

fn toward(n_v: f64) -> DVec3 {
    DVec3::new((1.0 - n_v * n_v).sqrt(), n_v, 0.0)
}

#[test]
fn microfacet_areas_project_to_one() {
    for roughness in [0.3, 0.5, 0.8, 1.0] {
        let area = hemisphere(300, |h| distribution(h.y, roughness * roughness) * h.y);
        assert!((area - 1.0).abs() < 2e-3, "{roughness}: {area}");
    }
}

#[test]
fn the_table_agrees_with_integrals_over_the_hemisphere() {
    // With F₀ = 1 − ε and no diffuse part the BRDF's integral is F₀ A + B; two values of F₀ give both.
    for (n_v, roughness) in [(0.95, 0.35), (0.6, 0.5), (0.3, 0.8), (0.8, 1.0), (0.15, 0.6)] {
        let v = toward(n_v).to_array();
        let whole = |f0: f64| {
            let metal = look([f0; 3], 1.0, roughness);
            hemisphere(400, |l| brdf(&metal, l.to_array(), v)[0] * l.y)
        };
        let (none, all) = (whole(0.0), whole(1.0));
        let [a, b] = split_sum(n_v, roughness);
        assert!(
            (a + b - all).abs() < 4e-3 && (b - none).abs() < 4e-3,
            "{n_v} {roughness}: {a} {b} {all} {none}"
        );
        // The table's grid against the integral at the place itself.
        let [exact_a, exact_b] = integrate(n_v, roughness, 4096);
        assert!((a - exact_a).abs() < 3e-3 && (b - exact_b).abs() < 3e-3, "{a} {exact_a} {b} {exact_b}");
    }
}

#[test]
fn a_mirror_reflects_as_fresnel_says() {
    for n_v in [1.0, 0.7, 0.4, 0.1] {
        let [a, b] = split_sum(n_v, 0.0);
        let schlick = (1.0 - n_v).powi(5);
        assert!((a - (1.0 - schlick)).abs() < 2e-3 && (b - schlick).abs() < 2e-3, "{n_v}: {a} {b}");
    }
}

#[test]
fn white_furnace() {
    let white = Environment::constant(DVec3::ONE);
    let light = Light::from(&white);
    let mut draw = draws(1);
    for i in 0..200 {
        let r = draw(0.0, 1.0);
        let out = shade(&look([1.0; 3], f64::from(i % 2), r), &light, above(&mut draw, 0.01));
        for c in out {
            assert!((c - 1.0).abs() < 1e-9, "{i} {r}: {c}");
        }
        // What is neither dielectric nor metal, or absorbs, is darker, and no darker than black.
        let base = [draw(0.0, 1.0), draw(0.0, 1.0), draw(0.0, 1.0)];
        let out = shade(&look(base, draw(0.0, 1.0), r), &light, above(&mut draw, 0.01));
        assert!(out.iter().all(|c| (0.0..=1.0 + 1e-9).contains(c)), "{out:?}");
    }
}

#[test]
fn no_direction_gives_more_than_it_gets() {
    for roughness in [0.3, 0.5, 1.0] {
        for metallic in [0.0, 0.5, 1.0] {
            for n_v in [0.98, 0.5, 0.1] {
                let white = look([1.0; 3], metallic, roughness);
                let v = toward(n_v).to_array();
                let out = hemisphere(200, |l| brdf(&white, l.to_array(), v)[0] * l.y);
                // A white dielectric absorbs nothing: all of what microfacets do not take comes out of its body.
                let least = if metallic == 0.0 { 0.985 } else { 0.3 };
                assert!(out > least && out < 1.01, "{roughness} {metallic} {n_v}: {out}");
            }
        }
    }
}

#[test]
fn reciprocity() {
    let mut draw = draws(2);
    for _ in 0..200 {
        let surface = look([draw(0.0, 1.0), draw(0.0, 1.0), draw(0.0, 1.0)], draw(0.0, 1.0), draw(0.0, 1.0));
        let (l, v) = (above(&mut draw, 0.01).to_array(), above(&mut draw, 0.01).to_array());
        let (there, back) = (brdf(&surface, l, v), brdf(&surface, v, l));
        for (a, b) in there.iter().zip(back) {
            assert!((a - b).abs() <= 1e-12 * a.abs().max(1.0), "{a} {b}");
        }
    }
    // Below the horizon there is nothing.
    let surface = look([1.0; 3], 0.0, 0.5);
    assert_eq!(brdf(&surface, [0.0, -1.0, 0.0], [0.0, 1.0, 0.0]), [0.0; 3]);
    assert_eq!(lamp(&surface, [0.6, -0.8, 0.0], [0.0, 1.0, 0.0]), [0.0; 3]);
}

#[test]
fn irradiance_of_a_gradient_is_its_closed_form() {
    // ∫ (1 + l·y) (n·l) dl = π + ⅔ π n·y.
    let sky = Environment::new(|d| DVec3::splat(1.0 + d.y));
    let mut draw = draws(3);
    for _ in 0..50 {
        let n = above(&mut draw, -1.0);
        let found = sky.irradiance(n.to_array())[0];
        let exact = 1.0 + 2.0 / 3.0 * n.y;
        assert!((found - exact).abs() < 8e-3, "{n}: {found} {exact}");
    }
}

#[test]
fn a_smooth_metal_shows_what_it_mirrors() {
    let sky = Environment::new(|d| DVec3::new(1.0 + d.x, 1.0 + 0.5 * d.y, 1.0 + 0.3 * d.z));
    let mut draw = draws(4);
    for _ in 0..50 {
        let v = above(&mut draw, 0.05);
        let r = DVec3::new(-v.x, v.y, -v.z);
        let out = DVec3::from_array(shade(&look([1.0; 3], 1.0, 0.0), &Light::from(&sky), v));
        let exact = DVec3::new(1.0 + r.x, 1.0 + 0.5 * r.y, 1.0 + 0.3 * r.z);
        assert!((out - exact).abs().max_element() < 6e-3, "{v}: {out} {exact}");
        // Turned by a right angle, +X is seen where −Z was, or the other way around: not where it was.
        let turned = Light { turn: PI / 2.0, ..Light::from(&sky) };
        let out = shade(&look([1.0; 3], 1.0, 0.0), &turned, v);
        assert!((out[0] - (1.0 - r.z)).abs() < 6e-3, "{v}: {out:?}");
    }
}

/// The split sum is an approximation; this says of which size its error is.
#[test]
fn the_split_sum_is_near_the_whole_integral() {
    let studio = Studio::Overcast.environment();
    let light = Light::from(&studio);
    let mut largest = [0.0f64; 2];
    for (roughness, metallic) in [(0.4, 1.0), (0.7, 1.0), (0.5, 0.0), (1.0, 0.0)] {
        for n_v in [0.95, 0.6] {
            let v = toward(n_v);
            let surface = look([0.8, 0.5, 0.2], metallic, roughness);
            let around = |c: usize| {
                hemisphere(160, |l| {
                    brdf(&surface, l.to_array(), v.to_array())[c] * l.y * studio.radiance(l).to_array()[c]
                })
            };
            let found = shade(&surface, &light, v);
            for (c, found) in found.into_iter().enumerate() {
                // The integral knows single reflections; what goes to and fro between the microfacets comes on top.
                let [a, b] = split_sum(n_v, roughness);
                let (f0, missing) = (surface.f0()[c], 1.0 - a - b);
                let average = f0 + (1.0 - f0) / 21.0;
                let multiple = (f0 * a + b) * average / (1.0 - missing * average) * missing;
                let more = multiple * (1.0 - surface.diffuse()[c]) * studio.irradiance([0.0, 1.0, 0.0])[c];
                let exact = around(c) + more;
                let error = (found / exact - 1.0).abs();
                largest[metallic as usize] = largest[metallic as usize].max(error);
            }
        }
    }
    let [dielectric, metal] = largest;
    eprintln!("dielectrics differ by {dielectric:.3}, metals by {metal:.3}");
    // What is left is the lobe's shape away from n = v.
    assert!(dielectric < 0.02 && metal < 0.06, "{dielectric} {metal}");
}

/// All eight variables of a look.
fn numbers(l: &Look) -> [f64; 8] {
    let [r, g, b] = l.base;
    let [x, y, z] = l.normal;
    [r, g, b, l.metallic, l.roughness, x, y, z]
}

fn from_numbers(n: [f64; 8]) -> Look {
    Look { base: [n[0], n[1], n[2]], metallic: n[3], roughness: n[4], normal: [n[5], n[6], n[7]] }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let mut draw = draws(5);
    let mut largest = 0.0f64;
    for studio in [Studio::Softboxes, Studio::Sunset, Studio::Night] {
        let environment = studio.environment();
        for _ in 0..40 {
            let lamps = vec![
                (above(&mut draw, 0.2), DVec3::new(1.0, 0.8, 0.6)),
                (above(&mut draw, -0.5), DVec3::new(0.2, 0.4, 0.9)),
            ];
            let light = Light { environment: &environment, turn: draw(0.0, TAU), strength: 1.3, lamps };
            let normal = above(&mut draw, 0.3) * draw(0.5, 2.0);
            let surface = Look {
                base: [draw(0.0, 1.0), draw(0.0, 1.0), draw(0.0, 1.0)],
                metallic: draw(0.0, 1.0),
                roughness: draw(0.08, 1.0),
                normal: normal.to_array(),
            };
            let v = above(&mut draw, 0.2);
            let weights = DVec3::new(0.3, -0.7, 0.5);
            let (value, gradient) = shade_with_gradient(&surface, &light, v, |_| weights);
            assert_eq!(value.to_array(), shade(&surface, &light, v));
            let loss = |n: [f64; 8]| weights.dot(DVec3::from_array(shade(&from_numbers(n), &light, v)));
            for (i, exact) in numbers(&gradient).into_iter().enumerate() {
                let h = 1e-7;
                let moved = |by: f64| {
                    let mut n = numbers(&surface);
                    n[i] += by;
                    loss(n)
                };
                let numeric = (moved(h) - moved(-h)) / (2.0 * h);
                let error = (numeric - exact).abs() / exact.abs().max(0.1);
                largest = largest.max(error);
                assert!(error < 1e-5, "{studio:?} variable {i}: {numeric} {exact} of {surface:?}");
            }
        }
    }
    eprintln!("largest relative difference {largest:.1e}");
}

#[test]
fn a_flat_normal_map_changes_nothing() {
    let mut draw = draws(6);
    let n = above(&mut draw, 0.2);
    let t = n.any_orthonormal_vector();
    let same = DVec3::from_array(from_tangent_space([0.0, 0.0, 1.0], n, t, -1.0));
    assert!((same - n).length() < 1e-12);
    let tilted = DVec3::from_array(from_tangent_space([0.0, 1.0, 0.0], n, t, -1.0));
    assert!((tilted + n.cross(t)).length() < 1e-12);
}

#[test]
fn tone_curves_are_monotone_and_bounded() {
    for tone in [Tone::Neutral, Tone::Aces, Tone::None] {
        let mut before = -1.0;
        for i in 0..4000 {
            let out = tone.map(Vec3::splat(i as f32 * 0.01)).x;
            assert!(out >= before && (0.0..=1.0).contains(&out), "{tone:?} {i}: {out}");
            before = out;
        }
        assert_eq!(tone.map(Vec3::NAN), tone.map(Vec3::ZERO));
        assert!(tone.map(Vec3::splat(-1.0)).min_element() >= 0.0);
    }
    // Neutral's closed form where nothing is compressed: x − 0.04, or 6.25 x² below 0.08.
    for (x, shown) in [(0.5, 0.46), (0.1, 0.06), (0.04, 0.01)] {
        assert!((Tone::Neutral.map(Vec3::splat(x)).x - shown).abs() < 1e-6);
    }
}

#[test]
fn studios_are_of_comparable_brightness_but_the_night() {
    for studio in Studio::ALL {
        let environment = studio.environment();
        let up = environment.irradiance([0.0, 1.0, 0.0]);
        let front = environment.irradiance([0.0, 0.0, 1.0]);
        eprintln!("{studio:?}: up {up:.2?} front {front:.2?}");
        let (low, high) = if studio == Studio::Night { (0.05, 0.8) } else { (0.4, 1.6) };
        assert!(up.iter().all(|c| (low * 0.5..high).contains(c)), "{studio:?} {up:?}");
    }
}
