use candle_core::{DType, Device, Tensor};

use super::analytic::Mixture;
use super::sampler::{Algorithm, Midway, ddim_inversion};
use super::score::{Calibrated, score_norms};
use super::*;
use crate::prior::schedule::{Config, Schedule, Spacing};
use crate::rng::{Rng, Stream};

const DPM_2M: Sampler = Sampler::Dpm(Dpm::PLUS_PLUS_2M);

const ALL: [Sampler; 5] = [
    Sampler::Ddpm { large_variance: false },
    Sampler::Ddpm { large_variance: true },
    Sampler::Ddim { eta: 0.0 },
    Sampler::Ddim { eta: 1.0 },
    DPM_2M,
];

fn dpm(algorithm: Algorithm, order: usize, multistep: bool, midway: Midway) -> Sampler {
    Sampler::Dpm(Dpm { algorithm, order, multistep, midway })
}

fn schedule() -> Schedule {
    Schedule::new(Config::default()).unwrap()
}

fn noise(n: usize) -> Tensor {
    let like = Tensor::zeros((4, n / 4), DType::F64, &Device::Cpu).unwrap();
    normal_like(&like, &Rng::new(3, Stream::Sampler, 0)).unwrap()
}

fn run(sampler: &Sampler, model: &dyn NoisePredictor, x: &Tensor, trajectory: &Trajectory) -> Vec<f64> {
    let x = sampler.sample(model, x, trajectory, 9, &mut |_| Ok(())).unwrap();
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn moments(x: &[f64]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    (mean, x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64)
}

/// On Gaussian data every sampler's step is affine in x with independent noise, so the mean and the
/// variance of the result obey a recursion in closed form.
fn predicted_moments(sampler: &Sampler, path: &Trajectory, mean: f64, s: f64) -> (f64, f64) {
    // E x and (for multistep) the covariance with the previous estimate, as coefficients of the
    // initial noise: x = m + c·n₀ + fresh noise of variance v.
    let (mut m, mut c, mut v) = (0.0, 1.0, 0.0);
    let mut old: Option<(f64, f64, f64)> = None;
    for (i, w) in path.levels.windows(2).enumerate() {
        let (a, sd) = (w[0].alpha(), w[0].sigma());
        let (a2, sd2) = (w[1].alpha(), w[1].sigma());
        let total = (a * s).powi(2) + sd * sd;
        // x̂_0 = E[x_0 | x] = mean + k(x − a·mean); ε̂ = sd (x − a·mean)/total.
        let k = a * s * s / total;
        let beta = 1.0 - w[0].alpha_bar / w[1].alpha_bar;
        let posterior = sd2 * sd2 / (sd * sd) * beta;
        let (x0m, x0c) = (mean + k * (m - a * mean), k * c);
        let (gain, shift, fresh) = match sampler {
            Sampler::Ddpm { large_variance } => {
                let gain = a2 * beta / (sd * sd) * k + (1.0 - beta).sqrt() * sd2 * sd2 / (sd * sd);
                let shift = a2 * beta / (sd * sd) * (1.0 - k * a) * mean;
                (gain, shift, if *large_variance && sd2 > 0.0 { beta } else { posterior })
            }
            Sampler::Ddim { eta } => {
                let fresh = eta * eta * posterior;
                let direction = (sd2 * sd2 - fresh).sqrt() * sd / total;
                (a2 * k + direction, a2 * (1.0 - k * a) * mean - direction * a * mean, fresh)
            }
            _ => {
                let h = w[1].lambda() - w[0].lambda();
                let use_old = h.is_finite() && !(i + 2 == path.levels.len() && path.steps() < 15);
                let r = old.filter(|_| use_old).map_or(0.0, |(h0, _, _)| h / (2.0 * h0));
                let (om, oc) = old.map_or((0.0, 0.0), |(_, om, oc)| (om, oc));
                let push = -a2 * (-h).exp_m1();
                let (dm, dc) = ((1.0 + r) * x0m - r * om, (1.0 + r) * x0c - r * oc);
                (m, c) = (sd2 / sd * m + push * dm, sd2 / sd * c + push * dc);
                old = Some((h, x0m, x0c));
                continue;
            }
        };
        (m, c, v) = (gain * m + shift, gain * c, gain * gain * v + fresh);
    }
    (m, c * c + v)
}

#[test]
fn gaussian_data_come_out_with_the_moments_of_the_closed_form() {
    let (mean, s, n) = (0.7, 0.5, 40_000);
    for spacing in [Spacing::Leading, Spacing::Trailing, Spacing::Linspace] {
        let schedule = Schedule::new(Config { timestep_spacing: spacing, ..Config::default() }).unwrap();
        let model = Mixture::gaussian(&schedule, mean, s);
        for (sampler, steps) in ALL.into_iter().flat_map(|s| [(s.clone(), 10), (s, 25)]) {
            let path = Trajectory::new(&schedule, steps).unwrap();
            let (m, v) = moments(&run(&sampler, &model, &noise(n), &path));
            let (want_m, want_v) = predicted_moments(&sampler, &path, mean, s);
            // Five standard errors of n independent draws.
            let (em, ev) = ((v / n as f64).sqrt(), v * (2.0 / n as f64).sqrt());
            assert!((m - want_m).abs() < 5.0 * em, "{sampler:?} {steps} {spacing:?}: mean {m} {want_m}");
            assert!((v - want_v).abs() < 5.0 * ev, "{sampler:?} {steps} {spacing:?}: var {v} {want_v}");
        }
    }
}

#[test]
fn one_step_adds_exactly_its_own_noise() {
    let schedule = schedule();
    let model = Mixture::gaussian(&schedule, 0.7, 0.5);
    let path = Trajectory::through(&schedule, &[500.0, 300.0]).unwrap();
    let (a, b) = (path.levels[0].alpha_bar, path.levels[1].alpha_bar);
    let (beta, posterior) = (1.0 - a / b, (1.0 - b) / (1.0 - a) * (1.0 - a / b));
    let wants = [posterior, beta, 0.0, posterior, 0.0];
    let n = 40_000;
    let x = noise(n).zeros_like().unwrap();
    for (sampler, want) in ALL.into_iter().zip(wants) {
        let (_, variance) = moments(&run(&sampler, &model, &x, &path));
        let error = want * (2.0 / n as f64).sqrt();
        assert!((variance - want).abs() < 5.0 * error + 1e-20, "{sampler:?}: {variance} {want}");
    }
}

#[test]
fn many_steps_reach_the_data_distribution() {
    let schedule = Schedule::new(Config { steps_offset: 0, set_alpha_to_one: true, ..Config::default() });
    let schedule = schedule.unwrap();
    // What N(0, 1) at t = 999 lacks of the true marginal is α_999·μ = .05 in the mean and next to
    // nothing in the variance, and most of it decays; discretisation is 1/1000.
    for sampler in ALL {
        let path = Trajectory::new(&schedule, 1000).unwrap();
        let (m, v) = predicted_moments(&sampler, &path, 0.7, 0.5);
        assert!((m - 0.7).abs() < 0.04 && (v.sqrt() - 0.5).abs() < 0.02, "{sampler:?}: {m} {}", v.sqrt());
    }
}

/// Solves the probability-flow ODE d(x/α)/d(σ/α) = ε by classical Runge-Kutta in ln(σ/α).
fn exact(model: &Mixture, x: f64, path: &Trajectory) -> f64 {
    let (first, last) = (path.levels[0], path.levels[path.steps()]);
    let slope = |y: f64, u: f64| {
        let ratio = u.exp();
        let alpha = 1.0 / (1.0 + ratio * ratio).sqrt();
        ratio * model.epsilon(alpha * y, alpha, alpha * ratio)
    };
    let (steps, mut u) = (4000, -first.lambda());
    let h = (-last.lambda() - u) / f64::from(steps);
    let mut y = x / first.alpha();
    for _ in 0..steps {
        let k1 = slope(y, u);
        let k2 = slope(y + 0.5 * h * k1, u + 0.5 * h);
        let k3 = slope(y + 0.5 * h * k2, u + 0.5 * h);
        let k4 = slope(y + h * k3, u + h);
        y += h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4);
        u += h;
    }
    y * last.alpha()
}

