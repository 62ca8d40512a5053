//! Bilinear sampling of pictures: backward warping by a flow, and scaling.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::real::Real;
use super::tape::{self, Arg, Layer};

/// `x(p + flow(p))`: `x` is `[B, C, H, W]`, `flow` `[B, 2, H, W]` in pixels (x, then y); bilinear, the
/// edge repeated. Where a sample lies outside, the flow has no gradient.
///
/// # Errors
/// When shapes or dtypes do not fit together, or a tensor is not on the CPU.
pub fn warp(x: &Tensor, flow: &Tensor) -> Result<Tensor> {
    let (b, _, h, w) = x.dims4()?;
    if flow.dims() != [b, 2, h, w] || h * w == 0 {
        bail!("warp: a flow of {:?} does not fit {:?}", flow.dims(), x.dims());
    }
    on_cpu("warp", &[x, flow])?;
    tape::apply(Warp, &[x, flow])
}

/// `[B, C, h, w]` at `height` x `width`, bilinear between pixel centres without smoothing (PyTorch's
/// `interpolate(mode="bilinear", align_corners=False)`).
///
/// # Errors
/// When `x` has not four dimensions, a side is zero, or it is not on the CPU.
pub fn scale(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    if (h, w) == (height, width) {
        return Ok(x.clone());
    }
    if h * w * height * width == 0 {
        bail!("scale: {:?} to {height} x {width}", x.dims());
    }
    on_cpu("scale", &[x])?;
    tape::apply(Scale { height, width }, &[x])
}

fn on_cpu(name: &str, args: &[&Tensor]) -> Result<()> {
    if tape::on_cpu(args) { Ok(()) } else { bail!("{name}: only f32 and f64 on the CPU") }
}

struct Warp;

/// Where a sample lies in one dimension: its two neighbours, the second's weight, and whether it moves
/// with the flow (it does not outside the picture).
struct Tap<T> {
    low: usize,
    high: usize,
    weight: T,
    moves: bool,
}

impl<T: Real> Tap<T> {
    fn new(at: usize, flow: T, size: usize) -> Self {
        let (wanted, most) = (T::from_f64(at as f64) + flow, T::from_f64((size - 1) as f64));
        // NaN goes to 0.
        let inside = wanted >= T::ZERO && wanted <= most;
        let place = match (inside, wanted > most) {
            (true, _) => wanted,
            (false, true) => most,
            (false, false) => T::ZERO,
        };
        let low = (place.to_f64() as usize).min(size - 1);
        let weight = place - T::from_f64(low as f64);
        Self { low, high: (low + 1).min(size - 1), weight, moves: inside }
    }
}

