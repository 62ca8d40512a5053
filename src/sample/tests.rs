use candle_core::{DType, Device, Tensor};

use super::analytic::Mixture;
use super::*;
use crate::prior::schedule::{Config, Schedule, Spacing};
use crate::rng::{Rng, Stream};

const ALL: [Sampler; 5] = [
    Sampler::Ddpm { large_variance: false },
    Sampler::Ddpm { large_variance: true },
    Sampler::Ddim { eta: 0.0 },
    Sampler::Ddim { eta: 1.0 },
    Sampler::DpmSolverPlusPlus2M,
];

fn schedule() -> Schedule {
    Schedule::new(Config::default()).unwrap()
}

fn noise(n: usize) -> Tensor {
    let like = Tensor::zeros((4, n / 4), DType::F64, &Device::Cpu).unwrap();
    normal_like(&like, &Rng::new(3, Stream::Sampler, 0)).unwrap()
}

fn run(sampler: Sampler, model: &dyn NoisePredictor, x: &Tensor, trajectory: &Trajectory) -> Vec<f64> {
    let x = sampler.sample(model, x, trajectory, 9, &mut |_| Ok(())).unwrap();
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn moments(x: &[f64]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    (mean, x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64)
}

/// On Gaussian data every sampler's step is affine in x with independent noise, so the mean and the
/// variance of the result obey a recursion in closed form.
fn predicted_moments(sampler: Sampler, path: &Trajectory, mean: f64, s: f64) -> (f64, f64) {
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
                (gain, shift, if large_variance && sd2 > 0.0 { beta } else { posterior })
            }
            Sampler::Ddim { eta } => {
                let fresh = eta * eta * posterior;
                let direction = (sd2 * sd2 - fresh).sqrt() * sd / total;
                (a2 * k + direction, a2 * (1.0 - k * a) * mean - direction * a * mean, fresh)
            }
            Sampler::DpmSolverPlusPlus2M => {
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
        for (sampler, steps) in ALL.into_iter().flat_map(|s| [(s, 10), (s, 25)]) {
            let path = Trajectory::new(&schedule, steps).unwrap();
            let (m, v) = moments(&run(sampler, &model, &noise(n), &path));
            let (want_m, want_v) = predicted_moments(sampler, &path, mean, s);
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
        let (_, variance) = moments(&run(sampler, &model, &x, &path));
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
        let (m, v) = predicted_moments(sampler, &path, 0.7, 0.5);
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
    let error = |sampler, steps| {
        let got = run(sampler, &model, &start, &path(steps));
        let square: f64 = got.iter().zip(&truth).map(|(a, b)| (a - b).powi(2)).sum();
        (square / 64.0).sqrt()
    };
    for (sampler, order) in [(Sampler::Ddim { eta: 0.0 }, 1.0), (Sampler::DpmSolverPlusPlus2M, 2.0)] {
        let errors: Vec<f64> = [50, 100, 200, 400].into_iter().map(|n| error(sampler, n)).collect();
        let seen = (errors[1] / errors[3]).log2() / 2.0;
        // Higher-order terms are still a tenth of the error at these step sizes.
        assert!((seen - order).abs() < 0.2, "{sampler:?}: order {seen}, errors {errors:?}");
    }
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
        let deterministic = matches!(sampler, Sampler::Ddim { eta: 0.0 } | Sampler::DpmSolverPlusPlus2M);
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
    let result = Sampler::DpmSolverPlusPlus2M.sample(&model, &x, &path, 0, &mut |p| {
        assert!(p.x0.max_all()?.to_scalar::<f64>()? <= 1.0);
        seen.push((p.step, p.steps));
        if p.step == 3 { Err(crate::Error::Interrupted) } else { Ok(()) }
    });
    assert!(matches!(result, Err(crate::Error::Interrupted)));
    assert_eq!(seen, [(1, 5), (2, 5), (3, 5)]);
    assert!(Trajectory::through(&schedule, &[5.0, 5.0]).is_err());
}
