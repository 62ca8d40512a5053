//! One-shot tuning.

use super::attention::{AttentionConfig, Keys};
use super::session::{Session, Texts, Watch};
use super::tune::{TuneConfig, Tuned, tune};
use super::*;
use crate::rng::{Rng, Stream};
use crate::sample::guidance::Guidance;

/// ε̂ of three random frames with `tuned`.
fn predict(prior: &Prior, tuned: Option<&Tuned>) -> Tensor {
    let noise = Rng::new(3, Stream::Probe, 0).normals(0, 3 * 4 * 64);
    let z = Tensor::from_vec(noise, (3, 4, 8, 8), &Device::Cpu).unwrap();
    let text = prior.encode_texts(&["a red car"]).unwrap().remove(0);
    let config = AttentionConfig { keys: vec![Keys::First], least_width: 0.0 };
    let texts = Texts { conditional: text.clone(), unconditional: text };
    let mut session = Session::new(prior, &config, texts, Guidance::scale(1.0), 0);
    session.tuned = tuned;
    session.predict(&z, 301.0, &windows(3, 3)[0], &[], Watch::default()).unwrap()
}

#[test]
fn fresh_matrices_change_nothing_and_each_of_them_counts() {
    let prior = tiny();
    let tuned = Tuned::fresh(&prior).unwrap();
    let base = predict(&prior, None);
    assert_eq!(values(&predict(&prior, Some(&tuned))), values(&base));
    for (name, var) in tuned.vars() {
        var.set(&Tensor::eye(var.dim(0).unwrap(), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
        assert!(most(&predict(&prior, Some(&tuned)), &base) > 1e-4, "{name}");
        var.set(&var.zeros_like().unwrap()).unwrap();
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    // The loss of one step as a function of one matrix: AdamW's first step is lr·sign(gradient).
    let prior = tiny();
    let source = clip(3, (16, 16), 2.0);
    let config =
        TuneConfig { prompt: "a red car".into(), frames: 3, steps: 1, rate: 1e-4, ..Default::default() };
    let loss = |tuned: &Tuned| {
        let mut found = 0.0;
        let frozen: Vec<_> = tuned.vars().values().map(|v| v.as_tensor().copy().unwrap()).collect();
        tune(&prior, &source, tuned, &config, &mut |_, _, l| {
            found = l;
            Ok(())
        })
        .unwrap();
        let moved: Vec<_> = tuned.vars().values().map(|v| v.as_tensor().copy().unwrap()).collect();
        tuned.vars().values().zip(frozen).for_each(|(v, old)| v.set(&old).unwrap());
        (found, moved)
    };
    let tuned = Tuned::fresh(&prior).unwrap();
    let (_, moved) = loss(&tuned);
    for ((name, var), moved) in tuned.vars().iter().zip(moved) {
        // Along the step's direction, −sign(g), the loss falls, by Σ|g| a unit: a large first difference
        // against the curvature.
        let direction = moved.sign().unwrap();
        assert!(values(&direction).iter().any(|v| *v != 0.0), "{name} gets no gradient");
        var.set(&(&direction * 1e-3).unwrap()).unwrap();
        let down = loss(&tuned).0;
        var.set(&(&direction * -1e-3).unwrap()).unwrap();
        let up = loss(&tuned).0;
        var.set(&var.zeros_like().unwrap()).unwrap();
        assert!(down < up, "{name}: {down} {up}");
    }
}

#[test]
fn tuning_learns_the_clip_and_survives_a_file() {
    let prior = tiny();
    let source = clip(3, (16, 16), 2.0);
    let config =
        TuneConfig { prompt: "a red car".into(), frames: 3, steps: 60, rate: 3e-2, ..Default::default() };
    let run = || {
        let tuned = Tuned::fresh(&prior).unwrap();
        let mut losses = Vec::new();
        tune(&prior, &source, &tuned, &config, &mut |_, _, loss| {
            losses.push(loss);
            Ok(())
        })
        .unwrap();
        (tuned, losses)
    };
    let (tuned, losses) = run();
    let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
    let (early, late) = (mean(&losses[..20]), mean(&losses[40..]));
    assert!(late < 0.9 * early, "{early} {late}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tuned.safetensors");
    tuned.save(&path).unwrap();
    let read = Tuned::load(&path, &prior).unwrap();
    assert_eq!(values(&predict(&prior, Some(&read))), values(&predict(&prior, Some(&tuned))));
    assert_eq!(tuned.digest().unwrap(), run().0.digest().unwrap(), "the same seed gives the same bytes");
    let mini = Prior::load("mini", &Device::Cpu).unwrap();
    assert!(Tuned::load(&path, &mini).err().unwrap().to_string().contains("does not fit"));
}