#[test]
fn orders_of_convergence_on_a_mixture() {
    let schedule = schedule();
    let model = Mixture { schedule: &schedule, parts: vec![(0.6, -1.0, 0.5), (0.4, 1.2, 0.4)] };
    let start = noise(64);
    let starts: Vec<f64> = start.flatten_all().unwrap().to_vec1().unwrap();
    let path = |steps: usize| {
        let timesteps: Vec<f32> = (0..=steps).map(|i| 861.0 - 800.0 * i as f32 / steps as f32).collect();
        Trajectory::through(&schedule, &timesteps).unwrap()
    };
    let truth: Vec<f64> = starts.iter().map(|&x| exact(&model, x, &path(1))).collect();
    // Multistep methods start (and UniPC ends) with steps of lower order: here those are tiny.
    let gentle = |steps: usize| {
        let (h, small) = (800.0 / steps as f32, 4000.0 / (steps * steps) as f32);
        let mut timesteps = vec![861.0, 861.0 - small];
        timesteps
            .extend((0..steps).map(|i| 861.0 - 2.0 * small - (h - 4.0 * small / steps as f32) * i as f32));
        timesteps.extend([61.0 + small, 61.0]);
        Trajectory::through(&schedule, &timesteps).unwrap()
    };
    let error = |sampler: &Sampler, steps| {
        let multistep =
            matches!(sampler, Sampler::Dpm(Dpm { order: 3, multistep: true, .. }) | Sampler::UniPc { .. });
        let path = if multistep { gentle(steps) } else { path(steps) };
        let got = run(sampler, &model, &start, &path);
        let square: f64 = got.iter().zip(&truth).map(|(a, b)| (a - b).powi(2)).sum();
        (square / 64.0).sqrt()
    };
    let (noise, data) = (Algorithm::Noise, Algorithm::Data);
    let cases = [
        (Sampler::Ddim { eta: 0.0 }, 1.0),
        (Sampler::ProbabilityFlow, 1.0),
        (Sampler::Heun, 2.0),
        (DPM_2M, 2.0),
        (dpm(data, 2, true, Midway::Heun), 2.0),
        (dpm(noise, 2, true, Midway::Midpoint), 2.0),
        (dpm(noise, 1, false, Midway::Midpoint), 1.0),
        (dpm(noise, 2, false, Midway::Midpoint), 2.0),
        (dpm(data, 2, false, Midway::Heun), 2.0),
        (dpm(noise, 3, false, Midway::Midpoint), 3.0),
        (dpm(data, 3, false, Midway::Heun), 3.0),
        (dpm(data, 3, true, Midway::Heun), 3.0),
        (dpm(noise, 3, true, Midway::Heun), 3.0),
        (Sampler::UniPc { order: 1 }, 2.0),
        (Sampler::UniPc { order: 2 }, 3.0),
    ];
    for (sampler, order) in cases {
        let errors: Vec<f64> = [48, 96, 192, 384].into_iter().map(|n| error(&sampler, n)).collect();
        let seen = (errors[1] / errors[3]).log2() / 2.0;
        // Higher-order terms are still a tenth of the error at these step sizes.
        assert!((seen - order).abs() < 0.3, "{sampler:?}: order {seen}, errors {errors:?}");
    }
}

