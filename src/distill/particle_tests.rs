//! The difference between seeking a mode and sampling: 16 particles in the plane under a Gaussian with
//! correlated coordinates, of which mean and covariance are known.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};

use super::tests::{schedule, values};
use super::*;
use crate::Result;
use crate::bench::particles::{Blob, Blobs, covariance};
use crate::prior::nn::adam::{AdamConfig, AdamW};
use crate::prior::schedule::Schedule;
use crate::rng::{Rng, Stream};
use crate::sample::{NoisePredictor, normal_like};

const MEAN: [f64; 2] = [0.7, -0.4];
/// xx, xy, yy.
const COVARIANCE: [f64; 3] = [0.5, 0.25, 0.3];

fn start() -> Tensor {
    let like = Tensor::zeros((16, 2), DType::F64, &Device::Cpu).unwrap();
    normal_like(&like, &Rng::new(6, Stream::Probe, 0)).unwrap()
}

fn sds() -> Sds {
    let config = SdsConfig { weighting: Weighting::One, ..SdsConfig::default() };
    Sds::new(schedule(), config).unwrap()
}

fn at(step: u32, steps: u32) -> At {
    At { step, progress: f64::from(step) / f64::from(steps), seed: 2 }
}

/// Largest distance of mean and covariance from the prior's.
fn off(z: &Tensor) -> (f64, f64) {
    let (mean, spread) = covariance(&values(z));
    let far = |a: &[f64], b: &[f64]| a.iter().zip(b).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
    (far(&mean, &MEAN), far(&spread, &COVARIANCE))
}

/// Gradient descent on the sum over particles, the rate falling as 1/k.
fn descend(z: Tensor, steps: u32, mut gradient: impl FnMut(&Tensor, u32) -> Tensor) -> Tensor {
    (0..steps).fold(z, |z, step| {
        let rate = 16.0 * 8.0 / (40.0 + f64::from(step));
        (&z - (gradient(&z, step) * rate).unwrap()).unwrap()
    })
}

#[test]
fn variational_particles_find_mean_and_covariance_where_sds_collapses() {
    let (sds, schedule) = (sds(), schedule());
    let prior = Blobs::new(&schedule, vec![Blob { weight: 1.0, mean: MEAN, covariance: COVARIANCE }]);
    let steps = 1500;
    let collapsed = descend(start(), steps, |z, step| {
        let at = at(step, steps);
        sds.gradient(z, &prior, at.step, at.progress, at.seed).unwrap().gradient
    });
    let (mean, spread) = covariance(&values(&collapsed));
    // The rest is SGD's noise; the prior's variances are .5 and .3.
    assert!(spread[0] < 0.02 && spread[2] < 0.02, "{spread:?}");
    // Sixteen averaged remainders of √.02: five standard errors are .18.
    assert!((mean[0] - MEAN[0]).abs() < 0.18 && (mean[1] - MEAN[1]).abs() < 0.18, "{mean:?}");
    // With the exact score of the Gaussian that has the particles' own moments, both answers fluctuate
    // with the same noise: at the fixed point the gradient is zero, not only on average.
    let sampled = descend(start(), steps, |z, step| {
        let (mean, covariance) = covariance(&values(z));
        let own = Blobs::new(&schedule, vec![Blob { weight: 1.0, mean, covariance }]);
        sds.variational(z, &prior, &own, at(step, steps)).unwrap().gradient
    });
    let (mean, spread) = off(&sampled);
    assert!(mean < 1e-3 && spread < 2e-3, "{mean} {spread}");
}

/// ε_φ of a Gaussian whose mean and Cholesky factor are learned from the particles by denoising.
struct Learned<'a> {
    schedule: &'a Schedule,
    /// m₀, m₁, l₀₀, l₁₀, l₁₁.
    var: Var,
    adam: AdamW,
}

impl<'a> Learned<'a> {
    fn new(schedule: &'a Schedule) -> Self {
        let var = Var::from_vec(vec![0f32, 0.0, 1.0, 0.0, 1.0], 5, &Device::Cpu).unwrap();
        let vars = BTreeMap::from([("gaussian".to_owned(), var.clone())]);
        let config = AdamConfig { weight_decay: 0.0, ..AdamConfig::default() };
        Self { schedule, var, adam: AdamW::new(vars, config).unwrap() }
    }

