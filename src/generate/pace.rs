//! How the learning rates move over a run.

use std::f32::consts::PI;

use crate::config::OptimConfig;

/// The factor on the learning rates at `step` (from 0): a linear rise, then half a cosine down to
/// `final_rate`.
pub(crate) fn rate(optim: &OptimConfig, step: u32) -> f32 {
    // A short run (`--steps 10`) must not end before it has begun.
    let warmup = optim.warmup.min(optim.steps / 2);
    if step < warmup {
        return (step + 1) as f32 / warmup as f32;
    }
    let span = (optim.steps - warmup).max(1) as f32;
    let cosine = 0.5 * (1.0 + (PI * (step - warmup) as f32 / span).cos());
    optim.final_rate + (1.0 - optim.final_rate) * cosine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_rises_and_falls_between_its_ends() {
        let optim = OptimConfig { steps: 100, warmup: 10, final_rate: 0.1, retries: 0 };
        assert!((rate(&optim, 0) - 0.1).abs() < 1e-6 && (rate(&optim, 9) - 1.0).abs() < 1e-6);
        assert!((rate(&optim, 10) - 1.0).abs() < 1e-6);
        assert!((rate(&optim, 55) - 0.55).abs() < 1e-3, "half way down the cosine");
        assert!((rate(&optim, 100) - 0.1).abs() < 1e-6);
        let short = OptimConfig { steps: 4, ..optim.clone() };
        assert!((rate(&short, 1) - 1.0).abs() < 1e-6, "two steps up, two down");
        assert!((10..99).all(|s| rate(&optim, s + 1) < rate(&optim, s)));
    }
}
