//! The samplers: DDPM, DDIM and DPM-Solver++(2M).

use candle_core::Tensor;

use super::{Level, NoisePredictor, Trajectory, normal_like};
use crate::Result;
use crate::rng::{Rng, Stream};

/// A way from noise to a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampler {
    /// Ancestral sampling (Ho et al. 2020) with the posterior variance
    /// β̃ = (1−ᾱ')/(1−ᾱ)·β, or with β where `large_variance`.
    Ddpm {
        /// β instead of β̃.
        large_variance: bool,
    },
    /// Song et al. 2021; `eta` 0 is deterministic, 1 has DDPM's variance.
    Ddim {
        /// Scale of the fresh noise, 0..=1.
        eta: f64,
    },
    /// Second-order multistep solver of the probability-flow ODE in the data prediction (Lu et al.
    /// 2022), with a first-order first step, and last one under 15 steps or where it ends without
    /// noise.
    DpmSolverPlusPlus2M,
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

impl Sampler {
    /// Walks `x` (`[B, …]`, at the trajectory's first level) to the last level.
    ///
    /// Fresh noise is drawn from stream `Sampler` of `seed`, step 1 and up; step 0 is left for the
    /// caller's initial noise. `observe` may end the walk with an error.
    ///
    /// # Errors
    /// Those of the predictor and of the observer.
    pub fn sample(
        self,
        predictor: &dyn NoisePredictor,
        x: &Tensor,
        trajectory: &Trajectory,
        seed: u64,
        observe: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<Tensor> {
        let (mut x, mut previous) = (x.clone(), None);
        let steps = trajectory.steps();
        for (i, pair) in trajectory.levels.windows(2).enumerate() {
            let (from, to) = (pair[0], pair[1]);
            let eps = predictor.predict(&x, &vec![from.t; x.dim(0)?])?;
            let x0 = estimate(&x, &eps, from, trajectory.clip)?;
            let rng = Rng::new(seed, Stream::Sampler, i as u32 + 1);
            x = match self {
                Self::Ddpm { large_variance } => ddpm(&x, &x0, from, to, large_variance, &rng)?,
                Self::Ddim { eta } => ddim(&x0, &eps, from, to, eta, &rng)?,
                Self::DpmSolverPlusPlus2M => {
                    let first_order = i + 1 == steps && steps < 15;
                    let memory = previous.as_ref().filter(|_| !first_order);
                    dpm_plus_plus_2m(&x, &x0, memory, from, to)?
                }
            };
            observe(Progress { step: i + 1, steps, x: &x, x0: &x0 })?;
            previous = Some((from, x0));
        }
        Ok(x)
    }
}

/// `a·x + b·y`.
fn mix(a: f64, x: &Tensor, b: f64, y: &Tensor) -> Result<Tensor> {
    Ok((x.affine(a, 0.0)? + y.affine(b, 0.0)?)?)
}

fn add_noise(x: Tensor, scale: f64, rng: &Rng) -> Result<Tensor> {
    if scale > 0.0 { mix(1.0, &x, scale, &normal_like(&x, rng)?) } else { Ok(x) }
}

/// x̂_0 = (x − σ ε)/α, clamped if wanted.
fn estimate(x: &Tensor, eps: &Tensor, at: Level, clip: Option<f64>) -> Result<Tensor> {
    let x0 = mix(1.0 / at.alpha(), x, -at.sigma() / at.alpha(), eps)?;
    Ok(match clip {
        Some(limit) => x0.clamp(-limit, limit)?,
        None => x0,
    })
}

/// The posterior q(x' | x, x̂_0), with no noise added on arrival at the data.
fn ddpm(x: &Tensor, x0: &Tensor, from: Level, to: Level, large: bool, rng: &Rng) -> Result<Tensor> {
    let keep = from.alpha_bar / to.alpha_bar;
    let beta = 1.0 - keep;
    let (left, next) = (1.0 - from.alpha_bar, 1.0 - to.alpha_bar);
    let mean = mix(to.alpha() * beta / left, x0, keep.sqrt() * next / left, x)?;
    let variance = if large && next > 0.0 { beta } else { next / left * beta };
    add_noise(mean, variance.sqrt(), rng)
}

/// x' = α' x̂_0 + √(1−ᾱ'−s²) ε + s n, s² = η²·(1−ᾱ')/(1−ᾱ)·(1−ᾱ/ᾱ').
fn ddim(x0: &Tensor, eps: &Tensor, from: Level, to: Level, eta: f64, rng: &Rng) -> Result<Tensor> {
    let next = 1.0 - to.alpha_bar;
    let s = eta * (next / (1.0 - from.alpha_bar) * (1.0 - from.alpha_bar / to.alpha_bar)).sqrt();
    let mean = mix(to.alpha(), x0, (next - s * s).max(0.0).sqrt(), eps)?;
    add_noise(mean, s, rng)
}

/// x' = (σ'/σ) x − α'(e^{−h} − 1) D, D = x̂_0 + (x̂_0 − x̂_0ᵖʳᵉᵛ)·h/(2 hᵖʳᵉᵛ), h = λ' − λ.
fn dpm_plus_plus_2m(
    x: &Tensor,
    x0: &Tensor,
    previous: Option<&(Level, Tensor)>,
    from: Level,
    to: Level,
) -> Result<Tensor> {
    // e^{−h} and σ'/σ are both 0 on arrival at the data: the step is x̂_0 itself, scaled.
    let h = to.lambda() - from.lambda();
    let slope = match previous {
        Some((before, old)) if h.is_finite() => {
            let ratio = h / (2.0 * (from.lambda() - before.lambda()));
            &mix(1.0 + ratio, x0, -ratio, old)?
        }
        _ => x0,
    };
    mix(to.sigma() / from.sigma(), x, -to.alpha() * (-h).exp_m1(), slope)
}