#[test]
fn runge_kutta_keeps_its_tolerance() {
    let schedule = schedule();
    let model = Mixture { schedule: &schedule, parts: vec![(0.6, -1.0, 0.5), (0.4, 1.2, 0.4)] };
    let start = noise(16);
    let starts: Vec<f64> = start.flatten_all().unwrap().to_vec1().unwrap();
    let path = Trajectory::through(&schedule, &[861.0, 61.0]).unwrap();
    let mut evaluations = Vec::new();
    for tolerance in [1e-2, 1e-5] {
        let mut steps = 0;
        let sampler = Sampler::RungeKutta45 { tolerance };
        let got = sampler.sample(&model, &start, &path, 0, &mut |p| {
            steps = p.step;
            Ok(())
        });
        let got = got.unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (a, x) in got.iter().zip(&starts) {
            let off = (a - exact(&model, *x, &path)).abs();
            // Errors of single steps add up over some tens of them; timesteps are told in f32.
            assert!(off < 20.0 * tolerance, "{tolerance}: {off}");
        }
        evaluations.push(steps);
    }
    assert!(evaluations[0] < evaluations[1] && evaluations[1] < 200, "{evaluations:?}");
}

#[test]
fn stochastic_samplers_reach_the_data_distribution() {
    let schedule = Schedule::new(Config { steps_offset: 0, set_alpha_to_one: true, ..Config::default() });
    let schedule = schedule.unwrap();
    let (mean, s, n) = (0.7, 0.5, 8000);
    let model = Mixture::gaussian(&schedule, mean, s);
    let cases = [
        (Sampler::EulerAncestral, 100, 0.03),
        (Sampler::ReverseSde, 500, 0.03),
        (dpm(Algorithm::SdeData, 2, true, Midway::Midpoint), 60, 0.03),
        (dpm(Algorithm::SdeData, 1, true, Midway::Midpoint), 200, 0.03),
    ];
    for (sampler, steps, bias) in cases {
        let path = sampler::trajectory(&schedule, &sampler, steps).unwrap();
        let (m, v) = moments(&run(&sampler, &model, &noise(n), &path));
        // Five standard errors and the discretisation's bias.
        let (em, ev) = (5.0 * s / (n as f64).sqrt(), 5.0 * s / (2.0 * n as f64).sqrt());
        assert!((m - mean).abs() < em + bias, "{sampler:?}: mean {m}");
        assert!((v.sqrt() - s).abs() < ev + bias, "{sampler:?}: deviation {}", v.sqrt());
    }
}

