//! Each relative of SDS against its closed form on Gaussians, or against an identity with SDS.

use std::cell::Cell;

use candle_core::{DType, Device, Tensor};

use super::tests::{fixed, moments, schedule, values};
use super::*;
use crate::prior::schedule::Schedule;
use crate::rng::{Rng, Stream};
use crate::sample::analytic::Mixture;
use crate::sample::guidance::{Branch, ConditionedPredictor, Guidance, Guided};
use crate::sample::{NoisePredictor, normal_like};
use crate::{Error, Result};

const AT: At = At { step: 3, progress: 0.0, seed: 17 };

fn loss(t: f64) -> Sds {
    Sds::new(schedule(), fixed(t, Weighting::Sigma2)).unwrap()
}

fn latents(level: f64) -> Tensor {
    let noise = Tensor::zeros((8, 4, 32, 32), DType::F64, &Device::Cpu).unwrap();
    let noise = normal_like(&noise, &Rng::new(1, Stream::Probe, 5)).unwrap();
    (noise.affine(0.3, level)).unwrap()
}

fn furthest(a: &Tensor, b: &Tensor) -> f64 {
    values(&(a - b).unwrap()).iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// A different Gaussian for each branch; counts what it is asked.
struct Branches<'a> {
    by_branch: [Mixture<'a>; 3],
    evaluated: Cell<usize>,
}

impl<'a> Branches<'a> {
    fn new(schedule: &'a Schedule) -> Self {
        let by_branch = [(0.0, 1.0), (0.8, 0.5), (-0.6, 0.9)];
        let by_branch = by_branch.map(|(m, s)| Mixture::gaussian(schedule, m, s));
        Self { by_branch, evaluated: Cell::new(0) }
    }
}

impl ConditionedPredictor for Branches<'_> {
    fn predict(&self, x_t: &Tensor, t: &[f32], branches: &[Branch]) -> Result<Tensor> {
        self.evaluated.set(self.evaluated.get() + t.len());
        let each = t.len() / branches.len();
        let one = |(k, branch): (usize, &Branch)| {
            let i = match branch {
                Branch::Unconditional => 0,
                Branch::Conditional => 1,
                Branch::Negative(_) => 2,
            };
            self.by_branch[i].predict(&x_t.narrow(0, k * each, each)?, &t[..each])
        };
        let all: Vec<Tensor> = branches.iter().enumerate().map(one).collect::<Result<_>>()?;
        Ok(Tensor::cat(&all, 0)?)
    }
}

/// The mean of a plain noise prediction of N(μ, s²) at clean z: σ α (z − μ)/(α² s² + σ²).
fn mean_noise(schedule: &Schedule, t: f32, z: f64, mean: f64, s: f64) -> f64 {
    let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
    sigma * alpha * (z - mean) / (alpha * alpha * s * s + sigma * sigma)
}

#[test]
fn jacobian_chaining_with_less_variance_is_sds_of_weight_one_and_without_has_its_mean() {
    let schedule = schedule();
    let model = Mixture::gaussian(&schedule, 0.4, 0.6);
    for t in [0.05, 0.4, 0.9] {
        let one = Sds::new(schedule.clone(), fixed(t, Weighting::One)).unwrap();
        let z = latents(-0.9);
        let sds = one.gradient(&z, &model, AT.step, AT.progress, AT.seed).unwrap();
        let reduced = one.jacobian(&z, &model, true, AT).unwrap();
        assert!(furthest(&reduced.gradient, &sds.gradient) < 1e-10, "{t}");
        // σ_s is rounded once more on its way; x̂₀ is that of SDS.
        assert!(furthest(&reduced.x0, &sds.x0) < 1e-9, "{t}");
        let z = Tensor::full(-0.9, (8, 4, 32, 32), &Device::Cpu).unwrap();
        let (plain, small) = (one.jacobian(&z, &model, false, AT), one.jacobian(&z, &model, true, AT));
        let (plain, spread) = moments(&values(&plain.unwrap().gradient));
        let (_, less) = moments(&values(&small.unwrap().gradient));
        let want = mean_noise(&schedule, 1000.0 * t as f32, -0.9, 0.4, 0.6) / 8.0;
        let error = spread / 32768f64.sqrt();
        assert!((plain - want).abs() < 5.0 * error, "{t}: {plain} {want} ± {error}");
        assert!(want.abs() > 10.0 * error, "{t}: the test could not tell");
        // The noise that is left is (α²s²/v − 1)ε against ε: less where the prior is wide beside it.
        let share = schedule.alpha(1000.0 * t as f32).powi(2) * 0.36;
        let v = share + schedule.sigma(1000.0 * t as f32).powi(2);
        let ratio = (share / v) / (1.0 - share / v);
        assert!((less / spread / ratio - 1.0).abs() < 0.05, "{t}: {less} {spread} {ratio}");
    }
}

