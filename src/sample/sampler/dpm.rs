//! DPM-Solver and DPM-Solver++ of orders 1 to 3, multistep and singlestep, ODE and SDE.
//!
//! All are exponential integrators in λ = ln(α/σ): the linear part is solved exactly, the prediction
//! (of the noise, or of the data for "++") is replaced by its Taylor polynomial, whose derivatives D₁,
//! D₂ are divided differences over the last evaluations.

use candle_core::Tensor;

use super::{Seen, Step, mix};
use crate::Result;

/// What is expanded, and whether noise is added on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The noise prediction (DPM-Solver).
    Noise,
    /// The data prediction (DPM-Solver++).
    Data,
    /// The data prediction in the reverse SDE (SDE-DPM-Solver++).
    SdeData,
}

/// How a step takes its derivatives into account. Both are of second order in steps of order 2; for
/// multistep steps of order 3 only `Heun` is of third order, and `Midpoint` is what diffusers does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Midway {
    /// As if the prediction were constant at the step's middle.
    Midpoint,
    /// By the exact integral of the linear term.
    Heun,
}

/// A member of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dpm {
    /// See [`Algorithm`].
    pub algorithm: Algorithm,
    /// 1..=3.
    pub order: usize,
    /// Evaluations of earlier steps are used again; else steps come in groups of `order`, each group a
    /// method of that order on its own ("2S", "3S").
    pub multistep: bool,
    /// See [`Midway`].
    pub midway: Midway,
}

impl Dpm {
    /// DPM-Solver++(2M), the common choice for guided sampling.
    pub const PLUS_PLUS_2M: Self =
        Self { algorithm: Algorithm::Data, order: 2, multistep: true, midway: Midway::Midpoint };

    /// The order that a step may have: what there are evaluations for; the first order on arrival at
    /// the data (λ is infinite there), and for few steps a falling order at the end.
    fn order_at(&self, s: &Step<'_>) -> usize {
        let left = s.steps() - s.index;
        let path = s.trajectory;
        let arrives = path.levels[path.levels.len() - 1].alpha_bar >= 1.0;
        if !self.multistep {
            return singlestep_order(s.index, s.steps(), self.order, arrives);
        }
        let few = s.steps() < 15;
        if left == 1 && (arrives || few) {
            return 1;
        }
        let most = if few && left == 2 { 2 } else { 3 };
        self.order.min(most).min(s.past.len() + 1)
    }

    pub(super) fn step(&self, s: &Step<'_>, start: &mut Option<Tensor>) -> Result<Tensor> {
        let order = self.order_at(s);
        let mut seen: Vec<&Seen> = s.past.iter().collect();
        seen.push(&s.now);
        let seen = &seen[seen.len() - order..];
        if self.multistep {
            let newest: Vec<&Seen> = seen.iter().rev().copied().collect();
            return self.advance(s, s.x, &newest, order);
        }
        // A group's steps all start where its first did.
        if order == 1 {
            *start = Some(s.x.clone());
        }
        let x = start.clone().unwrap_or_else(|| s.x.clone());
        self.advance(s, &x, seen, order)
    }

    /// From `x` at `seen[0]`'s level to `s.to`, with the evaluations `seen`, the expansion's point first.
    fn advance(&self, s: &Step<'_>, x: &Tensor, seen: &[&Seen], order: usize) -> Result<Tensor> {
        let base = seen[0].level;
        let h = s.to.lambda() - base.lambda();
        let value = |e: &Seen| if self.algorithm == Algorithm::Noise { e.eps.clone() } else { e.x0.clone() };
        let m0 = value(seen[0]);
        let [c0, c1, c2] = self.coefficients(h);
        if order == 1 {
            return self.finish(s, x, base, &[(c0, m0)]);
        }
        // Distances in λ from the expansion's point, in steps h.
        let r = |e: &Seen| (e.level.lambda() - base.lambda()) / h;
        let slope = |e: &Seen| -> Result<Tensor> { mix(1.0 / r(e), &value(e), -1.0 / r(e), &m0) };
        let first = slope(seen[1])?;
        if order == 2 {
            let c1 = if self.midway == Midway::Midpoint { 0.5 * c0 } else { c1 };
            return self.finish(s, x, base, &[(c0, m0), (c1, first)]);
        }
        // (DPM-Solver's own multistep code, and diffusers after it, halves D₂: of second order only. That
        // is `Midpoint` here.)
        let c2 = if self.multistep && self.midway == Midway::Midpoint { 0.5 * c2 } else { c2 };
        let (r1, r2) = (r(seen[1]), r(seen[2]));
        if !self.multistep && self.midway == Midway::Midpoint {
            // One slope, over the longer distance, is enough for the third order of the group.
            return self.finish(s, x, base, &[(c0, m0.clone()), (c1, slope(seen[2])?)]);
        }
        // Newton's divided differences: value ≈ m0 + D₁τ + D₂τ²/2 at distance τ.
        let second = slope(seen[2])?;
        let d2 = mix(2.0 / (r2 - r1), &second, -2.0 / (r2 - r1), &first)?;
        let d1 = mix(1.0, &first, -0.5 * r1, &d2)?;
        self.finish(s, x, base, &[(c0, m0), (c1, d1), (c2, d2)])
    }

