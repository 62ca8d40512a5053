//! The samplers, each a way from noise to a sample over a [`Trajectory`].

mod dpm;
mod name;
mod ode;
mod steps;
mod unipc;

use std::sync::Arc;

use candle_core::Tensor;

pub use dpm::{Algorithm, Dpm, Midway};
pub use name::{NAMES, by_name};

use super::{Clip, Level, NoisePredictor, Trajectory, normal_like};
use crate::prior::schedule::Schedule;
use crate::rng::{Rng, Stream};
use crate::{Error, Result};

/// A way from noise to a sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Sampler {
    /// Ancestral sampling (Ho et al. 2020) with the posterior variance
    /// β̃ = (1−ᾱ')/(1−ᾱ)·β, or with β where `large_variance`.
    Ddpm {
        /// β instead of β̃.
        large_variance: bool,
    },
    /// Ancestral sampling with the optimal variance (Bao et al. 2022), of
    /// [`super::score::score_norms`]: Γ(t) = E‖ε̂(x_t)‖²/d at timesteps 0, 1, ….
    AnalyticDpm {
        /// Γ, one a timestep of the schedule.
        score_norms: Arc<[f64]>,
    },
    /// Song et al. 2021; `eta` 0 is deterministic, 1 has DDPM's variance.
    Ddim {
        /// Scale of the fresh noise, 0..=1.
        eta: f64,
    },
    /// The DPM-Solver family (Lu et al. 2022).
    Dpm(Dpm),
    /// Zhao et al. 2023: predictor and corrector of one order in the data prediction, B₂(h).
    UniPc {
        /// 1..=3.
        order: usize,
    },
    /// Euler steps in σ/α with fresh noise on the way (Karras et al. 2022, as k-diffusion has it).
    /// (Euler steps without fresh noise are [`Sampler::Ddim`] with `eta` 0.)
    EulerAncestral,
    /// Heun's method in σ/α (Karras et al. 2022): two evaluations a step, one for the last.
    Heun,
    /// Multistep consistency sampling (Luo et al. 2023): x ← α'·f(x, t) + σ' n.
    Lcm {
        /// Factor of the timestep in the boundary coefficients (10).
        timestep_scaling: f64,
    },
    /// Euler-Maruyama on the reverse-time SDE dx = (−½β x + β/σ·ε̂)dt + √β dw̄, in time.
    ReverseSde,
    /// Euler steps in time on the probability-flow ODE (not in σ/α, where they are DDIM).
    ProbabilityFlow,
    /// The probability-flow ODE by adaptive Runge-Kutta of order 5(4) (Dormand and Prince 1980);
    /// only the ends of the trajectory matter.
    RungeKutta45 {
        /// Root mean square of the error allowed a step, for samples of unit size.
        tolerance: f64,
    },
}

/// What an observer of a sampler sees after each step.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Steps done, 1..=`steps`.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// The sample at the new level.
    pub x: &'a Tensor,
    /// The estimate of the clean sample that the step used.
    pub x0: &'a Tensor,
}

/// One evaluation of the predictor on the way.
#[derive(Clone)]
struct Seen {
    level: Level,
    eps: Tensor,
    x0: Tensor,
}

/// What the steps of all samplers have at hand.
struct Step<'a> {
    predictor: &'a dyn NoisePredictor,
    trajectory: &'a Trajectory,
    /// Index of the level that is left, and the levels.
    index: usize,
    from: Level,
    to: Level,
    x: &'a Tensor,
    now: Seen,
    /// Earlier evaluations, the newest last.
    past: &'a [Seen],
    noise: &'a dyn Fn(u32) -> Result<Tensor>,
}

impl Step<'_> {
    fn steps(&self) -> usize {
        self.trajectory.steps()
    }

    /// Fresh noise of this step.
    fn fresh(&self) -> Result<Tensor> {
        (self.noise)(self.index as u32 + 1)
    }

    /// `mean + scale·n`.
    fn add_noise(&self, mean: Tensor, scale: f64) -> Result<Tensor> {
        if scale > 0.0 { mix(1.0, &mean, scale, &self.fresh()?) } else { Ok(mean) }
    }
}

