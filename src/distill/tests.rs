use candle_core::{DType, Device, Tensor};

use super::*;
use crate::prior::schedule::{Config, Schedule};
use crate::rng::{Rng, Stream};
use crate::sample::analytic::Mixture;
use crate::sample::{NoisePredictor, Sampler, Trajectory, normal_like};
use crate::{Error, Result};

pub(super) fn schedule() -> Schedule {
    Schedule::new(Config::default()).unwrap()
}

pub(super) fn fixed(t: f64, weighting: Weighting) -> SdsConfig {
    let timesteps = TimestepRange { min: [t; 2], max: [t; 2], annealing: Annealing::None, stratified: false };
    SdsConfig { timesteps, weighting, ..SdsConfig::default() }
}

pub(super) fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

pub(super) fn moments(x: &[f64]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    (mean, (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt())
}

#[test]
fn weights_by_hand() {
    use Weighting::{AlphaSigma, AlphaSigma2, One, Sigma2};
    for (weighting, want) in [(Sigma2, 0.36), (One, 1.0), (AlphaSigma, 0.48), (AlphaSigma2, 0.288)] {
        assert!((weighting.weight(0.8, 0.6) - want).abs() < 1e-12, "{weighting:?}");
    }
}

#[test]
fn mean_gradient_on_a_gaussian_prior_is_the_closed_form() {
    let schedule = schedule();
    let (mean, s, z0, batch) = (0.4, 0.6, -0.9, 8);
    let model = Mixture::gaussian(&schedule, mean, s);
    let z = Tensor::full(z0, (batch, 4, 32, 32), &Device::Cpu).unwrap();
    let weightings = [Weighting::Sigma2, Weighting::One, Weighting::AlphaSigma, Weighting::AlphaSigma2];
    for (i, t) in [0.05, 0.3, 0.6, 0.95].into_iter().enumerate() {
        for weighting in weightings {
            let sds = Sds::new(schedule.clone(), fixed(t, weighting)).unwrap();
            let out = sds.gradient(&z, &model, i as u32, 0.0, 17).unwrap();
            assert!(out.t.iter().all(|got| f64::from(*got) == 1000.0 * t));
            let (got, spread) = moments(&values(&out.gradient));
            let (alpha, sigma) = (schedule.alpha(out.t[0]), schedule.sigma(out.t[0]));
            let w = weighting.weight(alpha, sigma);
            // w σ α (z − μ)/(α² s² + σ²), and the mean over the batch.
            let want =
                w * sigma * alpha * (z0 - mean) / (alpha * alpha * s * s + sigma * sigma) / batch as f64;
            let error = spread / ((batch * 4096) as f64).sqrt();
            assert!((got - want).abs() < 5.0 * error, "{t} {weighting:?}: {got} {want} ± {error}");
            assert!(want.abs() > 20.0 * error, "{t} {weighting:?}: the test could not tell");
        }
    }
}

/// Descends from `z` by plain SGD, the rate falling as 1/k at the end so that noise averages out.
fn descend(config: SdsConfig, model: &Mixture, mut z: Tensor, steps: u32) -> Tensor {
    let sds = Sds::new(model.schedule.clone(), config).unwrap();
    let batch = z.dim(0).unwrap() as f64;
    for step in 0..steps {
        let progress = f64::from(step) / f64::from(steps);
        let out = sds.gradient(&z, model, step, progress, 2).unwrap();
        let rate = batch * 4.0 / (10.0 + f64::from(step));
        z = (z - (out.gradient * rate).unwrap()).unwrap();
    }
    z
}

fn start(n: usize) -> Tensor {
    let like = Tensor::zeros((4, n / 16, 2, 2), DType::F64, &Device::Cpu).unwrap();
    (normal_like(&like, &Rng::new(6, Stream::Probe, 0)).unwrap() * 2.0).unwrap()
}

#[test]
fn sds_collapses_to_the_mean_where_sampling_keeps_the_spread() {
    let schedule = schedule();
    let model = Mixture::gaussian(&schedule, 0.8, 0.5);
    let config = SdsConfig { weighting: Weighting::One, ..SdsConfig::default() };
    let at = |steps| moments(&values(&descend(config.clone(), &model, start(512), steps)));
    let ((m, short), (_, long)) = (at(1000), at(4000));
    assert!((m - 0.8).abs() < 0.02, "{m}");
    // The rest is the noise of SGD: it falls as 1/√steps, to nothing in the limit.
    assert!(short < 0.12 && long < 0.65 * short, "{short} {long}");
    let path = Trajectory::new(&schedule, 50).unwrap();
    let x = (start(512) / 2.0).unwrap();
    let sampled = Sampler::Ddim { eta: 0.0 }.sample(&model, &x, &path, 0, &mut |_| Ok(())).unwrap();
    let (m, s) = moments(&values(&sampled));
    assert!((m - 0.8).abs() < 0.1 && (s - 0.5).abs() < 0.06, "{m} {s}");
}

#[test]
fn sds_seeks_a_mode_where_sampling_covers_both() {
    let schedule = schedule();
    let model = Mixture { schedule: &schedule, parts: vec![(0.7, -1.5, 0.4), (0.3, 1.5, 0.4)] };
    let halves = |x: &[f64]| -> [(f64, f64, f64); 2] {
        let of = |keep: &dyn Fn(f64) -> bool| {
            let part: Vec<f64> = x.iter().copied().filter(|v| keep(*v)).collect();
            let (m, s) = moments(&part);
            (part.len() as f64 / x.len() as f64, m, s)
        };
        [of(&|v| v < 0.0), of(&|v| v >= 0.0)]
    };
    let path = Trajectory::new(&schedule, 100).unwrap();
    let x = (start(2048) / 2.0).unwrap();
    let sampled =
        Sampler::Ddpm { large_variance: false }.sample(&model, &x, &path, 1, &mut |_| Ok(())).unwrap();
    let [left, right] = halves(&values(&sampled));
    // Five standard errors of 2,048 draws are .05 for the share, .05 for the means.
    assert!((left.0 - 0.7).abs() < 0.05 && (left.1 + 1.5).abs() < 0.06 && (left.2 - 0.4).abs() < 0.04);
    assert!((right.1 - 1.5).abs() < 0.09 && (right.2 - 0.4).abs() < 0.06, "{right:?}");
    let config = SdsConfig { weighting: Weighting::One, ..SdsConfig::default() };
    let [left, right] = halves(&values(&descend(config, &model, start(512), 3000)));
    // Annealed from much noise, nearly every particle goes to the heavier mode and stays there
    // without the mode's own spread.
    assert!(left.0 > 0.95 && left.2 < 0.2, "{left:?} {right:?}");
    assert!((left.1 + 1.5).abs() < 0.3, "{left:?}");
}

#[test]
fn estimate_clipping_threshold_and_keys() {
    let schedule = schedule();
    let model = Mixture::gaussian(&schedule, 5.0, 0.2);
    let z = start(256);
    let plain = Sds::new(schedule.clone(), SdsConfig::default()).unwrap();
    let out = plain.gradient(&z, &model, 3, 0.5, 1).unwrap();
    assert_eq!(values(&out.gradient), values(&plain.gradient(&z, &model, 3, 0.5, 1).unwrap().gradient));
    for (step, seed) in [(4, 1), (3, 2)] {
        assert_ne!(out.t, plain.gradient(&z, &model, step, 0.5, seed).unwrap().t);
    }
    // x̂_0 is the posterior mean: near μ wherever the prior is narrower than the noise.
    let high = Sds::new(schedule.clone(), fixed(0.9, Weighting::Sigma2)).unwrap();
    let estimate = high.gradient(&z, &model, 0, 0.0, 1).unwrap().x0;
    assert!((moments(&values(&estimate)).0 - 5.0).abs() < 0.2);
    let limited = SdsConfig { max_gradient_rms: Some(0.5), ..SdsConfig::default() };
    let clipped = Sds::new(schedule.clone(), limited).unwrap().gradient(&z, &model, 3, 0.5, 1).unwrap();
    for (i, (full, got)) in out.rms.iter().zip(&clipped.rms).enumerate() {
        assert!((got - full.min(0.5)).abs() < 1e-9);
        let row = values(&clipped.gradient.narrow(0, i, 1).unwrap());
        let rms = (row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64).sqrt();
        assert!((rms * 4.0 - got).abs() < 1e-9);
    }
    let threshold = Some(Threshold { quantile: 0.9, range: 1.0 });
    let config = SdsConfig { threshold, ..SdsConfig::default() };
    let bounded = Sds::new(schedule.clone(), config).unwrap().gradient(&z, &model, 3, 0.5, 1).unwrap();
    assert!(values(&bounded.x0).iter().all(|v| v.abs() <= 1.0));
    let wide = Some(Threshold { quantile: 1.0, range: 1e6 });
    let config = SdsConfig { threshold: wide, ..SdsConfig::default() };
    let same = Sds::new(schedule.clone(), config).unwrap().gradient(&z, &model, 3, 0.5, 1).unwrap();
    let off = values(&(same.gradient - &out.gradient).unwrap()).iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(off < 1e-9, "{off}");
}

#[test]
fn a_broken_predictor_is_reported() {
    struct Broken;
    impl NoisePredictor for Broken {
        fn predict(&self, x_t: &Tensor, _: &[f32]) -> Result<Tensor> {
            Ok((x_t * f64::NAN)?)
        }
    }
    let sds = Sds::new(schedule(), SdsConfig::default()).unwrap();
    let error = sds.gradient(&start(64), &Broken, 7, 0.0, 0).unwrap_err();
    assert!(matches!(&error, Error::NotFinite(why) if why.contains("step 7")), "{error}");
    let config = SdsConfig { max_gradient_rms: Some(0.0), ..SdsConfig::default() };
    assert!(Sds::new(schedule(), config).unwrap_err().is_usage());
}

#[test]
fn settings_survive_toml() {
    let text =
        "weighting = \"alpha_sigma\"\nmax_gradient_rms = 2.0\n[timesteps]\nannealing = { step = 0.2 }\n";
    let config: SdsConfig = toml::from_str(text).unwrap();
    assert_eq!(config.timesteps.annealing, Annealing::Step(0.2));
    assert_eq!(config.timesteps.max, [0.98, 0.5]);
    let again: SdsConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    assert!(toml::from_str::<SdsConfig>("guidance = 3.0").is_err());
}

#[test]
fn score_debiasing_bounds_each_number_more_loosely_as_the_run_goes_on() {
    let (z, prior) = (start(64), schedule());
    let model = Mixture::gaussian(&prior, 0.4, 0.6);
    let gradient = |clip, progress| {
        let config = SdsConfig { clip, ..fixed(0.5, Weighting::One) };
        let got = Sds::new(schedule(), config).unwrap().gradient(&z, &model, 3, progress, 1).unwrap();
        let batch = z.dim(0).unwrap() as f64;
        values(&(got.gradient * batch).unwrap())
    };
    let full = gradient(None, 0.25);
    let mut bounds = full.iter().map(|v| v.abs()).collect::<Vec<_>>();
    bounds.sort_by(f64::total_cmp);
    let (low, high) = (bounds[bounds.len() / 4], bounds[bounds.len() * 3 / 4]);
    for progress in [0.0, 0.25, 1.0] {
        let bound = low + (high - low) * progress;
        let got = gradient(Some([low, high]), progress);
        let beyond = full.iter().filter(|v| v.abs() > bound).count();
        assert!(beyond > 0 && beyond < full.len());
        for (full, got) in full.iter().zip(got) {
            assert!((full.clamp(-bound, bound) - got).abs() < 1e-9 * bound, "{full} {got} {bound}");
        }
    }
    struct Broken;
    impl NoisePredictor for Broken {
        fn predict(&self, x_t: &Tensor, _: &[f32]) -> Result<Tensor> {
            Ok((x_t / 0.0)?)
        }
    }
    let config = SdsConfig { clip: Some([1.0, 2.0]), ..SdsConfig::default() };
    let sds = Sds::new(schedule(), config).unwrap();
    assert!(sds.gradient(&z, &Broken, 0, 0.0, 0).unwrap_err().is_not_finite(), "not hidden by the bound");
    let config = SdsConfig { clip: Some([0.0, 1.0]), ..SdsConfig::default() };
    assert!(Sds::new(schedule(), config).unwrap_err().is_usage());
}
