//! Values all over a box, as a sum of grids of several resolutions, each read trilinearly: smooth across
//! the seams of any texture, and coarse colours are found before fine ones.

use glam::Vec3;
use rayon::prelude::*;

use crate::field::AdamConfig;
use crate::generate::checkpoint::State;
use crate::{Error, Result};

/// Cells along a side of the coarsest grid.
const COARSEST: u32 = 8;

/// Grids over [-1, 1]³ and their optimiser.
pub(super) struct Grid {
    channels: usize,
    /// Cells along a side, and where its numbers begin.
    levels: Vec<(u32, usize)>,
    values: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    steps: f32,
}

/// Where a point reads a grid: corners (as vertex numbers) and their weights.
#[derive(Debug, Clone, Copy)]
struct Tap {
    corners: [u32; 8],
    weights: [f32; 8],
}

/// Where points read all grids, `[points, levels]`.
pub(super) struct Taps(Vec<Tap>);

impl Grid {
    /// Grids of 8, 16, 32 … up to `finest` cells along a side, all zero.
    pub(super) fn new(channels: usize, finest: u32) -> Self {
        let (mut levels, mut end, mut side) = (Vec::new(), 0, COARSEST.min(finest));
        loop {
            levels.push((side, end));
            end += channels * (side as usize + 1).pow(3);
            if side >= finest {
                break;
            }
            side = (2 * side).min(finest);
        }
        let zeros = || vec![0.0; end];
        Self { channels, levels, values: zeros(), first: zeros(), second: zeros(), steps: 0.0 }
    }

    /// Bytes of grids of these sizes.
    pub(super) fn memory(channels: usize, finest: u32) -> u64 {
        // Each level has at most an eighth (and a bit) of the next one's vertices; values, moments, gradient.
        16 * channels as u64 * u64::from(finest + 1).pow(3) * 3 / 2
    }

    /// Where `points` read.
    pub(super) fn taps(&self, points: &[Vec3]) -> Taps {
        let one = |p: &Vec3| self.levels.iter().map(|(side, _)| tap(*p, *side)).collect::<Vec<_>>();
        Taps(points.par_iter().flat_map_iter(one).collect())
    }

    /// The values at points, `[points, channels]`.
    pub(super) fn read(&self, taps: &Taps) -> Vec<f32> {
        let n = self.levels.len();
        taps.0
            .par_chunks(n)
            .flat_map_iter(|taps| {
                (0..self.channels).map(move |c| {
                    let level = |((_, start), tap): (&(u32, usize), &Tap)| -> f32 {
                        (0..8).map(|k| tap.weights[k] * self.values[self.at(*start, tap.corners[k], c)]).sum()
                    };
                    self.levels.iter().zip(taps).map(level).sum::<f32>()
                })
            })
            .collect()
    }

    fn at(&self, start: usize, corner: u32, channel: usize) -> usize {
        start + corner as usize * self.channels + channel
    }

    /// The gradient by all numbers from the gradient by [`Self::read`]'s values. Each level is summed
    /// in the order of the points.
    pub(super) fn pull_back(&self, taps: &Taps, by_values: &[f32]) -> Vec<f32> {
        let (n, channels) = (self.levels.len(), self.channels);
        let levels: Vec<Vec<f32>> = (0..n)
            .into_par_iter()
            .map(|level| {
                let mut sum = vec![0.0; channels * (self.levels[level].0 as usize + 1).pow(3)];
                for (taps, by) in taps.0.chunks_exact(n).zip(by_values.chunks_exact(channels)) {
                    let tap = &taps[level];
                    for (corner, weight) in tap.corners.iter().zip(tap.weights) {
                        let at = *corner as usize * channels;
                        for (sum, by) in sum[at..at + channels].iter_mut().zip(by) {
                            *sum += weight * by;
                        }
                    }
                }
                sum
            })
            .collect();
        levels.concat()
    }

    /// A step of Adam. Numbers without a gradient so far stay where they are.
    pub(super) fn step(&mut self, gradient: &[f32], rate: f32, adam: &AdamConfig) {
        self.steps += 1.0;
        let unbias = [1.0 - adam.beta1.powf(self.steps), 1.0 - adam.beta2.powf(self.steps)];
        let all = self.values.par_iter_mut().zip(&mut self.first).zip(&mut self.second).zip(gradient);
        all.for_each(|(((value, m), v), g)| {
            *m += (1.0 - adam.beta1) * (g - *m);
            *v += (1.0 - adam.beta2) * (g * g - *v);
            if *v > 0.0 {
                *value -= rate * (*m / unbias[0]) / ((*v / unbias[1]).sqrt() + adam.eps);
            }
        });
    }

