//! The picture's motion as one translation a frame, for noise that follows it (Text2Video-Zero).

use candle_core::Tensor;

use crate::Result;
use crate::rng::{Rng, Stream};

/// Farthest translation between two frames, in cells of the grid that is searched.
const REACH: i64 = 4;

/// Brightness `[h·w]` of a frame `[3, H, W]`, averaged over cells so that the longer side has at most 64.
pub(super) struct Luma {
    values: Vec<f32>,
    width: i64,
    height: i64,
    /// Pixels a cell.
    pub(super) cell: usize,
}

impl Luma {
    pub(super) fn new(frame: &Tensor) -> Result<Self> {
        let (_, h, w) = frame.dims3()?;
        let cell = h.max(w).div_ceil(64);
        let (rows, columns) = (h / cell, w / cell);
        let plane = frame.mean(0)?.to_vec2::<f32>()?;
        let mut values = vec![0f32; rows * columns];
        for y in 0..rows * cell {
            for x in 0..columns * cell {
                values[y / cell * columns + x / cell] += plane[y][x];
            }
        }
        Ok(Self { values, width: columns as i64, height: rows as i64, cell })
    }

    /// Mean square difference to `next` moved back by (dx, dy), over what both show.
    fn difference(&self, next: &Self, dx: i64, dy: i64) -> f64 {
        let (mut sum, mut count) = (0f64, 0f64);
        for y in 0.max(-dy)..self.height.min(self.height - dy) {
            for x in 0.max(-dx)..self.width.min(self.width - dx) {
                let a = self.values[(y * self.width + x) as usize];
                let b = next.values[((y + dy) * self.width + x + dx) as usize];
                sum += f64::from(a - b).powi(2);
                count += 1.0;
            }
        }
        if count > 0.0 { sum / count } else { f64::INFINITY }
    }

    /// The translation (right, down) in pixels from this frame to `next`, by exhaustive search with a
    /// parabola through the best cell's neighbours.
    pub(super) fn motion(&self, next: &Self) -> (f64, f64) {
        let mut best = (self.difference(next, 0, 0), 0, 0);
        for dy in -REACH..=REACH {
            for dx in -REACH..=REACH {
                let found = self.difference(next, dx, dy);
                if found < best.0 {
                    best = (found, dx, dy);
                }
            }
        }
        let (centre, dx, dy) = best;
        let peak = |low: f64, high: f64| {
            let curve = low - 2.0 * centre + high;
            if curve > 0.0 && curve.is_finite() { (0.5 * (low - high) / curve).clamp(-0.5, 0.5) } else { 0.0 }
        };
        let at = |x: i64, y: i64| self.difference(next, x, y);
        let fine_x = if centre == 0.0 { 0.0 } else { peak(at(dx - 1, dy), at(dx + 1, dy)) };
        let fine_y = if centre == 0.0 { 0.0 } else { peak(at(dx, dy - 1), at(dx, dy + 1)) };
        ((dx as f64 + fine_x) * self.cell as f64, (dy as f64 + fine_y) * self.cell as f64)
    }
}

/// Standard normal noise `[c, h, w]` moved (right, down) by whole cells, around the edges: still white.
pub(super) fn noise(shape: (usize, usize, usize), seed: u64, (dx, dy): (i64, i64)) -> Vec<f32> {
    let (c, h, w) = shape;
    let values = Rng::new(seed, Stream::Sampler, 0).normals(0, c * h * w);
    let mut out = vec![0f32; values.len()];
    for plane in 0..c {
        for y in 0..h {
            let from_y = (y as i64 - dy).rem_euclid(h as i64) as usize;
            for x in 0..w {
                let from_x = (x as i64 - dx).rem_euclid(w as i64) as usize;
                out[(plane * h + y) * w + x] = values[(plane * h + from_y) * w + from_x];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// A smooth picture, moved by (dx, dy) pixels.
    fn picture(dx: f32, dy: f32) -> Luma {
        let value = |i: usize| {
            let (x, y) = ((i % 40) as f32 - dx, (i / 40 % 30) as f32 - dy);
            (0.31 * x).sin() + (0.23 * y + 0.05 * x).cos()
        };
        let frame = Tensor::from_vec((0..3 * 1200).map(value).collect::<Vec<_>>(), (3, 30, 40), &Device::Cpu);
        Luma::new(&frame.unwrap()).unwrap()
    }

    #[test]
    fn translations_are_found_and_noise_moves_with_them() {
        for (dx, dy) in [(0.0, 0.0), (2.0, -1.0), (-3.0, 2.0), (0.5, 0.25)] {
            let (x, y) = picture(0.0, 0.0).motion(&picture(dx, dy));
            assert!(
                (x - f64::from(dx)).abs() < 0.15 && (y - f64::from(dy)).abs() < 0.15,
                "{dx} {dy}: {x} {y}"
            );
        }
        let (still, moved) = (noise((2, 4, 5), 7, (0, 0)), noise((2, 4, 5), 7, (2, -1)));
        assert_eq!(moved[5 + 3], still[2 * 5 + 1]);
        let sorted = |mut v: Vec<f32>| {
            v.sort_by(f32::total_cmp);
            v
        };
        assert_eq!(sorted(still), sorted(moved));
    }
}
