//! The reverse SDE and the probability-flow ODE in time.
//!
//! With β(t) = −d ln ᾱ/dt: dx = [−½β x − β·s·∇ log q]dt (+ √β dw̄), ∇ log q = −ε/σ, s = 1 for the SDE and
//! ½ for the ODE. Over a step from ᾱ to ᾱ', ∫β dt = ln(ᾱ'/ᾱ).

use candle_core::{DType, Tensor};

use super::{Progress, Seen, Step, estimate, mix};
use crate::Result;
use crate::sample::{Level, NoisePredictor, Trajectory};

/// One Euler step (with noise: Euler-Maruyama) backwards in time.
pub(super) fn euler(s: &Step<'_>, noisy: bool) -> Result<Tensor> {
    let beta = (s.to.alpha_bar / s.from.alpha_bar).ln();
    let pull = beta / s.from.sigma() * if noisy { 1.0 } else { 0.5 };
    let mean = mix(1.0 + 0.5 * beta, s.x, -pull, &s.now.eps)?;
    let last = s.index + 1 == s.steps();
    if noisy && !last { s.add_noise(mean, beta.sqrt()) } else { Ok(mean) }
}

/// Nodes, weights of the stages, and the weights of the fifth and the fourth order's difference.
const C: [f64; 7] = [0.0, 0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0];
const A: [[f64; 6]; 7] = [
    [0.0; 6],
    [0.2, 0.0, 0.0, 0.0, 0.0, 0.0],
    [3.0 / 40.0, 9.0 / 40.0, 0.0, 0.0, 0.0, 0.0],
    [44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0, 0.0, 0.0, 0.0],
    [19_372.0 / 6561.0, -25_360.0 / 2187.0, 64_448.0 / 6561.0, -212.0 / 729.0, 0.0, 0.0],
    [9017.0 / 3168.0, -355.0 / 33.0, 46_732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18_656.0, 0.0],
    [35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];
const ERROR: [f64; 7] =
    [71.0 / 57_600.0, 0.0, -71.0 / 16_695.0, 71.0 / 1920.0, -17_253.0 / 339_200.0, 22.0 / 525.0, -1.0 / 40.0];

/// dy/ds = ε̂ with y = x/α and s = σ/α, integrated in u = ln s by steps as long as the tolerance allows.
/// Ends at the last level that has noise; from there to the data, one Euler step.
pub(super) fn runge_kutta45(
    predictor: &dyn NoisePredictor,
    x: &Tensor,
    trajectory: &Trajectory,
    tolerance: f64,
    observe: &mut dyn FnMut(Progress) -> Result<()>,
) -> Result<Tensor> {
    let levels = &trajectory.levels;
    let arrives = levels[levels.len() - 1].alpha_bar >= 1.0;
    let last = if arrives && levels.len() > 2 { levels[levels.len() - 2] } else { levels[levels.len() - 1] };
    let (mut u, end) = (levels[0].ratio().ln(), last.ratio().ln());
    let slope = |y: &Tensor, u: f64| -> Result<(Tensor, Seen)> {
        let level = trajectory.level_at(u.exp());
        let x = y.affine(level.alpha(), 0.0)?;
        let eps = predictor.predict(&x, &vec![level.t; x.dim(0)?])?;
        let x0 = estimate(&x, &eps, level, trajectory.clip)?;
        Ok((eps.affine(u.exp(), 0.0)?, Seen { level, eps, x0 }))
    };
    let mut y = x.affine(1.0 / levels[0].alpha(), 0.0)?;
    let mut h: f64 = (end - u) / 20.0;
    let mut step = 0;
    // The last stage of a step is the first of the next.
    let (mut first, _) = slope(&y, u)?;
    while u > end + 1e-12 {
        h = h.max(end - u);
        let mut stages: Vec<Tensor> = vec![first.clone()];
        let (mut at, mut seen) = (y.clone(), None);
        for (c, row) in C.iter().zip(&A).skip(1) {
            at = y.clone();
            for (stage, a) in stages.iter().zip(row) {
                at = mix(1.0, &at, h * a, stage)?;
            }
            let (stage, evaluated) = slope(&at, u + c * h)?;
            stages.push(stage);
            seen = Some(evaluated);
        }
        let mut error = y.zeros_like()?;
        for (stage, e) in stages.iter().zip(ERROR) {
            error = mix(1.0, &error, h * e, stage)?;
        }
        let size = |t: &Tensor| -> Result<f64> {
            Ok(t.sqr()?.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?.sqrt())
        };
        // An error in y stays about what it is until α is 1: it counts against the sample's size there.
        let off = size(&error)? / (tolerance * (size(&y)? * trajectory.level_at(u.exp()).alpha()).max(1.0));
        // Single-precision predictors cannot meet any tolerance: a step never shrinks below 1e-6.
        if off <= 1.0 || h.abs() < 1e-6 {
            (u, y, step) = (u + h, at, step + 1);
            first = stages.swap_remove(6);
            if let Some(seen) = seen {
                let x = y.affine(seen.level.alpha(), 0.0)?;
                observe(Progress { step, steps: trajectory.steps().max(step), x: &x, x0: &seen.x0 })?;
            }
        }
        h *= (0.9 * off.max(1e-10).powf(-0.2)).clamp(0.2, 5.0);
    }
    let x = y.affine(last.alpha(), 0.0)?;
    if !arrives || levels.len() <= 2 {
        return Ok(x);
    }
    let eps = predictor.predict(&x, &vec![last.t; x.dim(0)?])?;
    let to: Level = levels[levels.len() - 1];
    Ok(estimate(&x, &eps, last, trajectory.clip)?.affine(to.alpha(), 0.0)?)
}
