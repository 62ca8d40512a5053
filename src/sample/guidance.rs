//! Guidance: one noise predictor out of a model asked under several conditionings.
//!
//! Classifier-free guidance here is `ε̂ = ε_∅ + s(ε_y − ε_∅)` and no other form (a scale of 1 is the
//! plain conditional model). Perp-Neg (Armandpour et al. 2023) is
//! `ε̂ = ε_∅ + s[e₊ + Σ wᵢ(eᵢ − ⟨eᵢ,e₊⟩/‖e₊‖²·e₊)]` with `e = ε − ε_∅` and wᵢ ≤ 0.

use candle_core::{D, Tensor};

use super::NoisePredictor;
use crate::prior::schedule::per_sample;
use crate::{Error, Result};

/// A conditioning that a model can be asked under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// The empty or negative prompt.
    Unconditional,
    /// The prompt.
    Conditional,
    /// The i-th view prompt to push away from (Perp-Neg).
    Negative(usize),
}

/// A model that estimates the noise under several conditionings in one pass.
pub trait ConditionedPredictor {
    /// `x_t` holds K blocks of B samples, `[K·B, …]`, and `t` K·B timesteps; block k is to be
    /// predicted under `branches[k]`, its sample b under that branch's b-th conditioning.
    ///
    /// # Errors
    /// What the model reports; a branch it has no conditioning for.
    fn predict(&self, x_t: &Tensor, t: &[f32], branches: &[Branch]) -> Result<Tensor>;
}

/// How the branches are combined.
#[derive(Debug, Clone, PartialEq)]
pub struct Guidance {
    /// Classifier-free guidance scale s.
    pub scale: f64,
    /// 0..=1: how far the guided ε is scaled back to the standard deviation of the conditional one
    /// (Lin et al. 2023, section 3.4).
    pub rescale: f64,
    /// Perp-Neg: for each sample, the weight of every negative branch (all of one length; empty for
    /// plain guidance).
    pub negatives: Vec<Vec<f64>>,
}

impl Guidance {
    /// Plain classifier-free guidance.
    pub fn scale(scale: f64) -> Self {
        Self { scale, rescale: 0.0, negatives: Vec::new() }
    }

    fn negative_count(&self) -> usize {
        self.negatives.first().map_or(0, Vec::len)
    }

    /// The branches to evaluate: those whose weight is not zero by construction.
    fn branches(&self) -> Vec<Branch> {
        let negatives = (0..self.negative_count()).map(Branch::Negative);
        let plain = self.negative_count() == 0 && self.rescale == 0.0;
        if plain && self.scale == 1.0 {
            vec![Branch::Conditional]
        } else if plain && self.scale == 0.0 {
            vec![Branch::Unconditional]
        } else {
            [Branch::Unconditional, Branch::Conditional].into_iter().chain(negatives).collect()
        }
    }

    fn check(&self, batch: usize) -> Result<()> {
        let count = self.negative_count();
        let fits = self.negatives.is_empty() || self.negatives.len() == batch;
        if !fits || self.negatives.iter().any(|w| w.len() != count) {
            return Err(Error::invalid(
                "perp-neg weights",
                format!("not one equal list for each of {batch} samples"),
            ));
        }
        if !self.scale.is_finite() || !(0.0..=1.0).contains(&self.rescale) {
            let why = format!("scale {} must be finite, rescale {} in 0..=1", self.scale, self.rescale);
            return Err(Error::invalid("guidance", why));
        }
        Ok(())
    }
}

/// A [`ConditionedPredictor`] under [`Guidance`]: a plain noise predictor.
pub struct Guided<'a> {
    /// The model.
    pub model: &'a dyn ConditionedPredictor,
    /// How to combine its answers.
    pub guidance: &'a Guidance,
}

impl NoisePredictor for Guided<'_> {
    fn predict(&self, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
        self.guidance.check(t.len())?;
        let branches = self.guidance.branches();
        if let [only] = branches[..] {
            return self.model.predict(x_t, t, &[only]);
        }
        let stacked = Tensor::cat(&vec![x_t; branches.len()], 0)?;
        let eps = self.model.predict(&stacked, &t.repeat(branches.len()), &branches)?;
        let blocks = eps.chunk(branches.len(), 0)?;
        combine(self.guidance, &blocks[0], &blocks[1], &blocks[2..])
    }
}

fn combine(guidance: &Guidance, uncond: &Tensor, cond: &Tensor, negatives: &[Tensor]) -> Result<Tensor> {
    let positive = (cond - uncond)?;
    let mut direction = positive.clone();
    for (i, negative) in negatives.iter().enumerate() {
        let away = perpendicular(&(negative - uncond)?, &positive)?;
        let weights = guidance.negatives.iter().map(|w| w[i]).collect();
        direction = (direction + away.broadcast_mul(&per_sample(weights, uncond)?)?)?;
    }
    let guided = (uncond + direction.affine(guidance.scale, 0.0)?)?;
    if guidance.rescale == 0.0 { Ok(guided) } else { rescale(&guided, cond, guidance.rescale) }
}

