//! Inversion and back.

use super::attention::Keys;
use super::invert::{ddim, invert};
use super::*;
use crate::sample::Trajectory;

/// Root mean square error of latents after inversion and sampling with the source's prompt, no guidance.
fn round_trip(
    prior: &Prior,
    source: &Frames,
    mut config: EditConfig,
    controls: Vec<ControlTrack<'_>>,
) -> f64 {
    config.source_prompt = config.target_prompt.clone();
    config.guidance_scale = 1.0;
    config.fusion.attribute.clear();
    let (steps, count) = (
        (config.steps as f64 * config.strength).round() as usize,
        windows(source.len(), config.window).len(),
    );
    let store = MemoryStore::default();
    let mut editor = Editor::new(prior, config, &store);
    editor.controls = controls;
    edit(editor, source).unwrap();
    let (mut sum, mut n) = (0f64, 0f64);
    for w in 0..count {
        let get = |stage: &str| values(&store.get(&format!("{stage}/{steps:04}/{w:05}")).unwrap());
        for (a, b) in get("edited").iter().zip(get("inverted")) {
            sum += f64::from(a - b).powi(2);
            n += 1.0;
        }
    }
    (sum / n).sqrt()
}

#[test]
fn a_step_back_is_undone_by_the_step() {
    // Linear noise predictors, ε = c z: contraction, and (c = 4) none, where plain iteration would diverge.
    let prior = tiny();
    let path = Trajectory::new(&prior.schedule, 10).unwrap();
    let z = Tensor::new(&[[0.3f64, -1.2, 2.0]], &Device::Cpu).unwrap();
    for c in [0.4, -0.8, -4.0] {
        for pair in path.levels.windows(2) {
            let (noisy, clean) = (pair[0], pair[1]);
            let config = InversionConfig { refinements: 200, tolerance: 1e-12 };
            let mut epsilon = |z: &Tensor| Ok(z.affine(c, 0.0)?);
            let (up, residual) = invert(&z, (clean, noisy), &config, &mut epsilon).unwrap();
            let down = ddim(&up, &up.affine(c, 0.0).unwrap(), noisy, clean).unwrap();
            let off = (down - &z).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(off < 1e-9, "c {c}, t {}: {off:e} (residual {residual:e})", noisy.t);
        }
    }
}

#[test]
fn refinement_makes_the_inversion_exact() {
    let prior = tiny();
    let source = clip(5, (16, 16), 2.0);
    let error = |refinements: usize| {
        let mut config = settings();
        (config.steps, config.strength) = (20, 0.5);
        config.inversion = InversionConfig { refinements, tolerance: 1e-6 };
        round_trip(&prior, &source, config, vec![canny(&prior)])
    };
    let (plain, one, many) = (error(0), error(1), error(40));
    println!("tiny: {plain:.2e} {one:.2e} {many:.2e}");
    assert!(one < plain && many < 1e-4 && many < plain * 0.01, "{plain:e} {one:e} {many:e}");
}

#[test]
fn the_embedded_prior_comes_back_from_its_inversion() {
    let prior = Prior::load("mini", &Device::Cpu).unwrap();
    let source = clip(2, (64, 64), 8.0);
    let error = |refinements: usize| {
        let mut config = settings();
        config.target_prompt = "a red car".into();
        (config.steps, config.strength) = (10, 1.0);
        config.attention.keys = vec![Keys::First, Keys::PreviousLast, Keys::CurrentLast];
        config.attention.least_width = 2.0;
        config.inversion = InversionConfig { refinements, tolerance: 1e-4 };
        round_trip(&prior, &source, config, Vec::new())
    };
    let (plain, five) = (error(0), error(5));
    println!("mini: {plain:.2e} {five:.2e}");
    assert!(five < plain * 0.5, "{plain:e} {five:e}");
}
