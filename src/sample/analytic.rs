//! Noise predictors in closed form: the oracles of samplers and of score distillation.

use candle_core::{DType, Tensor};

use super::NoisePredictor;
use crate::Result;
use crate::prior::schedule::Schedule;

/// Every element is drawn from the mixture Σ wₖ N(μₖ, sₖ²), independently.
pub(crate) struct Mixture<'a> {
    pub schedule: &'a Schedule,
    /// `(w, μ, s)`.
    pub parts: Vec<(f64, f64, f64)>,
}

impl<'a> Mixture<'a> {
    pub(crate) fn gaussian(schedule: &'a Schedule, mean: f64, deviation: f64) -> Self {
        Self { schedule, parts: vec![(1.0, mean, deviation)] }
    }

    /// ε = −σ·d/dx ln Σ wₖ N(x; α μₖ, α²sₖ²+σ²).
    pub(crate) fn epsilon(&self, x: f64, alpha: f64, sigma: f64) -> f64 {
        let (mut weight, mut pull) = (0.0, 0.0);
        for (w, mean, s) in &self.parts {
            let variance = (alpha * s).powi(2) + sigma * sigma;
            let off = x - alpha * mean;
            let density = w * (-0.5 * off * off / variance).exp() / variance.sqrt();
            weight += density;
            pull += density * sigma * off / variance;
        }
        pull / weight
    }
}

impl NoisePredictor for Mixture<'_> {
    fn predict(&self, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
        let mut x = x_t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let each = x.len() / t.len();
        for (row, &t) in x.chunks_mut(each).zip(t) {
            let (alpha, sigma) = (self.schedule.alpha(t), self.schedule.sigma(t));
            row.iter_mut().for_each(|v| *v = self.epsilon(*v, alpha, sigma));
        }
        Ok(Tensor::from_vec(x, x_t.dims(), x_t.device())?.to_dtype(x_t.dtype())?)
    }
}
