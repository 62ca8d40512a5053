//! Find the maximum, or sample: particles in the plane under a mixture, moved by SDS and by VSD.
//!
//! What score distillation does with a prior can be seen where the prior is a picture itself. The score
//! of the mixture is exact; ε_φ is the exact score of the particles' kernel density.

mod figure;

use candle_core::{DType, Device, Tensor};

use crate::Result;
use crate::distill::{At, Sds, SdsConfig, TimestepRange, Weighting};
use crate::prior::schedule::Schedule;
use crate::rng::{Rng, Stream};
use crate::sample::{NoisePredictor, normal_like};

pub use figure::figure;

/// A Gaussian in the plane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blob {
    /// Its share (the sum need not be one).
    pub weight: f64,
    /// Its mean.
    pub mean: [f64; 2],
    /// xx, xy, yy.
    pub covariance: [f64; 3],
}

/// A mixture in the plane, with its exact noise prediction.
#[derive(Debug, Clone)]
pub struct Blobs<'a> {
    schedule: &'a Schedule,
    parts: Vec<Blob>,
}

impl<'a> Blobs<'a> {
    /// A mixture of `parts`.
    pub fn new(schedule: &'a Schedule, parts: Vec<Blob>) -> Self {
        Self { schedule, parts }
    }

    /// ε = −σ ∇ ln Σ w N(x; α μ, α² C + σ² 1).
    fn epsilon(&self, x: [f64; 2], alpha: f64, sigma: f64) -> [f64; 2] {
        let parts: Vec<(f64, [f64; 2])> = self
            .parts
            .iter()
            .map(|part| {
                let [xx, xy, yy] = part.covariance.map(|c| c * alpha * alpha);
                let (xx, yy) = (xx + sigma * sigma, yy + sigma * sigma);
                let determinant = xx * yy - xy * xy;
                let (dx, dy) = (x[0] - alpha * part.mean[0], x[1] - alpha * part.mean[1]);
                let pull = [(yy * dx - xy * dy) / determinant, (xx * dy - xy * dx) / determinant];
                let log = part.weight.ln() - 0.5 * (pull[0] * dx + pull[1] * dy) - 0.5 * determinant.ln();
                (log, pull)
            })
            .collect();
        let top = parts.iter().fold(f64::NEG_INFINITY, |m, p| m.max(p.0));
        let (mut total, mut sum) = (0.0, [0.0; 2]);
        for (log, pull) in parts {
            let share = (log - top).exp();
            total += share;
            (sum[0], sum[1]) = (sum[0] + share * pull[0], sum[1] + share * pull[1]);
        }
        sum.map(|s| sigma * s / total)
    }
}

impl NoisePredictor for Blobs<'_> {
    fn predict(&self, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
        let mut x = x_t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        for (row, &t) in x.chunks_exact_mut(2).zip(t) {
            let eps = self.epsilon([row[0], row[1]], self.schedule.alpha(t), self.schedule.sigma(t));
            row.copy_from_slice(&eps);
        }
        Ok(Tensor::from_vec(x, x_t.dims(), x_t.device())?.to_dtype(x_t.dtype())?)
    }
}

/// Mean and covariance (xx, xy, yy) of points laid end to end.
pub fn covariance(points: &[f64]) -> ([f64; 2], [f64; 3]) {
    let n = (points.len() / 2).max(1) as f64;
    let mut mean = [0.0; 2];
    for p in points.chunks_exact(2) {
        (mean[0], mean[1]) = (mean[0] + p[0] / n, mean[1] + p[1] / n);
    }
    let mut spread = [0.0; 3];
    for p in points.chunks_exact(2) {
        let (x, y) = (p[0] - mean[0], p[1] - mean[1]);
        for (s, v) in spread.iter_mut().zip([x * x, x * y, y * y]) {
            *s += v / n;
        }
    }
    (mean, spread)
}

/// The kernel density of points, one round kernel of standard deviation `width` each.
fn density<'a>(schedule: &'a Schedule, points: &[f64], width: f64) -> Blobs<'a> {
    let covariance = [width * width, 0.0, width * width];
    let parts = points.chunks_exact(2).map(|p| Blob { weight: 1.0, mean: [p[0], p[1]], covariance });
    Blobs::new(schedule, parts.collect())
}

/// The mixture of the figure: three modes of different weight and shape.
pub fn target() -> Vec<Blob> {
    vec![
        Blob { weight: 0.5, mean: [-1.1, -0.5], covariance: [0.10, 0.05, 0.08] },
        Blob { weight: 0.3, mean: [1.0, -0.7], covariance: [0.06, -0.03, 0.09] },
        Blob { weight: 0.2, mean: [0.1, 1.1], covariance: [0.16, 0.0, 0.03] },
    ]
}

/// Where particles end: by SDS and by VSD, from the same start.
#[derive(Debug, Clone)]
pub struct Ends {
    /// The start, x and y of each particle.
    pub start: Vec<f64>,
    /// By SDS.
    pub sds: Vec<f64>,
    /// By VSD.
    pub vsd: Vec<f64>,
}