#[test]
fn variational_gradient_is_the_difference_of_two_closed_forms_and_zero_when_the_particles_are_right() {
    let schedule = schedule();
    let pretrained = Mixture::gaussian(&schedule, 0.4, 0.6);
    for t in [0.05, 0.4, 0.9] {
        let (sds, z) = (loss(t), Tensor::full(-0.9, (8, 4, 32, 32), &Device::Cpu).unwrap());
        let own = Mixture::gaussian(&schedule, -0.7, 0.3);
        let got = sds.variational(&z, &pretrained, &own, AT).unwrap();
        let (mean, spread) = moments(&values(&got.gradient));
        let at = got.t[0];
        let w = schedule.sigma(at).powi(2);
        let of = |m, s| mean_noise(&schedule, at, -0.9, m, s);
        let want = w * (of(0.4, 0.6) - of(-0.7, 0.3)) / 8.0;
        let error = spread / 32768f64.sqrt();
        assert!((mean - want).abs() < 5.0 * error && want.abs() > 10.0 * error, "{t}: {mean} {want} {error}");
        let same = sds.variational(&latents(2.0), &pretrained, &pretrained, AT).unwrap();
        assert!(values(&same.gradient).iter().all(|g| *g == 0.0));
    }
}

#[test]
fn classifier_loss_is_what_guidance_adds_to_sds() {
    let schedule = schedule();
    let model = Branches::new(&schedule);
    let (sds, z) = (loss(0.5), latents(0.2));
    let guided = |scale: f64| {
        let guidance = Guidance::scale(scale);
        let guided = Guided { model: &model, guidance: &guidance };
        sds.gradient(&z, &guided, AT.step, AT.progress, AT.seed).unwrap().gradient
    };
    let want = (guided(8.5) - guided(1.0)).unwrap();
    model.evaluated.set(0);
    let got = sds.classifier(&z, &model, 7.5, AT).unwrap();
    assert_eq!(model.evaluated.get(), 16, "two branches of eight samples");
    assert!(furthest(&got.gradient, &want) < 1e-12 && got.rms[0] > 0.1);
}

#[test]
fn noise_free_loss_is_guidance_without_the_noise_and_above_a_fifth_without_the_negative() {
    let schedule = schedule();
    let model = Branches::new(&schedule);
    let z = latents(0.2);
    let guidance = Guidance::scale(7.5);
    let guided = Guided { model: &model, guidance: &guidance };
    for (t, above) in [(0.1, false), (0.199, false), (0.2, true), (0.7, true)] {
        let sds = loss(t);
        let noised = sds.noised(&z, AT).unwrap();
        let mut want = guided.predict(&noised.x_t, &noised.t).unwrap();
        if above {
            want = (want - model.by_branch[2].predict(&noised.x_t, &noised.t).unwrap()).unwrap();
        }
        let w = schedule.sigma(noised.t[0]).powi(2) / 8.0;
        let got = sds.noise_free(&z, &model, 7.5, AT).unwrap();
        assert!(furthest(&got.gradient, &(want * w).unwrap()) < 1e-12, "{t}");
    }
}

#[test]
fn interval_matching_follows_the_probability_flow_with_order_one_and_draws_nothing() {
    let schedule = schedule();
    let (mean, s) = (0.4, 0.6);
    let model = Mixture::gaussian(&schedule, mean, s);
    let z = latents(-0.5);
    let sds = loss(0.6);
    let at = |t: f32| {
        let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
        sigma / (alpha * alpha * s * s + sigma * sigma).sqrt()
    };
    // On the flow of N(μ, s²) every level's ε is (z − μ)/s · σ/√(α²s² + σ²).
    let off = |steps: usize| {
        let intervals = Intervals { steps, interval: 0.05 };
        let got = sds.interval(&z, &model, &model, intervals, AT).unwrap();
        // The last interval is one step however many there are before: take its own error out.
        let w = schedule.sigma(600.0).powi(2) / 8.0;
        let flow = z.affine(w / s, -mean * w / s).unwrap();
        let start = |f: f64| (&flow * f).unwrap();
        let (a, b) = (at(600.0), at(550.0));
        let x_s = |z: f64| schedule.alpha(550.0) * mean + (z - mean) / s * schedule.sigma(550.0) / b;
        let eps = |z: f64| (z - mean) / s * b;
        let x_t = |z: f64| {
            let clean = (x_s(z) - schedule.sigma(550.0) * eps(z)) / schedule.alpha(550.0);
            schedule.alpha(600.0) * clean + schedule.sigma(600.0) * eps(z)
        };
        let v = (schedule.alpha(600.0) * s).powi(2) + schedule.sigma(600.0).powi(2);
        let one = |z: f64| schedule.sigma(600.0) * (x_t(z) - schedule.alpha(600.0) * mean) / v - eps(z);
        let slope = one(mean + s);
        assert!((slope - (a - b)).abs() < 0.15 * (a - b).abs(), "one step of the flow: {slope} {}", a - b);
        (furthest(&got.gradient, &start(slope)), values(&got.gradient)[0].abs())
    };
    let ((coarse, size), (fine, _), (finest, _)) = (off(40), off(80), off(160));
    assert!(coarse < 0.1 * size, "{coarse} of {size}");
    assert!(
        (coarse / fine - 2.0).abs() < 0.4 && (fine / finest - 2.0).abs() < 0.3,
        "{coarse} {fine} {finest}"
    );
    // Seeds and steps decide t only, and t is fixed here.
    let other = At { step: 9, seed: 4, ..AT };
    let gradient = |at| sds.interval(&z, &model, &model, Intervals::default(), at).unwrap().gradient;
    assert_eq!(values(&gradient(AT)), values(&gradient(other)));
    let none = Intervals { steps: 0, ..Intervals::default() };
    assert!(sds.interval(&z, &model, &model, none, AT).unwrap_err().is_usage());
}

