//! UniPC (Zhao et al. 2023) in the data prediction with B(h) = e^{−h} − 1: a multistep predictor, and a
//! corrector of the same order that uses the evaluation at the predicted point, which the next step
//! needs anyway.

use candle_core::Tensor;

use super::{Level, Seen, Step, mix};
use crate::Result;

/// What the last prediction started from.
#[derive(Default)]
pub(super) struct Corrector {
    last: Option<(Tensor, Level, usize)>,
}

impl Corrector {
    /// `x`, once `now` has been evaluated at it, corrected; `past` ends with the evaluation before.
    pub(super) fn correct(&mut self, x: Tensor, now: &Seen, past: &[Seen]) -> Result<Tensor> {
        let Some((before, base, order)) = &self.last else { return Ok(x) };
        let m0 = &past[past.len() - 1].x0;
        let step = Integrals::new(*base, now.level, *order);
        let older: Vec<&Seen> = past.iter().rev().skip(1).take(order - 1).collect();
        let distances: Vec<f64> = older.iter().map(|e| step.distance(e.level)).chain([1.0]).collect();
        let weights = if *order == 1 { vec![0.5] } else { solve(&distances, &step.b) };
        let mut terms: Vec<(f64, &Seen, f64)> = Vec::new();
        for ((e, r), w) in older.iter().zip(&distances).zip(&weights) {
            terms.push((*w, e, *r));
        }
        terms.push((weights[*order - 1], now, 1.0));
        step.finish(before, m0, &terms)
    }

    /// The next point, of order `order` where there are evaluations and steps left for it.
    pub(super) fn predict(&mut self, s: &Step<'_>, order: usize) -> Result<Tensor> {
        let order = order.min(s.steps() - s.index).min(s.past.len() + 1);
        let step = Integrals::new(s.from, s.to, order);
        let older: Vec<&Seen> = s.past.iter().rev().take(order - 1).collect();
        let distances: Vec<f64> = older.iter().map(|e| step.distance(e.level)).collect();
        let weights = match order {
            1 => vec![],
            2 => vec![0.5],
            _ => solve(&distances, &step.b[..order - 1]),
        };
        let terms: Vec<(f64, &Seen, f64)> =
            older.iter().zip(&distances).zip(&weights).map(|((e, r), w)| (*w, *e, *r)).collect();
        self.last = Some((s.x.clone(), s.from, order));
        step.finish(s.x, &s.now.x0, &terms)
    }
}

/// The numbers of one step.
struct Integrals {
    base: Level,
    to: Level,
    h: f64,
    /// Right-hand sides: n!·φ_{n+1}(−h)·… / B(h), as in the paper's eq. 9.
    b: Vec<f64>,
}

impl Integrals {
    fn new(base: Level, to: Level, order: usize) -> Self {
        let h = to.lambda() - base.lambda();
        let hh = -h;
        let b_h = hh.exp_m1();
        let mut phi = b_h / hh - 1.0;
        let mut factorial = 1.0;
        let mut b = Vec::new();
        for i in 1..=order {
            b.push(phi * factorial / b_h);
            factorial *= (i + 1) as f64;
            phi = phi / hh - 1.0 / factorial;
        }
        Self { base, to, h, b }
    }

    fn distance(&self, level: Level) -> f64 {
        (level.lambda() - self.base.lambda()) / self.h
    }

    /// (σ'/σ)x − α'B·(m0 + Σ w (m − m0)/r).
    fn finish(&self, x: &Tensor, m0: &Tensor, terms: &[(f64, &Seen, f64)]) -> Result<Tensor> {
        let push = -self.to.alpha() * (-self.h).exp_m1();
        let mut y = mix(self.to.sigma() / self.base.sigma(), x, push, m0)?;
        for (w, e, r) in terms {
            let k = push * w / r;
            y = mix(1.0, &y, k, &mix(1.0, &e.x0, -1.0, m0)?)?;
        }
        Ok(y)
    }
}

/// Weights w with Σ_k r_kⁿ w_k = b_n for n = 0, 1, … (a Vandermonde system of at most three unknowns).
fn solve(r: &[f64], b: &[f64]) -> Vec<f64> {
    let n = r.len();
    let mut rows: Vec<Vec<f64>> =
        (0..n).map(|i| r.iter().map(|r| r.powi(i as i32)).chain([b[i]]).collect()).collect();
    for i in 0..n {
        let pivot = (i..n).max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs())).unwrap_or(i);
        rows.swap(i, pivot);
        let (above, below) = rows.split_at_mut(i + 1);
        let head = &above[i];
        for row in below {
            let f = row[i] / head[i];
            row.iter_mut().zip(head).for_each(|(x, h)| *x -= f * h);
        }
    }
    let mut w = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| rows[i][k] * w[k]).sum();
        w[i] = (rows[i][n] - known) / rows[i][i];
    }
    w
}