/// Moves `n` particles for `steps` steps by both.
///
/// # Errors
/// Tensor errors.
pub fn run(schedule: &Schedule, n: usize, steps: u32, seed: u64) -> Result<Ends> {
    let prior = Blobs::new(schedule, target());
    let timesteps = TimestepRange { max: [0.98, 0.5], ..TimestepRange::default() };
    let config = SdsConfig { timesteps, weighting: Weighting::Sigma2, ..SdsConfig::default() };
    let sds = Sds::new(schedule.clone(), config)?;
    let like = Tensor::zeros((n, 2), DType::F64, &Device::Cpu)?;
    let start = (normal_like(&like, &Rng::new(seed, Stream::Probe, 0))? * 1.2)?;
    let flat = |z: &Tensor| -> Result<Vec<f64>> { Ok(z.flatten_all()?.to_vec1()?) };
    let (mut found, mut sampled) = (start.clone(), start.clone());
    for step in 0..steps {
        let progress = f64::from(step) / f64::from(steps);
        // Adam is not needed where every direction is alike: SGD with a rate that falls.
        let rate = n as f64 * 0.3 * (1.0 - progress).max(0.02);
        let got = sds.gradient(&found, &prior, step, progress, seed)?.gradient;
        found = (&found - (got * rate)?)?;
        let own = density(schedule, &flat(&sampled)?, 0.12);
        let at = At { step, progress, seed };
        let got = sds.variational(&sampled, &prior, &own, at)?.gradient;
        sampled = (&sampled - (got * rate)?)?;
    }
    Ok(Ends { start: flat(&start)?, sds: flat(&found)?, vsd: flat(&sampled)? })
}

/// Share, mean and covariance of the points nearest to each part of the target (by Mahalanobis distance).
pub fn by_mode(points: &[f64]) -> Vec<(f64, [f64; 2], [f64; 3])> {
    let target = target();
    let mut groups = vec![Vec::new(); target.len()];
    for p in points.chunks_exact(2) {
        let far = |b: &Blob| {
            let ([xx, xy, yy], dx, dy) = (b.covariance, p[0] - b.mean[0], p[1] - b.mean[1]);
            (yy * dx * dx - 2.0 * xy * dx * dy + xx * dy * dy) / (xx * yy - xy * xy)
        };
        let nearest = (0..target.len()).min_by(|a, b| far(&target[*a]).total_cmp(&far(&target[*b])));
        groups[nearest.unwrap_or(0)].extend_from_slice(p);
    }
    let share = |g: &Vec<f64>| g.len() as f64 / points.len().max(1) as f64;
    groups
        .iter()
        .map(|g| {
            let (mean, spread) = covariance(g);
            (share(g), mean, spread)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prior::schedule::Config;

    #[test]
    fn epsilon_is_the_slope_of_the_log_density() {
        let schedule = Schedule::new(Config::default()).unwrap();
        let blobs = Blobs::new(&schedule, target());
        let (alpha, sigma) = (0.8, 0.6);
        let log = |x: [f64; 2]| {
            let sum: f64 = target()
                .iter()
                .map(|b| {
                    let [xx, xy, yy] = b.covariance.map(|c| c * alpha * alpha);
                    let (xx, yy) = (xx + sigma * sigma, yy + sigma * sigma);
                    let (dx, dy) = (x[0] - alpha * b.mean[0], x[1] - alpha * b.mean[1]);
                    let d = xx * yy - xy * xy;
                    let q = (yy * dx * dx - 2.0 * xy * dx * dy + xx * dy * dy) / d;
                    b.weight * (-0.5 * q).exp() / d.sqrt()
                })
                .sum();
            sum.ln()
        };
        for x in [[0.3, -0.2], [-1.4, 0.1], [0.9, 1.3]] {
            let got = blobs.epsilon(x, alpha, sigma);
            for i in 0..2 {
                let at = |h: f64| {
                    let mut x = x;
                    x[i] += h;
                    log(x)
                };
                let want = -sigma * (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((got[i] - want).abs() < 1e-8, "{x:?}: {} {want}", got[i]);
            }
        }
    }

    #[test]
    fn sds_particles_collapse_onto_modes_and_vsd_particles_fill_them() {
        let schedule = Schedule::new(Config::default()).unwrap();
        let ends = run(&schedule, 200, 400, 0).unwrap();
        let (sds, vsd) = (by_mode(&ends.sds), by_mode(&ends.vsd));
        for ((s, v), want) in sds.iter().zip(&vsd).zip(target()) {
            let size = |c: [f64; 3]| c[0] + c[2];
            let whole = size(want.covariance);
            assert!(s.0 == 0.0 || size(s.2) < 0.4 * whole, "{s:?} {want:?}");
            assert!(size(v.2) > 0.5 * whole && size(v.2) < 1.5 * whole, "{v:?} {want:?}");
            assert!((v.0 - want.weight).abs() < 0.15, "{v:?} {want:?}");
        }
    }
}
