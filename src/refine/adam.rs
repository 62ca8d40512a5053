//! Adam on the few numbers of a lattice that have a gradient.
//!
//! Only what the surface passes is touched: a number without a gradient keeps its value and its moments, so
//! that a step costs what the surface costs and not what the lattice does. Values are rounded to single
//! precision, so that a checkpoint holds them exactly.
//!
//! Adam moves every number equally far however small its gradient. On a lattice most gradients at a time are
//! those of regularisers alone, thousands of times smaller than those of what the pictures show, and would shake
//! the surface everywhere. So what is added to the root of a number's mean square is a share of the root mean
//! square over all numbers.

use rayon::prelude::*;

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.99;
/// That share.
const DAMPING: f32 = 0.1;
/// Numbers of one task.
const CHUNK: usize = 1 << 14;

/// First and second moments.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Moments {
    pub(super) m: Vec<f32>,
    pub(super) v: Vec<f32>,
    /// Second moment over all numbers that had a gradient.
    pub(super) all: f32,
}

impl Moments {
    pub(super) fn new(len: usize) -> Self {
        Self { m: vec![0.0; len], v: vec![0.0; len], all: 0.0 }
    }

    /// Room for more numbers, without moments.
    pub(super) fn grow(&mut self, len: usize) {
        self.m.resize(len.max(self.m.len()), 0.0);
        self.v.resize(len.max(self.v.len()), 0.0);
    }
}

/// One step's size: the learning rate, the corrections of step `t` (from 1), and what is added to the root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    rate: f32,
    unbias: [f32; 2],
    damping: f32,
}

impl Pace {
    /// Also takes the gradients' mean square into `moments`.
    pub(super) fn new(rate: f32, t: u32, gradients: &[f64], moments: &mut Moments) -> Self {
        let t = t as i32;
        let unbias = [1.0 - f64::from(BETA1).powi(t), 1.0 - f64::from(BETA2).powi(t)].map(|x| x as f32);
        // Chunk by chunk in order: the sum does not depend on the threads.
        let sum = |g: &[f64]| {
            let live = g.iter().filter(|g| **g != 0.0 && g.is_finite());
            live.fold((0.0, 0u32), |(sum, n), g| (sum + g * g, n + 1))
        };
        let parts: Vec<(f64, u32)> = gradients.par_chunks(CHUNK).map(sum).collect();
        let (sum, n) = parts.into_iter().fold((0.0, 0u32), |a, b| (a.0 + b.0, a.1 + b.1));
        moments.all = BETA2 * moments.all + (1.0 - BETA2) * (sum / f64::from(n.max(1))) as f32;
        let damping = DAMPING * (moments.all / unbias[1]).sqrt().max(f32::MIN_POSITIVE);
        Self { rate, unbias, damping }
    }

    /// Moves one number.
    pub(super) fn update(&self, x: &mut f64, g: f64, m: &mut f32, v: &mut f32) {
        let g = g as f32;
        if g == 0.0 || !g.is_finite() {
            return;
        }
        *m = BETA1 * *m + (1.0 - BETA1) * g;
        *v = BETA2 * *v + (1.0 - BETA2) * g * g;
        let by = self.rate * (*m / self.unbias[0]) / ((*v / self.unbias[1]).sqrt() + self.damping);
        *x = f64::from((*x - f64::from(by)) as f32);
    }

    /// Moves all numbers that have a gradient.
    pub(super) fn apply(&self, x: &mut [f64], g: &[f64], moments: &mut Moments) {
        let moments = moments.m.par_chunks_mut(CHUNK).zip(moments.v.par_chunks_mut(CHUNK));
        x.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(moments).for_each(|((x, g), (m, v))| {
            for (((x, g), m), v) in x.iter_mut().zip(g).zip(m).zip(v) {
                self.update(x, *g, m, v);
            }
        });
    }
}