    /// Integrals over a step of λ-length h of 1, τ and τ²/2 (τ from 0 to 1) against the exponential
    /// weight, in units of α' (data) or −σ' (noise).
    fn coefficients(&self, h: f64) -> [f64; 3] {
        // ∫ e^{−z(1−τ)} z τⁿ/n! dτ by parts.
        let data = |z: f64| {
            let e = -(-z).exp_m1();
            if z.is_infinite() { [1.0, 1.0, 0.5] } else { [e, 1.0 - e / z, 0.5 - (z - e) / (z * z)] }
        };
        match self.algorithm {
            Algorithm::Data => data(h),
            Algorithm::SdeData => data(2.0 * h),
            Algorithm::Noise => {
                let e = h.exp_m1();
                [e, e / h - 1.0, (e - h) / (h * h) - 0.5]
            }
        }
    }

    fn finish(
        &self,
        s: &Step<'_>,
        x: &Tensor,
        base: super::Level,
        terms: &[(f64, Tensor)],
    ) -> Result<Tensor> {
        let h = s.to.lambda() - base.lambda();
        let (keep, unit) = match self.algorithm {
            Algorithm::Noise if h.is_infinite() => {
                // σ'(e^h − 1) is 0·∞ on arrival: its limit is the data prediction's step.
                let (a, b) = (s.to.alpha() / base.alpha(), -s.to.alpha() * base.ratio());
                return mix(a, x, b, &terms[0].1);
            }
            Algorithm::Noise => (s.to.alpha() / base.alpha(), -s.to.sigma()),
            Algorithm::Data => (s.to.sigma() / base.sigma(), s.to.alpha()),
            Algorithm::SdeData => (s.to.sigma() / base.sigma() * (-h).exp(), s.to.alpha()),
        };
        let mut y = x.affine(keep, 0.0)?;
        for (c, term) in terms {
            y = mix(1.0, &y, unit * c, term)?;
        }
        match self.algorithm {
            Algorithm::SdeData => s.add_noise(y, s.to.sigma() * (-(-2.0 * h).exp_m1()).sqrt()),
            _ => Ok(y),
        }
    }
}

/// Orders 1, 2, …, 1, 2, … of singlestep solvers, as diffusers lists them for a trajectory that arrives at
/// the data: the last step is of order 1, and what is left over before it forms a smaller group.
fn singlestep_order(index: usize, steps: usize, order: usize, arrives: bool) -> usize {
    let place = index % order + 1;
    if !arrives {
        return place;
    }
    // A last group of full length loses its last place to a step of order 1.
    if index + 1 == steps { 1 } else { place }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singlestep_orders_are_those_of_diffusers() {
        let list = |n, order| (0..n).map(|i| singlestep_order(i, n, order, true)).collect::<Vec<_>>();
        assert_eq!(list(6, 2), [1, 2, 1, 2, 1, 1]);
        assert_eq!(list(5, 2), [1, 2, 1, 2, 1]);
        assert_eq!(list(6, 3), [1, 2, 3, 1, 2, 1]);
        assert_eq!(list(7, 3), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(list(8, 3), [1, 2, 3, 1, 2, 3, 1, 1]);
        assert_eq!((0..4).map(|i| singlestep_order(i, 4, 2, false)).collect::<Vec<_>>(), [1, 2, 1, 2]);
    }
}
