//! What changes over a run: the learning rates and the range of diffusion timesteps.

use std::f32::consts::PI;

use crate::config::{Anneal, OptimConfig, SdsConfig};

/// The factor on the learning rates at `step` (from 0): a linear rise, then half a cosine down to
/// `final_rate`.
pub(super) fn rate(optim: &OptimConfig, step: u32) -> f32 {
    if step < optim.warmup {
        return (step + 1) as f32 / optim.warmup as f32;
    }
    let span = (optim.steps - optim.warmup).max(1) as f32;
    let cosine = 0.5 * (1.0 + (PI * (step - optim.warmup) as f32 / span).cos());
    optim.final_rate + (1.0 - optim.final_rate) * cosine
}

/// Lowest and highest timestep at `step` as fractions of the prior's schedule.
pub(super) fn timesteps(sds: &SdsConfig, step: u32, steps: u32) -> (f32, f32) {
    let progress = step as f32 / steps.max(1) as f32;
    let way = match sds.anneal {
        Anneal::None => 0.0,
        Anneal::Linear => progress,
        Anneal::Sqrt => progress.sqrt(),
    };
    (sds.t_min, sds.t_max + (sds.t_max_end - sds.t_max) * way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_rises_and_falls_between_its_ends() {
        let optim = OptimConfig { steps: 100, warmup: 10, final_rate: 0.1 };
        assert!((rate(&optim, 0) - 0.1).abs() < 1e-6 && (rate(&optim, 9) - 1.0).abs() < 1e-6);
        assert!((rate(&optim, 10) - 1.0).abs() < 1e-6);
        assert!((rate(&optim, 55) - 0.55).abs() < 1e-3, "half way down the cosine");
        assert!((rate(&optim, 100) - 0.1).abs() < 1e-6);
        assert!((10..99).all(|s| rate(&optim, s + 1) < rate(&optim, s)));
    }

    #[test]
    fn timesteps_anneal() {
        let mut sds = SdsConfig { t_min: 0.02, t_max: 0.98, t_max_end: 0.5, ..SdsConfig::default() };
        assert_eq!(timesteps(&sds, 0, 100), (0.02, 0.98));
        assert!((timesteps(&sds, 25, 100).1 - 0.86).abs() < 1e-6);
        sds.anneal = Anneal::Sqrt;
        assert!((timesteps(&sds, 25, 100).1 - 0.74).abs() < 1e-6);
        sds.anneal = Anneal::None;
        assert_eq!(timesteps(&sds, 99, 100).1, 0.98);
    }
}