impl Sampler {
    /// Walks `x` (`[B, …]`, at the trajectory's first level) to the last level.
    ///
    /// Fresh noise is drawn from stream `Sampler` of `seed`, step 1 and up; step 0 is left for the
    /// caller's initial noise. `observe` may end the walk with an error.
    ///
    /// # Errors
    /// Those of the predictor and of the observer; [`Error::Invalid`] for a setting out of range.
    pub fn sample(
        &self,
        predictor: &dyn NoisePredictor,
        x: &Tensor,
        trajectory: &Trajectory,
        seed: u64,
        observe: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<Tensor> {
        let noise = |step: u32| normal_like(x, &Rng::new(seed, Stream::Sampler, step));
        self.sample_with(predictor, x, trajectory, &noise, observe)
    }

    /// [`Sampler::sample`] with fresh noise from `noise`, which is told the step (1 and up).
    ///
    /// # Errors
    /// As [`Sampler::sample`], and those of `noise`.
    pub fn sample_with(
        &self,
        predictor: &dyn NoisePredictor,
        x: &Tensor,
        trajectory: &Trajectory,
        noise: &dyn Fn(u32) -> Result<Tensor>,
        observe: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<Tensor> {
        self.check(trajectory)?;
        if let Self::RungeKutta45 { tolerance } = self {
            return ode::runge_kutta45(predictor, x, trajectory, *tolerance, observe);
        }
        let mut x = x.clone();
        let mut corrector = unipc::Corrector::default();
        let mut start = None;
        let mut past: Vec<Seen> = Vec::new();
        let steps = trajectory.steps();
        for (index, pair) in trajectory.levels.windows(2).enumerate() {
            let (from, mut to) = (pair[0], pair[1]);
            if let (Self::Ddim { .. }, Some(arrivals)) = (self, &trajectory.arrivals) {
                to.alpha_bar = arrivals[index];
            }
            let now = evaluate(predictor, &x, from, trajectory)?;
            if let Self::UniPc { .. } = self {
                x = corrector.correct(x, &now, &past)?;
            }
            let step = Step { predictor, trajectory, index, from, to, x: &x, now, past: &past, noise };
            let next = match self {
                Self::Ddpm { large_variance } => steps::ddpm(&step, *large_variance)?,
                Self::AnalyticDpm { score_norms } => steps::analytic(&step, score_norms)?,
                Self::Ddim { eta } => steps::ddim(&step, *eta)?,
                Self::Dpm(dpm) => dpm.step(&step, &mut start)?,
                Self::UniPc { order } => corrector.predict(&step, *order)?,
                Self::EulerAncestral => steps::euler_ancestral(&step)?,
                Self::Heun => steps::heun(&step)?,
                Self::Lcm { timestep_scaling } => steps::lcm(&step, *timestep_scaling)?,
                Self::ReverseSde => ode::euler(&step, true)?,
                Self::ProbabilityFlow | Self::RungeKutta45 { .. } => ode::euler(&step, false)?,
            };
            let seen = step.now;
            observe(Progress { step: index + 1, steps, x: &next, x0: &seen.x0 })?;
            x = next;
            past.push(seen);
            // No method looks further back.
            if past.len() > 3 {
                past.remove(0);
            }
        }
        Ok(x)
    }

    fn check(&self, trajectory: &Trajectory) -> Result<()> {
        let bad = |what: &str, why: String| Err(Error::invalid(format!("sampler: {what}"), why));
        match self {
            Self::Ddim { eta } if !(0.0..=1.0).contains(eta) => bad("eta", format!("{eta} is not in 0..=1")),
            Self::Dpm(Dpm { order, .. }) | Self::UniPc { order } if !(1..=3).contains(order) => {
                bad("order", format!("{order} is not 1, 2 or 3"))
            }
            Self::RungeKutta45 { tolerance } if !(1e-12..=1.0).contains(tolerance) => {
                bad("tolerance", format!("{tolerance} is not in 1e-12..=1"))
            }
            Self::AnalyticDpm { score_norms } => {
                let most = trajectory.levels.iter().map(|l| l.t).fold(0.0, f32::max);
                if (most as usize) < score_norms.len() {
                    Ok(())
                } else {
                    bad("score norms", format!("{} values, timestep {most} asked", score_norms.len()))
                }
            }
            _ => Ok(()),
        }
    }
}

fn evaluate(predictor: &dyn NoisePredictor, x: &Tensor, at: Level, path: &Trajectory) -> Result<Seen> {
    let eps = predictor.predict(x, &vec![at.t; x.dim(0)?])?;
    let x0 = estimate(x, &eps, at, path.clip)?;
    Ok(Seen { level: at, eps, x0 })
}

/// `a·x + b·y`.
fn mix(a: f64, x: &Tensor, b: f64, y: &Tensor) -> Result<Tensor> {
    Ok((x.affine(a, 0.0)? + y.affine(b, 0.0)?)?)
}

/// x̂_0 = (x − σ ε)/α, in range if wanted.
fn estimate(x: &Tensor, eps: &Tensor, at: Level, clip: Option<Clip>) -> Result<Tensor> {
    let x0 = mix(1.0 / at.alpha(), x, -at.sigma() / at.alpha(), eps)?;
    match clip {
        Some(clip) => clip.apply(&x0),
        None => Ok(x0),
    }
}

/// DDIM inversion: from a clean sample back to noise, along `trajectory` run backwards.
///
/// The step from t to t' > t is DDIM's with ε at the *target*: x' = α'x̂_0 + σ'ε̂(x', t'), an equation for
/// x' that is solved by fixed-point iteration from ε̂(x, t') until the residual (root mean square) is
/// below `tolerance` or `refinements` iterations are done. Returns the sample at the trajectory's first
/// level; running [`Sampler::Ddim`] with `eta` 0 from there comes back.
///
/// # Errors
/// Those of the predictor.
pub fn ddim_inversion(
    predictor: &dyn NoisePredictor,
    x: &Tensor,
    trajectory: &Trajectory,
    refinements: usize,
    tolerance: f64,
) -> Result<Tensor> {
    let mut x = x.clone();
    for pair in trajectory.levels.windows(2).rev() {
        let (target, clean) = (pair[0], pair[1]);
        let t = vec![target.t; x.dim(0)?];
        // x' = (α'/α) x + (σ' − α'σ/α) ε(x', t').
        let ratio = target.alpha() / clean.alpha();
        let push = target.sigma() - ratio * clean.sigma();
        let mut next = mix(ratio, &x, push, &predictor.predict(&x, &t)?)?;
        for _ in 0..refinements {
            let better = mix(ratio, &x, push, &predictor.predict(&next, &t)?)?;
            let square = (&better - &next)?.sqr()?.mean_all()?.to_dtype(candle_core::DType::F64)?;
            next = better;
            if square.to_scalar::<f64>()?.sqrt() < tolerance {
                break;
            }
        }
        x = next;
    }
    Ok(x)
}

/// `steps` steps of the schedule on the grid that suits `sampler`, as diffusers has it.
///
/// # Errors
/// As [`Trajectory::new`].
pub fn trajectory(schedule: &Schedule, sampler: &Sampler, steps: usize) -> Result<Trajectory> {
    match sampler {
        Sampler::Dpm(_) | Sampler::UniPc { .. } => Trajectory::solver(schedule, steps),
        Sampler::EulerAncestral | Sampler::Heun => Trajectory::sigmas(schedule, steps),
        Sampler::Ddim { .. } => Trajectory::ddim(schedule, steps),
        Sampler::Lcm { .. } => Trajectory::consistency(schedule, steps, 50),
        _ => Trajectory::new(schedule, steps),
    }
}