#[test]
fn hifa_on_pictures_is_sds_seen_through_an_orthogonal_decoder() {
    let schedule = schedule();
    let model = Mixture::gaussian(&schedule, 0.4, 0.6);
    let sds = Sds::new(schedule.clone(), fixed(0.5, Weighting::One)).unwrap();
    let z = latents(0.1);
    let got = sds.gradient(&z, &model, AT.step, AT.progress, AT.seed).unwrap();
    // Reversing the last axis with a sign is orthogonal: x = Q z, and ∂L/∂x = Q ∂L/∂z.
    let order: Vec<u32> = (0..32).rev().collect();
    let order = Tensor::from_vec(order, 32, &Device::Cpu).unwrap();
    let decode = |z: &Tensor| z.index_select(&order, 3).unwrap().neg().unwrap();
    let by_picture =
        |limit| image::gradient(&schedule, &decode(&z), &decode(&got.x0), &got.t, |_, _| 1.0, limit).unwrap();
    let want = decode(&got.gradient);
    assert!(furthest(&by_picture(f64::INFINITY), &want) < 1e-12);
    let (alpha, sigma) = (schedule.alpha(got.t[0]), schedule.sigma(got.t[0]));
    let half = by_picture(0.5 * alpha / sigma);
    assert!(furthest(&half, &(want * 0.5).unwrap()) < 1e-12);
}

/// What each loss costs: predictions of one sample under one conditioning.
#[test]
fn no_loss_asks_more_than_it_must() {
    let schedule = schedule();
    let (model, z) = (Branches::new(&schedule), latents(0.0));
    let sds = loss(0.4);
    let cost = |work: &dyn Fn()| {
        model.evaluated.set(0);
        work();
        model.evaluated.get() / 8
    };
    let guidance = [0.0, 1.0, 7.5].map(Guidance::scale);
    for (guidance, want) in guidance.iter().zip([1, 1, 2]) {
        let guided = Guided { model: &model, guidance };
        let at = cost(&|| drop(sds.gradient(&z, &guided, 0, 0.0, 1).unwrap()));
        assert_eq!(at, want, "SDS at scale {}", guidance.scale);
        assert_eq!(cost(&|| drop(sds.jacobian(&z, &guided, true, AT).unwrap())), want);
    }
    let [plain, own, strong] = &guidance;
    let of = |guidance| Guided { model: &model, guidance };
    // The particles' own estimate has a scale of one, and so no second branch.
    let vsd = || drop(sds.variational(&z, &of(strong), &of(own), AT).unwrap());
    assert_eq!(cost(&vsd), 3);
    assert_eq!(cost(&|| drop(sds.noise_free(&z, &model, 7.5, AT).unwrap())), 3);
    let intervals = Intervals { steps: 3, interval: 0.1 };
    assert_eq!(cost(&|| drop(sds.interval(&z, &of(strong), &of(plain), intervals, AT).unwrap())), 6);
}

#[test]
fn broken_answers_are_told_from_other_errors() {
    struct Broken;
    impl NoisePredictor for Broken {
        fn predict(&self, x_t: &Tensor, _: &[f32]) -> Result<Tensor> {
            Ok((x_t * f64::NAN)?)
        }
    }
    let (sds, z) = (loss(0.4), latents(0.0));
    let schedule = schedule();
    let good = Mixture::gaussian(&schedule, 0.0, 1.0);
    let all = [
        sds.variational(&z, &good, &Broken, AT),
        sds.variational(&z, &Broken, &good, AT),
        sds.jacobian(&z, &Broken, true, AT),
        sds.interval(&z, &good, &Broken, Intervals::default(), AT),
    ];
    for got in all {
        assert!(matches!(got, Err(Error::NotFinite(why)) if why.contains("step 3")));
    }
}
