//! Steps that use one evaluation (Heun: two) and no memory.

use candle_core::Tensor;

use super::{Step, evaluate, mix};
use crate::Result;

/// The posterior q(x' | x, x̂_0), with no noise added on arrival at the data.
pub(super) fn ddpm(s: &Step<'_>, large: bool) -> Result<Tensor> {
    let (mean, beta, posterior) = posterior(s)?;
    let last = s.to.alpha_bar >= 1.0;
    s.add_noise(mean, if large && !last { beta } else { posterior }.sqrt())
}

/// Mean of q(x' | x, x̂_0), β and β̃.
fn posterior(s: &Step<'_>) -> Result<(Tensor, f64, f64)> {
    let keep = s.from.alpha_bar / s.to.alpha_bar;
    let beta = 1.0 - keep;
    let (left, next) = (1.0 - s.from.alpha_bar, 1.0 - s.to.alpha_bar);
    let mean = mix(s.to.alpha() * beta / left, &s.now.x0, keep.sqrt() * next / left, s.x)?;
    Ok((mean, beta, next / left * beta))
}

/// Bao et al. 2022, eq. 8 for a step between any two levels: σ*² = β̃ + c²·Var(x_0 | x)/d with
/// c the posterior mean's coefficient of x_0 and Var(x_0|x)/d = (σ²/α²)(1 − Γ), Γ clamped to 0..=1.
pub(super) fn analytic(s: &Step<'_>, score_norms: &[f64]) -> Result<Tensor> {
    let (mean, beta, posterior) = posterior(s)?;
    if s.to.alpha_bar >= 1.0 {
        return Ok(mean);
    }
    let gamma = score_norms[(s.from.t.round() as usize).min(score_norms.len() - 1)].clamp(0.0, 1.0);
    let left = 1.0 - s.from.alpha_bar;
    let coefficient = s.to.alpha() * beta / left;
    let spread = left / s.from.alpha_bar * (1.0 - gamma);
    s.add_noise(mean, (posterior + coefficient * coefficient * spread).sqrt())
}

/// x' = α' x̂_0 + √(1−ᾱ'−s²) ε + s n, s² = η²·(1−ᾱ')/(1−ᾱ)·(1−ᾱ/ᾱ').
pub(super) fn ddim(s: &Step<'_>, eta: f64) -> Result<Tensor> {
    let next = 1.0 - s.to.alpha_bar;
    let fresh = eta * (next / (1.0 - s.from.alpha_bar) * (1.0 - s.from.alpha_bar / s.to.alpha_bar)).sqrt();
    let mean = mix(s.to.alpha(), &s.now.x0, (next - fresh * fresh).max(0.0).sqrt(), &s.now.eps)?;
    s.add_noise(mean, fresh)
}

/// In y = x/α and s = σ/α: down to s_d, then noise s_u, with s_d² + s_u² = s'² and s_u as in DDPM.
pub(super) fn euler_ancestral(s: &Step<'_>) -> Result<Tensor> {
    let (from, to) = (s.from.ratio(), s.to.ratio());
    let up = (to * to * (from * from - to * to) / (from * from)).max(0.0).sqrt().min(to);
    let down = (to * to - up * up).max(0.0).sqrt();
    let alpha = s.to.alpha();
    let mean = mix(alpha / s.from.alpha(), s.x, alpha * (down - from), &s.now.eps)?;
    s.add_noise(mean, alpha * up)
}

/// In y = x/α and s = σ/α: y' = y + (s' − s)·(ε + ε')/2 with ε' at Euler's y'.
pub(super) fn heun(s: &Step<'_>) -> Result<Tensor> {
    let euler = ddim(s, 0.0)?;
    if s.to.alpha_bar >= 1.0 {
        return Ok(euler);
    }
    let there = evaluate(s.predictor, &euler, s.to, s.trajectory)?;
    let (ratio, push) = (s.to.alpha() / s.from.alpha(), s.to.alpha() * (s.to.ratio() - s.from.ratio()));
    let mean = mix(0.5, &s.now.eps, 0.5, &there.eps)?;
    mix(ratio, s.x, push, &mean)
}

/// f(x, t) = c_skip·x + c_out·x̂_0 with σ_data = ½ (so f(x, 0) = x), then noise of the next level.
pub(super) fn lcm(s: &Step<'_>, timestep_scaling: f64) -> Result<Tensor> {
    let (skip, out) = boundary(f64::from(s.from.t) * timestep_scaling);
    let clean = mix(out, &s.now.x0, skip, s.x)?;
    if s.index + 1 == s.steps() {
        return Ok(clean);
    }
    mix(s.to.alpha(), &clean, s.to.sigma(), &s.fresh()?)
}

/// (c_skip, c_out) at scaled time t: σ_d²/(t²+σ_d²), t/√(t²+σ_d²).
pub(super) fn boundary(t: f64) -> (f64, f64) {
    let data = 0.25;
    (data / (t * t + data), t / (t * t + data).sqrt())
}
