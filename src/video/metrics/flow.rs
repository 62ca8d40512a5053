//! Optical flow without a network: Lucas-Kanade, dense, from coarse to fine.
//!
//! At each pixel the update of the flow solves `(Σ w ∇I ∇Iᵀ + λ) d = Σ w ∇I (I₀ − I₁(p + f))` over a
//! Gaussian window; where the picture is flat, what the coarser level said stays.

use rayon::prelude::*;

use crate::video::fit::resize;

/// Displacements in pixels, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Horizontal part, `[height, width]`.
    pub u: Vec<f32>,
    /// Vertical part.
    pub v: Vec<f32>,
}

/// Smallest side of the coarsest level.
const COARSEST: usize = 12;
/// Iterations a level.
const ITERATIONS: usize = 10;
/// Standard deviation of the window, pixels.
const SIGMA: f32 = 5.0;
/// Regularisation: the squared gradient below which a window counts as flat.
const FLAT: f32 = 2e-6;

impl Flow {
    /// No motion.
    pub fn zero(width: usize, height: usize) -> Self {
        Self { width, height, u: vec![0.0; width * height], v: vec![0.0; width * height] }
    }

    /// The flow `f` for which `to(p + f(p))` looks like `from(p)`; both are luma, `[height, width]`.
    pub fn estimate(from: &[f32], to: &[f32], width: usize, height: usize) -> Self {
        let mut levels = vec![(from.to_vec(), to.to_vec(), width, height)];
        while let Some((a, b, w, h)) = levels.last().filter(|l| l.2.min(l.3) >= 2 * COARSEST) {
            let size = (w.div_ceil(2), h.div_ceil(2));
            levels.push((resize(a, (*w, *h), size), resize(b, (*w, *h), size), size.0, size.1));
        }
        let mut flow: Option<Self> = None;
        for (a, b, w, h) in levels.iter().rev() {
            let mut current = flow.map_or_else(|| Self::zero(*w, *h), |f| f.upsampled(*w, *h));
            for _ in 0..ITERATIONS {
                current.refine(a, b);
            }
            flow = Some(current);
        }
        flow.unwrap_or_else(|| Self::zero(width, height))
    }

    fn upsampled(&self, width: usize, height: usize) -> Self {
        let scaled = |plane: &[f32], factor: f32| {
            let plane = resize(plane, (self.width, self.height), (width, height));
            plane.into_iter().map(|v| v * factor).collect()
        };
        let u = scaled(&self.u, width as f32 / self.width as f32);
        Self { width, height, u, v: scaled(&self.v, height as f32 / self.height as f32) }
    }

    /// One iteration.
    fn refine(&mut self, from: &[f32], to: &[f32]) {
        let (w, h) = (self.width, self.height);
        let moved = self.warp(to);
        let (gx, gy) = gradient(&moved, w, h);
        let product = |f: &(dyn Fn(usize) -> f32 + Sync)| blur(&(0..w * h).map(f).collect::<Vec<_>>(), w, h);
        let xx = product(&|i| gx[i] * gx[i]);
        let xy = product(&|i| gx[i] * gy[i]);
        let yy = product(&|i| gy[i] * gy[i]);
        let xt = product(&|i| gx[i] * (from[i] - moved[i]));
        let yt = product(&|i| gy[i] * (from[i] - moved[i]));
        for i in 0..w * h {
            let (a, b, c) = (xx[i] + FLAT, xy[i], yy[i] + FLAT);
            let determinant = a * c - b * b;
            let du = (c * xt[i] - b * yt[i]) / determinant;
            let dv = (a * yt[i] - b * xt[i]) / determinant;
            // A linear model holds for about a pixel.
            self.u[i] += du.clamp(-1.0, 1.0);
            self.v[i] += dv.clamp(-1.0, 1.0);
        }
    }

    /// `plane(p + f(p))`, bilinear; beyond the edge the last sample repeats.
    pub fn warp(&self, plane: &[f32]) -> Vec<f32> {
        let (w, h) = (self.width, self.height);
        let mut out = vec![0.0; w * h];
        out.par_chunks_mut(w.max(1)).enumerate().for_each(|(y, row)| {
            for (x, value) in row.iter_mut().enumerate() {
                let i = y * w + x;
                *value = sample(plane, w, h, x as f32 + self.u[i], y as f32 + self.v[i]);
            }
        });
        out
    }

    /// 1 where the motion is seen both ways, 0 where something is covered or leaves the picture:
    /// `|f + b(p + f)| ≤ 0.01 (|f| + |b(p + f)|) + 0.5`, with `b` the flow back.
    pub fn visible(&self, back: &Self) -> Vec<f32> {
        let (bu, bv) = (self.warp(&back.u), self.warp(&back.v));
        let (w, h) = (self.width, self.height);
        let inside = |p: f32, n: usize| (0.0..=(n - 1) as f32).contains(&p);
        (0..w * h)
            .map(|i| {
                let (x, y) = ((i % w) as f32 + self.u[i], (i / w) as f32 + self.v[i]);
                let (du, dv) = (self.u[i] + bu[i], self.v[i] + bv[i]);
                let lengths = self.u[i].hypot(self.v[i]) + bu[i].hypot(bv[i]);
                let seen = du.hypot(dv) <= 0.01 * lengths + 0.5 && inside(x, w) && inside(y, h);
                f32::from(u8::from(seen))
            })
            .collect()
    }
}

