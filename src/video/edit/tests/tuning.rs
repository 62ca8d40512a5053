//! One-shot tuning.

use super::attention::{AttentionConfig, Keys};
use super::session::{Session, Texts, Watch};
use super::tune::{Clip, TuneConfig, Tuned, tune};
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
    let prior = tiny();
    let source = clip(3, (16, 16), 2.0);
    let config = TuneConfig { prompt: "a red car".into(), ..Default::default() };
    let clip = Clip::new(&prior, &source, &[0, 1, 2], &config).unwrap();
    let tuned = Tuned::fresh(&prior).unwrap();
    let direction = |var: &candle_core::Var, key: u32| {
        let values = Rng::new(7, Stream::Probe, key).normals(0, var.elem_count());
        Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap()
    };
    // Away from zero, where a matrix's influence does not depend on the others.
    for (i, var) in tuned.vars().values().enumerate() {
        var.set(&(direction(var, 100 + i as u32) * 0.1).unwrap()).unwrap();
    }
    let loss = || f64::from(clip.loss(&prior, &tuned, 5, 0).unwrap().loss.to_scalar::<f32>().unwrap());
    let grads = clip.loss(&prior, &tuned, 5, 0).unwrap().gradients;
    for (i, (name, var)) in tuned.vars().iter().enumerate() {
        let grad = grads.iter().find_map(|g| g.get(var.as_tensor())).unwrap_or_else(|| panic!("{name}"));
        let (start, along) = (var.as_tensor().copy().unwrap(), direction(var, i as u32));
        let norm = grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        // Along the gradient, mixed with a random direction: a large derivative, and not only its own.
        let along = ((grad / f64::from(norm)).unwrap() + (along * 0.05).unwrap()).unwrap();
        let moved = |h: f64| {
            var.set(&(&start + (&along * h).unwrap()).unwrap()).unwrap();
            let value = loss();
            var.set(&start).unwrap();
            value
        };
        // f32: rounding of the loss is about 1e-7 of it, the third derivative's share h².
        let h = 1e-2;
        let expected = (moved(h) - moved(-h)) / (2.0 * h);
        let got = f64::from((grad * &along).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
        assert!((got - expected).abs() < 0.02 * got.abs() + 2e-5, "{name}: {got:e}, {expected:e}");
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
        tune(&prior, &source, &tuned, &config, &mut |_, _, _| Ok(())).unwrap();
        tuned
    };
    let tuned = run();
    // The same timesteps and noises before and after, so that only the matrices differ.
    let clip = Clip::new(&prior, &source, &[0, 1, 2], &config).unwrap();
    let loss = |tuned: &Tuned| -> f32 {
        let one = |i| clip.loss(&prior, tuned, 0, i).unwrap().loss.to_scalar::<f32>().unwrap();
        (0..20).map(one).sum::<f32>() / 20.0
    };
    let (before, after) = (loss(&Tuned::fresh(&prior).unwrap()), loss(&tuned));
    assert!(after < before, "{before} {after}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tuned.safetensors");
    tuned.save(&path).unwrap();
    let read = Tuned::load(&path, &prior).unwrap();
    assert_eq!(values(&predict(&prior, Some(&read))), values(&predict(&prior, Some(&tuned))));
    assert_eq!(tuned.digest().unwrap(), run().digest().unwrap(), "the same seed gives the same bytes");
    let mini = Prior::load("mini", &Device::Cpu).unwrap();
    assert!(Tuned::load(&path, &mini).err().unwrap().to_string().contains("does not fit"));
}