impl Layer for Warp {
    const NAME: &'static str = "warp";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let (x, flow) = (&args[0], &args[1]);
        let [_, c, h, w] = *x.dims else { bail!("warp: four dimensions") };
        let n = h * w;
        let mut out = vec![T::ZERO; x.data.len()];
        out.par_chunks_exact_mut(w).with_min_len(16).enumerate().for_each(|(row, out)| {
            let (plane, y) = (row / h, row % h);
            let flow = &flow.data[plane / c * 2 * n..][..2 * n];
            let plane = &x.data[plane * n..][..n];
            for (i, value) in out.iter_mut().enumerate() {
                let at = y * w + i;
                let (tx, ty) = (Tap::new(i, flow[at], w), Tap::new(y, flow[n + at], h));
                let line = |y: usize| {
                    plane[y * w + tx.low] * (T::ONE - tx.weight) + plane[y * w + tx.high] * tx.weight
                };
                *value = line(ty.low) * (T::ONE - ty.weight) + line(ty.high) * ty.weight;
            }
        });
        Ok((out, x.dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        needs: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let gx = needs[0].then(|| picture_gradient(&args[0], &args[1], grad));
        Ok(vec![gx, needs[1].then(|| flow_gradient(&args[0], &args[1], grad))])
    }
}

/// Each plane's gradient goes back to where its samples were taken, in their order.
fn picture_gradient<T: Real>(x: &Arg<T>, flow: &Arg<T>, grad: &[T]) -> Vec<T> {
    let (c, h, w) = (x.dims[1], x.dims[2], x.dims[3]);
    let n = h * w;
    let mut gx = vec![T::ZERO; x.data.len()];
    gx.par_chunks_exact_mut(n).enumerate().for_each(|(plane, gx)| {
        let flow = &flow.data[plane / c * 2 * n..][..2 * n];
        for (at, &g) in grad[plane * n..][..n].iter().enumerate() {
            let (tx, ty) = (Tap::new(at % w, flow[at], w), Tap::new(at / w, flow[n + at], h));
            for (y, g) in [(ty.low, g * (T::ONE - ty.weight)), (ty.high, g * ty.weight)] {
                gx[y * w + tx.low] += g * (T::ONE - tx.weight);
                gx[y * w + tx.high] += g * tx.weight;
            }
        }
    });
    gx
}

/// The picture's slope at each sample times the gradient, summed over the channels.
fn flow_gradient<T: Real>(x: &Arg<T>, flow: &Arg<T>, grad: &[T]) -> Vec<T> {
    let (c, h, w) = (x.dims[1], x.dims[2], x.dims[3]);
    let n = h * w;
    let mut gf = vec![T::ZERO; flow.data.len()];
    gf.par_chunks_exact_mut(2 * n).enumerate().for_each(|(b, gf)| {
        let flow = &flow.data[b * 2 * n..][..2 * n];
        for at in 0..n {
            let (tx, ty) = (Tap::new(at % w, flow[at], w), Tap::new(at / w, flow[n + at], h));
            let (mut gx, mut gy) = (T::ZERO, T::ZERO);
            for plane in b * c..(b + 1) * c {
                let (x, g) = (&x.data[plane * n..][..n], grad[plane * n + at]);
                let corner = |y: usize, i: usize| x[y * w + i];
                let (a, b) = (corner(ty.low, tx.low), corner(ty.low, tx.high));
                let (c, d) = (corner(ty.high, tx.low), corner(ty.high, tx.high));
                gx += g * ((b - a) * (T::ONE - ty.weight) + (d - c) * ty.weight);
                gy += g * ((c - a) * (T::ONE - tx.weight) + (d - b) * tx.weight);
            }
            gf[at] = if tx.moves { gx } else { T::ZERO };
            gf[n + at] = if ty.moves { gy } else { T::ZERO };
        }
    });
    gf
}

struct Scale {
    height: usize,
    width: usize,
}

/// Neighbours of each of `to` samples among `from`, and the second's weight.
fn taps<T: Real>(from: usize, to: usize) -> Vec<(usize, usize, T)> {
    let tap = |i: usize| {
        let at = ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        (low, (low + 1).min(from - 1), T::from_f64(f64::from(at - low as f32)))
    };
    (0..to).map(tap).collect()
}

impl Layer for Scale {
    const NAME: &'static str = "scale";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let [b, c, h, w] = *args[0].dims else { bail!("scale: four dimensions") };
        let (rows, columns) = (taps::<T>(h, self.height), taps::<T>(w, self.width));
        let mut out = vec![T::ZERO; b * c * self.height * self.width];
        out.par_chunks_exact_mut(self.width).with_min_len(16).enumerate().for_each(|(row, out)| {
            let plane = &args[0].data[row / self.height * h * w..][..h * w];
            let (y0, y1, fy) = rows[row % self.height];
            for (value, &(x0, x1, fx)) in out.iter_mut().zip(&columns) {
                let line = |y: usize| plane[y * w + x0] * (T::ONE - fx) + plane[y * w + x1] * fx;
                *value = line(y0) * (T::ONE - fy) + line(y1) * fy;
            }
        });
        Ok((out, vec![b, c, self.height, self.width]))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        _: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let (h, w) = (args[0].dims[2], args[0].dims[3]);
        let (rows, columns) = (taps::<T>(h, self.height), taps::<T>(w, self.width));
        let mut gx = vec![T::ZERO; args[0].data.len()];
        let planes = grad.par_chunks_exact(self.height * self.width);
        gx.par_chunks_exact_mut(h * w).zip(planes).for_each(|(gx, g)| {
            for (g, &(y0, y1, fy)) in g.chunks_exact(self.width).zip(&rows) {
                for (&g, &(x0, x1, fx)) in g.iter().zip(&columns) {
                    for (y, g) in [(y0, g * (T::ONE - fy)), (y1, g * fy)] {
                        gx[y * w + x0] += g * (T::ONE - fx);
                        gx[y * w + x1] += g * fx;
                    }
                }
            }
        });
        Ok(vec![Some(gx)])
    }
}