    pub(super) fn state(&self) -> State {
        State::from([
            ("texture.values".to_owned(), self.values.clone()),
            ("texture.first".to_owned(), self.first.clone()),
            ("texture.second".to_owned(), self.second.clone()),
            ("texture.steps".to_owned(), vec![self.steps]),
        ])
    }

    /// # Errors
    /// If something is missing or has another length.
    pub(super) fn load_state(&mut self, state: &State) -> Result<()> {
        let get = |name: &str, length: usize| match state.get(name) {
            Some(data) if data.len() == length => Ok(data.clone()),
            _ => Err(Error::Failed(format!("the checkpoint has no `{name}` of {length} numbers"))),
        };
        let n = self.values.len();
        let (values, first, second) =
            (get("texture.values", n)?, get("texture.first", n)?, get("texture.second", n)?);
        self.steps = get("texture.steps", 1)?[0];
        (self.values, self.first, self.second) = (values, first, second);
        Ok(())
    }
}

fn tap(p: Vec3, side: u32) -> Tap {
    let x = (0.5 * p.clamp(Vec3::NEG_ONE, Vec3::ONE) + 0.5) * side as f32;
    let cell = x.floor().min(Vec3::splat(side as f32 - 1.0));
    let (f, low) = (x - cell, cell.as_uvec3());
    let row = side + 1;
    let mut tap = Tap { corners: [0; 8], weights: [0.0; 8] };
    for k in 0..8u32 {
        let [dx, dy, dz] = [k & 1, k >> 1 & 1, k >> 2];
        tap.corners[k as usize] = ((low.z + dz) * row + low.y + dy) * row + low.x + dx;
        let along = |d: u32, f: f32| if d == 1 { f } else { 1.0 - f };
        tap.weights[k as usize] = along(dx, f.x) * along(dy, f.y) * along(dz, f.z);
    }
    tap
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    fn points(n: u64) -> Vec<Vec3> {
        let rng = Rng::new(3, Stream::Probe, 1);
        (0..n).map(|i| Vec3::from_array([0, 1, 2].map(|k| rng.range(3 * i + k, -1.0, 1.0)))).collect()
    }

    #[test]
    fn the_gradient_is_the_transpose_and_adam_finds_a_linear_function() {
        let points = points(300);
        let mut grid = Grid::new(2, 16);
        let taps = grid.taps(&points);
        let rng = Rng::new(4, Stream::Probe, 2);
        let mut i = 0;
        grid.values.iter_mut().for_each(|v| {
            i += 1;
            *v = rng.range(i, -1.0, 1.0);
        });
        // ⟨J v, w⟩ = ⟨v, Jᵀ w⟩.
        let w: Vec<f32> = (0..600).map(|k| rng.range(100_000 + k, -1.0, 1.0)).collect();
        let sum =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let (there, back) = (sum(&grid.read(&taps), &w), sum(&grid.values, &grid.pull_back(&taps, &w)));
        assert!((there - back).abs() < 1e-3, "{there} {back}");
        // Squared error to x + 2y and z.
        let wanted: Vec<f32> = points.iter().flat_map(|p| [p.x + 2.0 * p.y, p.z]).collect();
        let mut error = 0.0;
        for _ in 0..400 {
            let by: Vec<f32> = grid.read(&taps).iter().zip(&wanted).map(|(a, b)| a - b).collect();
            error = sum(&by, &by) / 600.0;
            let gradient = grid.pull_back(&taps, &by);
            grid.step(&gradient, 0.02, &AdamConfig::default());
        }
        assert!(error < 1e-4, "{error}");
    }

    #[test]
    fn weights_sum_to_one_everywhere_and_the_state_comes_back() {
        for p in points(50).into_iter().chain([Vec3::ONE, Vec3::NEG_ONE, Vec3::splat(7.0)]) {
            let tap = tap(p, 8);
            assert!((tap.weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(tap.corners.iter().all(|c| *c < 729) && tap.weights.iter().all(|w| *w >= 0.0));
        }
        let mut grid = Grid::new(1, 12);
        assert_eq!(grid.levels.iter().map(|l| l.0).collect::<Vec<_>>(), [8, 12]);
        let taps = grid.taps(&points(9));
        grid.step(&grid.pull_back(&taps, &[1.0; 9]), 0.1, &AdamConfig::default());
        let mut other = Grid::new(1, 12);
        other.load_state(&grid.state()).unwrap();
        assert_eq!(other.state(), grid.state());
        assert!(Grid::new(2, 12).load_state(&grid.state()).is_err());
    }
}