#[test]
fn the_analytic_variance_is_exact_on_gaussian_data() {
    let schedule = schedule();
    let (mean, s, n) = (0.7, 0.5, 40_000);
    let model = Mixture::gaussian(&schedule, mean, s);
    // The data themselves, by which Γ is measured: E ε̂² = σ²/(α²s²+σ²) for a Gaussian.
    let data = noise(n).affine(s, mean).unwrap();
    let norms = score_norms(&model, &schedule, &data, 21, 5).unwrap();
    for t in [0usize, 333, 999] {
        let (a, sd) = (schedule.alpha(t as f32), schedule.sigma(t as f32));
        let want = sd * sd / (a * a * s * s + sd * sd);
        let interpolated = if t == 333 { 0.03 } else { 0.0 };
        assert!((norms[t] - want).abs() < 5.0 * want * (2.0 / n as f64).sqrt() + interpolated, "{t}");
    }
    // One step, with Γ exact: the result's distribution is the marginal at the next level.
    let exact: Vec<f64> = (0..1000)
        .map(|t| {
            let (a, sd) = (schedule.alpha(t as f32), schedule.sigma(t as f32));
            sd * sd / (a * a * s * s + sd * sd)
        })
        .collect();
    let path = Trajectory::through(&schedule, &[800.0, 300.0]).unwrap();
    let (from, to) = (path.levels[0], path.levels[1]);
    let marginal = |l: Level| (l.alpha() * mean, ((l.alpha() * s).powi(2) + l.sigma().powi(2)).sqrt());
    let x = noise(n).affine(marginal(from).1, marginal(from).0).unwrap();
    let variance = |sampler: &Sampler| moments(&run(sampler, &model, &x, &path)).1;
    let want = marginal(to).1.powi(2);
    let off = |v: f64| (v - want).abs() / (want * (2.0 / n as f64).sqrt());
    let analytic = off(variance(&Sampler::AnalyticDpm { score_norms: exact.into() }));
    assert!(analytic < 5.0, "{analytic} standard errors");
    // With either of DDPM's variances it is not.
    for large_variance in [false, true] {
        assert!(off(variance(&Sampler::Ddpm { large_variance })) > 20.0, "{large_variance}");
    }
}