fn sample(plane: &[f32], w: usize, h: usize, x: f32, y: f32) -> f32 {
    let (x, y) = (x.clamp(0.0, (w - 1) as f32), y.clamp(0.0, (h - 1) as f32));
    let (x0, y0) = (x as usize, y as usize);
    let (x1, y1) = ((x0 + 1).min(w - 1), (y0 + 1).min(h - 1));
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let row = |y: usize| plane[y * w + x0] * (1.0 - fx) + plane[y * w + x1] * fx;
    row(y0) * (1.0 - fy) + row(y1) * fy
}

/// Central differences; one-sided at the edges.
fn gradient(plane: &[f32], w: usize, h: usize) -> (Vec<f32>, Vec<f32>) {
    let at = |x: usize, y: usize| plane[y * w + x];
    let (mut gx, mut gy) = (vec![0.0; w * h], vec![0.0; w * h]);
    for y in 0..h {
        for x in 0..w {
            let (l, r) = (x.saturating_sub(1), (x + 1).min(w - 1));
            let (t, b) = (y.saturating_sub(1), (y + 1).min(h - 1));
            gx[y * w + x] = (at(r, y) - at(l, y)) / (r - l).max(1) as f32;
            gy[y * w + x] = (at(x, b) - at(x, t)) / (b - t).max(1) as f32;
        }
    }
    (gx, gy)
}

/// A Gaussian window, separable, cut at three deviations, the edge repeated.
fn blur(plane: &[f32], w: usize, h: usize) -> Vec<f32> {
    let radius = (3.0 * SIGMA) as i64;
    let weights: Vec<f32> = (-radius..=radius).map(|k| (-0.5 * (k as f32 / SIGMA).powi(2)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    let clamped =
        |i: usize, k: usize, n: usize| (i as i64 + k as i64 - radius).clamp(0, n as i64 - 1) as usize;
    let mut rows = vec![0.0; w * h];
    rows.par_chunks_mut(w).zip(plane.par_chunks(w)).for_each(|(out, row)| {
        for (x, value) in out.iter_mut().enumerate() {
            *value = weights.iter().enumerate().map(|(k, g)| g * row[clamped(x, k, w)]).sum::<f32>() / sum;
        }
    });
    let mut out = vec![0.0; w * h];
    out.par_chunks_mut(w).enumerate().for_each(|(y, out)| {
        for (k, g) in weights.iter().enumerate() {
            let row = &rows[clamped(y, k, h) * w..][..w];
            out.iter_mut().zip(row).for_each(|(value, v)| *value += g * v / sum);
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A smooth texture that can be sampled anywhere.
    fn texture(x: f32, y: f32) -> f32 {
        0.5 + 0.2 * (0.31 * x + 0.17 * y).sin()
            + 0.15 * (0.23 * y - 0.11 * x + 1.0).cos()
            + 0.1 * (0.5 * x).sin() * (0.43 * y).cos()
    }

    fn picture(w: usize, h: usize, f: impl Fn(f32, f32) -> (f32, f32)) -> Vec<f32> {
        (0..w * h).map(|i| f((i % w) as f32, (i / w) as f32)).map(|(x, y)| texture(x, y)).collect()
    }

    /// Mean error of the flow away from the edges.
    fn error(flow: &Flow, truth: impl Fn(f32, f32) -> (f32, f32)) -> f32 {
        let (mut sum, mut n) = (0.0, 0);
        for y in 12..flow.height - 12 {
            for x in 12..flow.width - 12 {
                let (u, v) = truth(x as f32, y as f32);
                sum += (flow.u[y * flow.width + x] - u).hypot(flow.v[y * flow.width + x] - v);
                n += 1;
            }
        }
        sum / n as f32
    }

    #[test]
    fn translations_are_found_to_a_tenth_of_a_pixel() {
        for (u, v) in [(0.0, 0.0), (0.4, -0.3), (3.0, 2.0), (-6.5, 4.25)] {
            let from = picture(96, 72, |x, y| (x, y));
            let to = picture(96, 72, |x, y| (x - u, y - v));
            let flow = Flow::estimate(&from, &to, 96, 72);
            let e = error(&flow, |_, _| (u, v));
            assert!(e < 0.1, "({u}, {v}): {e}");
        }
    }

    #[test]
    fn a_zoom_is_found() {
        let from = picture(96, 96, |x, y| (x, y));
        let zoom = |p: f32| (p - 48.0) / 1.05 + 48.0;
        let to = picture(96, 96, |x, y| (zoom(x), zoom(y)));
        let flow = Flow::estimate(&from, &to, 96, 96);
        let e = error(&flow, |x, y| (0.05 * (x - 48.0), 0.05 * (y - 48.0)));
        assert!(e < 0.05, "{e}");
    }

    #[test]
    fn warping_by_whole_pixels_is_a_shift_and_by_none_is_nothing() {
        let plane = picture(20, 10, |x, y| (x, y));
        assert_eq!(Flow::zero(20, 10).warp(&plane), plane);
        let shift = Flow { u: vec![3.0; 200], ..Flow::zero(20, 10) };
        let moved = shift.warp(&plane);
        assert_eq!((moved[0], moved[19]), (plane[3], plane[19]), "the edge repeats");
    }

    #[test]
    fn what_leaves_the_picture_or_disagrees_is_not_visible() {
        let there = Flow { u: vec![2.0; 100], ..Flow::zero(10, 10) };
        let back = Flow { u: vec![-2.0; 100], ..Flow::zero(10, 10) };
        let seen = there.visible(&back);
        assert_eq!((seen[0], seen[7], seen[8]), (1.0, 1.0, 0.0));
        assert!(there.visible(&there).iter().all(|&v| v == 0.0));
    }
}