/// `e − ⟨e,p⟩/‖p‖²·p` for each sample; e itself where p vanishes.
fn perpendicular(e: &Tensor, p: &Tensor) -> Result<Tensor> {
    let (flat_e, flat_p) = (e.flatten_from(1)?, p.flatten_from(1)?);
    let inner = (&flat_e * &flat_p)?.sum_keepdim(D::Minus1)?;
    // The smallest normal number: 0/0 becomes 0 and nothing else changes.
    let square = flat_p.sqr()?.sum_keepdim(D::Minus1)?.maximum(f64::from(f32::MIN_POSITIVE))?;
    let along = flat_p.broadcast_mul(&(inner / square)?)?;
    Ok((flat_e - along)?.reshape(e.dims())?)
}

fn rescale(guided: &Tensor, cond: &Tensor, amount: f64) -> Result<Tensor> {
    let deviation = |x: &Tensor| -> Result<Tensor> {
        let flat = x.flatten_from(1)?;
        let centred = flat.broadcast_sub(&flat.mean_keepdim(D::Minus1)?)?;
        Ok(centred.sqr()?.mean_keepdim(D::Minus1)?.sqrt()?)
    };
    let ratio = (deviation(cond)? / deviation(guided)?.maximum(f64::from(f32::MIN_POSITIVE))?)?;
    let factor = ratio.affine(amount, 1.0 - amount)?;
    Ok(guided.flatten_from(1)?.broadcast_mul(&factor)?.reshape(guided.dims())?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::rng::{Rng, Stream};

    /// Answers with a fixed noise for each branch, and remembers nothing.
    struct Table([Tensor; 4]);

    impl Table {
        fn of(&self, branch: Branch) -> &Tensor {
            match branch {
                Branch::Unconditional => &self.0[0],
                Branch::Conditional => &self.0[1],
                Branch::Negative(i) => &self.0[2 + i],
            }
        }
    }

    impl ConditionedPredictor for Table {
        fn predict(&self, x_t: &Tensor, t: &[f32], branches: &[Branch]) -> Result<Tensor> {
            assert_eq!(x_t.dim(0)?, t.len());
            let blocks: Vec<&Tensor> = branches.iter().map(|b| self.of(*b)).collect();
            Ok(Tensor::cat(&blocks, 0)?)
        }
    }

    fn table() -> Table {
        Table([0, 1, 2, 3].map(|i| {
            let v: Vec<f64> =
                Rng::new(5, Stream::Probe, i).normals(0, 24).into_iter().map(f64::from).collect();
            Tensor::from_vec(v, (2, 3, 4), &Device::Cpu).unwrap()
        }))
    }

    fn guided(table: &Table, guidance: &Guidance) -> Tensor {
        let x = table.0[0].zeros_like().unwrap();
        Guided { model: table, guidance }.predict(&x, &[10.0, 20.0]).unwrap()
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn scale_one_is_conditional_zero_is_unconditional_and_the_rest_is_linear() {
        let table = table();
        let (u, c) = (table.of(Branch::Unconditional), table.of(Branch::Conditional));
        assert_eq!(distance(&guided(&table, &Guidance::scale(1.0)), c), 0.0);
        assert_eq!(distance(&guided(&table, &Guidance::scale(0.0)), u), 0.0);
        // The same two by the general formula, not by the short cut.
        for (scale, want) in [(1.0, c), (0.0, u)] {
            assert!(distance(&combine(&Guidance::scale(scale), u, c, &[]).unwrap(), want) < 1e-14);
        }
        let want = (u.affine(-6.5, 0.0).unwrap() + c.affine(7.5, 0.0).unwrap()).unwrap();
        assert!(distance(&guided(&table, &Guidance::scale(7.5)), &want) < 1e-13);
    }

    #[test]
    fn perp_neg_ignores_what_is_along_the_prompt() {
        let mut table = table();
        let weights = vec![vec![-1.5, -0.25], vec![0.0, -2.0]];
        let guidance = Guidance { scale: 3.0, rescale: 0.0, negatives: weights };
        let first = guided(&table, &guidance);
        let plain = guided(&table, &Guidance::scale(3.0));
        // What is added is perpendicular to e₊, sample by sample.
        let positive = (&table.0[1] - &table.0[0]).unwrap();
        let added = (&first - &plain).unwrap();
        assert!(distance(&first, &plain) > 0.1);
        let inner: Vec<f64> =
            (added * &positive).unwrap().flatten_from(1).unwrap().sum(1).unwrap().to_vec1().unwrap();
        assert!(inner.iter().all(|v| v.abs() < 1e-12), "{inner:?}");
        // Moving a negative along e₊ changes nothing; one equal to the prompt adds nothing.
        table.0[2] = (&table.0[2] + positive.affine(2.5, 0.0).unwrap()).unwrap();
        assert!(distance(&guided(&table, &guidance), &first) < 1e-12);
        table.0[2] = table.0[1].clone();
        table.0[3] = table.0[1].clone();
        assert!(distance(&guided(&table, &guidance), &plain) < 1e-12);
        assert!(
            Guided { model: &table, guidance: &Guidance { negatives: vec![vec![]; 3], ..guidance } }
                .predict(&table.0[0], &[1.0, 1.0])
                .is_err()
        );
    }

    #[test]
    fn full_rescale_restores_the_conditional_deviation() {
        let table = table();
        let deviation =
            |x: &Tensor| -> Vec<f64> { x.flatten_from(1).unwrap().var(1).unwrap().to_vec1().unwrap() };
        let full = guided(&table, &Guidance { rescale: 1.0, ..Guidance::scale(20.0) });
        for (a, b) in deviation(&full).iter().zip(deviation(&table.0[1])) {
            assert!((a / b - 1.0).abs() < 1e-12);
        }
    }
}
