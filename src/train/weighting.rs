//! How much each noise level counts in the loss.

use crate::prior::schedule::{Prediction, Schedule};

/// The weight of a sample's loss at timestep `t`: 1 without `gamma`, else min-SNR-γ (Hang et al. 2023),
/// which gives the squared error of x̂₀ the weight `min(SNR, γ)`, whatever is predicted.
///
/// The mean squared error of ε is `SNR` times that of x̂₀, that of v `SNR + 1` times.
pub(super) fn loss_weight(schedule: &Schedule, prediction: Prediction, gamma: Option<f64>, t: f32) -> f64 {
    let Some(gamma) = gamma else { return 1.0 };
    let snr = schedule.snr(t);
    let of_x0 = match prediction {
        Prediction::Epsilon => snr,
        Prediction::V => snr + 1.0,
        Prediction::Sample => 1.0,
    };
    snr.min(gamma) / of_x0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::TrainConfig;

    #[test]
    fn errors_of_x0_count_min_snr_whatever_is_predicted() {
        let schedule = TrainConfig::default().schedule().unwrap();
        for t in [5.0, 200.0, 500.0, 900.0, 999.0] {
            let (a, s) = (schedule.alpha(t), schedule.sigma(t));
            // An error e of x0 at fixed x_t is one of −(α/σ) e of ε, and of −e/σ of v.
            for (prediction, factor) in
                [(Prediction::Epsilon, a / s), (Prediction::V, 1.0 / s), (Prediction::Sample, 1.0)]
            {
                let weighted = loss_weight(&schedule, prediction, Some(5.0), t) * factor * factor;
                let expected = (a * a / (s * s)).min(5.0);
                assert!(
                    (weighted / expected - 1.0).abs() < 1e-6,
                    "{prediction:?} at {t}: {weighted} {expected}"
                );
                assert_eq!(loss_weight(&schedule, prediction, None, t), 1.0);
            }
        }
    }
}