    /// min E‖ε_φ(α z + σ ε′, t′) − ε′‖².
    fn learn(&mut self, z: &Tensor, step: u32, rate: f64) {
        let (rows, z) = (z.dim(0).unwrap(), z.to_dtype(DType::F32).unwrap());
        // Many levels and draws a step: what is learned is then close to the best of the family.
        let z = z.repeat((16, 1)).unwrap();
        let n = 16 * rows;
        let rng = Rng::new(9, Stream::Timestep, step);
        let t: Vec<f32> = (0..n as u64).map(|i| rng.below(i, 1000) as f32).collect();
        let noise = normal_like(&z, &Rng::new(9, Stream::Noise, step)).unwrap();
        let x = self.schedule.add_noise(&z, &noise, &t).unwrap();
        let off = (self.predict(&x, &t).unwrap() - noise).unwrap();
        let grads = off.sqr().unwrap().mean_all().unwrap().backward().unwrap();
        self.adam.step(&grads, rate).unwrap();
    }
}

impl NoisePredictor for Learned<'_> {
    fn predict(&self, x: &Tensor, t: &[f32]) -> Result<Tensor> {
        let dtype = x.dtype();
        let x = x.to_dtype(DType::F32)?;
        let (alpha, sigma) = self.schedule.coefficients(t, &x)?;
        let p = |i: usize| self.var.narrow(0, i, 1);
        let (a2, s2) = (alpha.sqr()?, sigma.sqr()?);
        let grown = |c: &Tensor| -> Result<Tensor> { Ok(a2.broadcast_mul(c)?) };
        let xx = (grown(&p(2)?.sqr()?)? + &s2)?;
        let xy = grown(&(p(2)? * p(3)?)?)?;
        let yy = (grown(&(p(3)?.sqr()? + p(4)?.sqr()?)?)? + &s2)?;
        let determinant = ((&xx * &yy)? - xy.sqr()?)?;
        let off = |i: usize| -> Result<Tensor> { Ok((x.narrow(1, i, 1)? - alpha.broadcast_mul(&p(i)?)?)?) };
        let (dx, dy) = (off(0)?, off(1)?);
        let first = ((&yy * &dx)? - (&xy * &dy)?)?;
        let second = ((&xx * &dy)? - (&xy * &dx)?)?;
        let both = Tensor::cat(&[first, second], 1)?.broadcast_div(&determinant)?;
        Ok(both.broadcast_mul(&sigma)?.to_dtype(dtype)?)
    }
}

#[test]
fn a_learned_estimate_of_the_particles_serves_as_well_as_the_exact_one() {
    let (sds, schedule) = (sds(), schedule());
    let prior = Blobs::new(&schedule, vec![Blob { weight: 1.0, mean: MEAN, covariance: COVARIANCE }]);
    let mut own = Learned::new(&schedule);
    // The first estimates are of where the particles begin.
    (0..200).for_each(|step| own.learn(&start(), step, 0.02));
    let steps = 1500;
    let sampled = descend(start(), steps, |z, step| {
        let got = sds.variational(z, &prior, &own, at(step, steps)).unwrap().gradient;
        own.learn(z, 200 + step, 0.02 * (1.0 - f64::from(step) / f64::from(steps)));
        got
    });
    // A denoising step sees 256 draws; what Adam averages of them leaves a few hundredths.
    let (mean, spread) = off(&sampled);
    assert!(mean < 0.05 && spread < 0.06, "{mean} {spread}: {:?}", covariance(&values(&sampled)));
}

#[test]
fn in_the_limit_of_one_exactly_known_particle_variational_is_sds() {
    let (sds, schedule) = (sds(), schedule());
    let prior = Blobs::new(&schedule, vec![Blob { weight: 1.0, mean: MEAN, covariance: COVARIANCE }]);
    let z = start().narrow(0, 0, 1).unwrap();
    let at_z = values(&z);
    let point = Blob { weight: 1.0, mean: [at_z[0], at_z[1]], covariance: [0.0; 3] };
    let own = Blobs::new(&schedule, vec![point]);
    let a = sds.variational(&z, &prior, &own, at(5, 10)).unwrap().gradient;
    let b = sds.gradient(&z, &prior, 5, 0.5, 2).unwrap().gradient;
    let far = values(&(a - &b).unwrap()).iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(far < 1e-12 && values(&b)[0].abs() > 1e-3, "{far}");
}
