//! What can be learned about a noise predictor by asking it: the mean and the size of its answers.

use candle_core::{DType, Tensor};

use super::{NoisePredictor, normal_like};
use crate::prior::schedule::Schedule;
use crate::rng::{Rng, Stream};
use crate::{Error, Result};

/// Γ(t) = E‖ε̂(x_t, t)‖²/d by Monte Carlo over clean samples `data` (`[N, …]`), one draw of noise each,
/// at `points` timesteps spread over the schedule and linearly between them: what
/// [`super::Sampler::AnalyticDpm`] needs. With E‖∇log q_t‖² = d·Γ/σ² this is the paper's expectation.
///
/// # Errors
/// Those of the predictor; [`Error::Invalid`] for fewer than two points.
pub fn score_norms(
    predictor: &dyn NoisePredictor,
    schedule: &Schedule,
    data: &Tensor,
    points: usize,
    seed: u64,
) -> Result<Vec<f64>> {
    if !(2..=schedule.len()).contains(&points) {
        return Err(Error::invalid("points", format!("{points} is not in 2..={}", schedule.len())));
    }
    let last = schedule.len() - 1;
    let at: Vec<usize> = (0..points).map(|i| i * last / (points - 1)).collect();
    let norms: Vec<f64> = at
        .iter()
        .map(|&t| {
            let eps = answers(predictor, schedule, data, t as f32, seed)?;
            Ok(eps.sqr()?.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?)
        })
        .collect::<Result<_>>()?;
    Ok((0..=last)
        .map(|t| {
            let i = at.partition_point(|&a| a <= t).clamp(1, points - 1);
            let share = (t - at[i - 1]) as f64 / (at[i] - at[i - 1]) as f64;
            norms[i - 1] + share * (norms[i] - norms[i - 1])
        })
        .collect())
}

fn answers(
    predictor: &dyn NoisePredictor,
    schedule: &Schedule,
    data: &Tensor,
    t: f32,
    seed: u64,
) -> Result<Tensor> {
    let noise = normal_like(data, &Rng::new(seed, Stream::Probe, t as u32))?;
    let t = vec![t; data.dim(0)?];
    predictor.predict(&schedule.add_noise(data, &noise, &t)?, &t)
}

/// A predictor whose mean answer over the data is zero, as the true score's is: ε̂(x, t) − E[ε̂(x_t, t)]
/// (Pang et al. 2023, "On Calibrating Diffusion Probabilistic Models"). The means are taken at each
/// timestep when it is first asked for.
pub struct Calibrated<'a> {
    predictor: &'a dyn NoisePredictor,
    schedule: &'a Schedule,
    data: Tensor,
    seed: u64,
    means: std::sync::Mutex<std::collections::HashMap<u32, Tensor>>,
}

impl<'a> Calibrated<'a> {
    /// Over clean samples `data` (`[N, …]`).
    pub fn new(predictor: &'a dyn NoisePredictor, schedule: &'a Schedule, data: Tensor, seed: u64) -> Self {
        Self { predictor, schedule, data, seed, means: std::sync::Mutex::default() }
    }

    /// E[ε̂(x_t, t)], `[1, …]`.
    ///
    /// # Errors
    /// Those of the predictor.
    pub fn mean(&self, t: f32) -> Result<Tensor> {
        let known = self.means.lock().expect("no panic while held").get(&t.to_bits()).cloned();
        if let Some(mean) = known {
            return Ok(mean);
        }
        let mean = answers(self.predictor, self.schedule, &self.data, t, self.seed)?.mean_keepdim(0)?;
        self.means.lock().expect("no panic while held").insert(t.to_bits(), mean.clone());
        Ok(mean)
    }
}

impl NoisePredictor for Calibrated<'_> {
    fn predict(&self, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
        let means: Vec<Tensor> = t.iter().map(|&t| self.mean(t)).collect::<Result<_>>()?;
        Ok((self.predictor.predict(x_t, t)? - Tensor::cat(&means, 0)?)?)
    }
}