#[test]
fn a_calibrated_score_has_mean_zero_and_no_larger_loss() {
    let schedule = schedule();
    let truth = Mixture::gaussian(&schedule, 0.7, 0.5);
    // A model that is off by a constant.
    struct Biased<'a>(Mixture<'a>);
    impl NoisePredictor for Biased<'_> {
        fn predict(&self, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
            Ok((self.0.predict(x_t, t)? + 0.3)?)
        }
    }
    let data = noise(4000).reshape((1000, 4)).unwrap().affine(0.5, 0.7).unwrap();
    let biased = Biased(truth);
    let calibrated = Calibrated::new(&biased, &schedule, data.clone(), 1);
    let t = vec![400.0; 1000];
    let eps = normal_like(&data, &Rng::new(1, Stream::Probe, 400)).unwrap();
    let x = schedule.add_noise(&data, &eps, &t).unwrap();
    let mean = |x: &Tensor| x.mean_all().unwrap().to_scalar::<f64>().unwrap();
    let loss = |p: &dyn NoisePredictor| mean(&(p.predict(&x, &t).unwrap() - &eps).unwrap().sqr().unwrap());
    assert!(mean(&biased.predict(&x, &t).unwrap()).abs() > 0.2);
    assert!(mean(&calibrated.predict(&x, &t).unwrap()).abs() < 1e-12);
    assert!(loss(&calibrated) < loss(&biased) - 0.08, "{} {}", loss(&calibrated), loss(&biased));
}

