//! Grids of other sizes: masks and attention maps between pixels, latents and attention levels.

use candle_core::Tensor;

use crate::{Error, Result};

/// `x` `[B, C, h, w]` at `size` (height, width): bilinear upwards, downwards widened so that every value counts.
///
/// # Errors
/// Tensor errors of the device.
pub(super) fn resize(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    if (h, w) == size {
        return Ok(x.clone());
    }
    let rows = triangle(h, size.0, x)?;
    let columns = triangle(w, size.1, x)?;
    let wide = x.contiguous()?.reshape((b * c * h, w))?.matmul(&columns.t()?.contiguous()?)?;
    let wide = wide.reshape((b * c, h, size.1))?;
    let rows = rows.unsqueeze(0)?.broadcast_as((b * c, size.0, h))?.contiguous()?;
    Ok(rows.matmul(&wide)?.reshape((b, c, size.0, size.1))?)
}

/// Weights `[to, from]` of a triangle filter with clamped borders, rows summing to 1.
fn triangle(from: usize, to: usize, like: &Tensor) -> Result<Tensor> {
    let ratio = from as f64 / to as f64;
    let support = ratio.max(1.0);
    let mut weights = vec![0f64; to * from];
    for i in 0..to {
        let centre = (i as f64 + 0.5) * ratio - 0.5;
        let row = &mut weights[i * from..(i + 1) * from];
        let (low, high) = ((centre - support).ceil() as i64, (centre + support).floor() as i64);
        for j in low..=high {
            let weight = 1.0 - (j as f64 - centre).abs() / support;
            row[j.clamp(0, from as i64 - 1) as usize] += weight.max(0.0);
        }
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|v| *v /= sum);
    }
    Ok(Tensor::from_vec(weights, (to, from), like.device())?.to_dtype(like.dtype())?)
}

/// Height and width of the attention level with `tokens` pixels, of latents of `size`: halved, rounded up.
///
/// # Errors
/// [`Error::Failed`] if no level has so many.
pub(super) fn level(tokens: usize, size: (usize, usize)) -> Result<(usize, usize)> {
    let (mut h, mut w) = size;
    loop {
        if h * w == tokens {
            return Ok((h, w));
        }
        if h * w <= 1 {
            return Err(Error::Failed(format!("no level of {size:?} latents has {tokens} pixels")));
        }
        (h, w) = (h.div_ceil(2), w.div_ceil(2));
    }
}

/// The largest value within `radius` cells each way, of `[B, 1, h, w]`.
///
/// # Errors
/// Tensor errors of the device.
pub(super) fn dilate(x: &Tensor, radius: usize) -> Result<Tensor> {
    let mut out = x.clone();
    for dim in [2, 3] {
        let line = out.clone();
        for shift in 1..=radius {
            // Borders repeat: what is outside is no larger than what is inside.
            let n = line.dim(dim)?;
            let shift = shift.min(n);
            let keep = n - shift;
            let edge = |at: usize| line.narrow(dim, at, 1)?.repeat(repeats(dim, shift));
            let left = Tensor::cat(&[&line.narrow(dim, shift, keep)?, &edge(n - 1)?], dim)?;
            let right = Tensor::cat(&[&edge(0)?, &line.narrow(dim, 0, keep)?], dim)?;
            out = out.maximum(&left)?.maximum(&right)?;
        }
    }
    Ok(out.contiguous()?)
}

fn repeats(dim: usize, count: usize) -> (usize, usize, usize, usize) {
    if dim == 2 { (1, 1, count, 1) } else { (1, 1, 1, count) }
}

/// `[B, 1, h, w]` averaged twice over boxes of 2·`radius`+1: a soft edge.
///
/// # Errors
/// Tensor errors of the device.
pub(super) fn feather(x: &Tensor, radius: usize) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let blur = |n: usize| -> Result<Tensor> {
        let mut weights = vec![0f64; n * n];
        for i in 0..n as i64 {
            for j in i - radius as i64..=i + radius as i64 {
                let at = i as usize * n + j.clamp(0, n as i64 - 1) as usize;
                weights[at] += 1.0 / (2.0 * radius as f64 + 1.0);
            }
        }
        let once = Tensor::from_vec(weights, (n, n), x.device())?.to_dtype(x.dtype())?;
        Ok(once.matmul(&once)?)
    };
    let (rows, columns) = (blur(h)?, blur(w)?.t()?.contiguous()?);
    let wide = x.contiguous()?.reshape((b * c * h, w))?.matmul(&columns)?.reshape((b * c, h, w))?;
    let rows = rows.unsqueeze(0)?.broadcast_as((b * c, h, h))?.contiguous()?;
    Ok(rows.matmul(&wide)?.reshape((b, c, h, w))?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn ramp(h: usize, w: usize) -> Tensor {
        let values: Vec<f32> = (0..h * w).map(|i| (i / w) as f32 + 10.0 * (i % w) as f32).collect();
        Tensor::from_vec(values, (1, 1, h, w), &Device::Cpu).unwrap()
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn resizing_keeps_constants_and_averages_down() {
        let one = ramp(5, 7).ones_like().unwrap();
        for size in [(5, 7), (3, 2), (11, 9), (1, 1)] {
            assert!(values(&resize(&one, size).unwrap()).iter().all(|v| (v - 1.0).abs() < 1e-6));
        }
        // Halving with a triangle of width two cells: weights 1/8, 3/8, 3/8, 1/8 inside.
        let x = Tensor::new(&[[[[0f32, 0., 8., 0., 0., 0.]]]], &Device::Cpu).unwrap();
        let half = values(&resize(&x, (1, 3)).unwrap());
        for (got, want) in half.iter().zip([1.0, 3.0, 0.0]) {
            assert!((got - want).abs() < 1e-6, "{half:?}");
        }
    }

    #[test]
    fn levels_are_halved_sizes() {
        assert_eq!(level(64, (16, 16)).unwrap(), (8, 8));
        assert_eq!(level(15, (9, 5)).unwrap(), (5, 3));
        assert!(level(7, (16, 16)).is_err());
    }

    #[test]
    fn dilation_grows_by_its_radius_and_feathering_keeps_the_sum() {
        let mut dot = vec![0f32; 81];
        dot[4 * 9 + 4] = 1.0;
        let dot = Tensor::from_vec(dot, (1, 1, 9, 9), &Device::Cpu).unwrap();
        let grown = values(&dilate(&dot, 2).unwrap());
        for (i, v) in grown.iter().enumerate() {
            let inside = (i / 9).abs_diff(4) <= 2 && (i % 9).abs_diff(4) <= 2;
            assert_eq!(*v, f32::from(u8::from(inside)));
        }
        assert_eq!(values(&dilate(&dot, 0).unwrap()), values(&dot));
        let soft = values(&feather(&dot, 1).unwrap());
        assert!((soft.iter().sum::<f32>() - 1.0).abs() < 1e-5 && (soft[40] - 1.0 / 9.0).abs() < 1e-6);
    }
}