#[test]
fn inversion_with_refinement_comes_back() {
    let schedule = schedule();
    let model = Mixture { schedule: &schedule, parts: vec![(0.6, -1.0, 0.5), (0.4, 1.2, 0.4)] };
    let path = Trajectory::new(&schedule, 20).unwrap();
    let clean = noise(64).affine(0.6, 0.1).unwrap();
    let round_trip = |refinements| {
        let noisy = ddim_inversion(&model, &clean, &path, refinements, 1e-12).unwrap();
        let back = run(&Sampler::Ddim { eta: 0.0 }, &model, &noisy, &path);
        let clean: Vec<f64> = clean.flatten_all().unwrap().to_vec1().unwrap();
        back.iter().zip(clean).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let (plain, refined) = (round_trip(0), round_trip(50));
    assert!(plain > 1e-3 && refined < 1e-8, "{plain} {refined}");
}

#[test]
fn consistency_sampling_keeps_its_boundary_condition() {
    let schedule = schedule();
    let model = Mixture::gaussian(&schedule, 0.7, 0.5);
    let sampler = Sampler::Lcm { timestep_scaling: 10.0 };
    // f(x, 0) = x, whatever the predictor says.
    let path = Trajectory::through(&schedule, &[0.0]).unwrap();
    let levels = vec![path.levels[0], Level { t: 0.0, alpha_bar: 1.0 }];
    let path = Trajectory { levels, ..path };
    let x = noise(16);
    let y = sampler.sample(&model, &x, &path, 0, &mut |_| Ok(())).unwrap();
    assert!((y - &x).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap() < 1e-12);
    let path = sampler::trajectory(&schedule, &sampler, 4).unwrap();
    let t: Vec<f32> = path.levels.iter().map(|l| l.t).collect();
    assert_eq!(t, [999.0, 759.0, 499.0, 259.0, 0.0]);
    let (m, _) = moments(&run(&sampler, &model, &noise(4000), &path));
    assert!((m - 0.7).abs() < 0.05, "{m}");
}

#[test]
fn every_named_sampler_draws_from_the_data() {
    let config = Config { timestep_spacing: Spacing::Trailing, set_alpha_to_one: true, ..Config::default() };
    let schedule = Schedule::new(config).unwrap();
    let model = Mixture::gaussian(&schedule, 0.7, 0.5);
    for name in sampler::NAMES {
        let steps = if name == "lcm" { 4 } else { 100 };
        let (sampler, path) = sampler::by_name(name, &schedule, steps).unwrap();
        let (m, v) = moments(&run(&sampler, &model, &noise(4000), &path));
        // Five standard errors are .04; first-order methods are that much off again at 100 steps, and
        // what N(0, 1) lacks of the true start is .05 in the mean.
        assert!((m - 0.7).abs() < 0.12, "{name}: mean {m}");
        // A consistency model's answers to a Gaussian's mean predictor are too narrow: it is none.
        assert!(name == "lcm" || (v.sqrt() - 0.5).abs() < 0.06, "{name}: deviation {}", v.sqrt());
    }
    let error = sampler::by_name("magic", &schedule, 5).unwrap_err();
    assert!(error.hint_text().unwrap().contains("unipc"));
}

#[test]
fn settings_out_of_range_are_refused() {
    let schedule = schedule();
    let model = Mixture::gaussian(&schedule, 0.0, 1.0);
    let path = Trajectory::new(&schedule, 4).unwrap();
    for sampler in [
        Sampler::Ddim { eta: 1.5 },
        Sampler::UniPc { order: 4 },
        dpm(Algorithm::Data, 0, true, Midway::Heun),
        Sampler::RungeKutta45 { tolerance: 0.0 },
        Sampler::AnalyticDpm { score_norms: vec![1.0; 10].into() },
    ] {
        let error = sampler.sample(&model, &noise(4), &path, 0, &mut |_| Ok(())).unwrap_err();
        assert!(error.is_usage(), "{sampler:?}");
    }
    assert!(Trajectory::consistency(&schedule, 51, 50).is_err());
    assert!(Trajectory::solver(&schedule, 0).is_err());
}

#[test]
fn randomness_is_where_it_belongs() {
    let schedule = schedule();
    let model = Mixture::gaussian(&schedule, 0.3, 0.8);
    let (x, path) = (noise(400), Trajectory::new(&schedule, 12).unwrap());
    for sampler in ALL {
        let with = |seed| {
            let y = sampler.sample(&model, &x, &path, seed, &mut |_| Ok(())).unwrap();
            y.flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        let deterministic = sampler == DPM_2M || sampler == Sampler::Ddim { eta: 0.0 };
        assert_eq!(with(1), with(1), "{sampler:?}");
        assert_eq!(with(1) == with(2), deterministic, "{sampler:?}");
        // A sample does not know how many others are in its batch.
        let alone = sampler.sample(&model, &x.narrow(0, 0, 1).unwrap(), &path, 1, &mut |_| Ok(())).unwrap();
        assert_eq!(alone.flatten_all().unwrap().to_vec1::<f64>().unwrap(), with(1)[..100], "{sampler:?}");
    }
}

#[test]
fn estimates_are_clipped_and_observers_can_stop() {
    let schedule = Schedule::new(Config { clip_sample: true, ..Config::default() }).unwrap();
    let model = Mixture::gaussian(&schedule, 3.0, 0.1);
    let (x, path) = (noise(16), Trajectory::new(&schedule, 5).unwrap());
    let mut seen = Vec::new();
    let result = DPM_2M.sample(&model, &x, &path, 0, &mut |p| {
        assert!(p.x0.max_all()?.to_scalar::<f64>()? <= 1.0);
        seen.push((p.step, p.steps));
        if p.step == 3 { Err(crate::Error::Interrupted) } else { Ok(()) }
    });
    assert!(matches!(result, Err(crate::Error::Interrupted)));
    assert_eq!(seen, [(1, 5), (2, 5), (3, 5)]);
    assert!(Trajectory::through(&schedule, &[5.0, 5.0]).is_err());
}
