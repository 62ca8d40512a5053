//! Sampling of tensors: backward warping and bilinear scaling, as the network was trained with.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

/// `x(p + flow(p))`: `x` is `[1, C, H, W]`, `flow` `[1, 2, H, W]` in pixels (x, then y); bilinear, the
/// edge repeated.
pub fn warp(x: &Tensor, flow: &Tensor) -> Result<Tensor> {
    let (_, c, h, w) = x.dims4()?;
    let (data, flow) = (flat(x)?, flat(flow)?);
    let n = h * w;
    let mut out = vec![0.0; c * n];
    out.par_chunks_mut(w).enumerate().for_each(|(row, out)| {
        let (plane, y) = (&data[row / h * n..][..n], row % h);
        for (i, value) in out.iter_mut().enumerate() {
            let at = y * w + i;
            let px = (i as f32 + flow[at]).clamp(0.0, (w - 1) as f32);
            let py = (y as f32 + flow[n + at]).clamp(0.0, (h - 1) as f32);
            let (x0, y0) = (px as usize, py as usize);
            let (x1, y1) = ((x0 + 1).min(w - 1), (y0 + 1).min(h - 1));
            let (fx, fy) = (px - x0 as f32, py - y0 as f32);
            let line = |y: usize| plane[y * w + x0] * (1.0 - fx) + plane[y * w + x1] * fx;
            *value = line(y0) * (1.0 - fy) + line(y1) * fy;
        }
    });
    Tensor::from_vec(out, (1, c, h, w), &Device::Cpu)
}

/// To `height` x `width`, bilinear between pixel centres without smoothing (PyTorch's
/// `interpolate(mode="bilinear", align_corners=False)`).
pub fn scale(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (_, c, h, w) = x.dims4()?;
    if (h, w) == (height, width) {
        return Ok(x.clone());
    }
    let data = flat(x)?;
    let taps = |i: usize, from: usize, to: usize| {
        let at = ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        (low, (low + 1).min(from - 1), at - low as f32)
    };
    let columns: Vec<_> = (0..width).map(|i| taps(i, w, width)).collect();
    let mut out = vec![0.0; c * height * width];
    out.par_chunks_mut(width).enumerate().for_each(|(row, out)| {
        let plane = &data[row / height * h * w..][..h * w];
        let (y0, y1, fy) = taps(row % height, h, height);
        for (value, &(x0, x1, fx)) in out.iter_mut().zip(&columns) {
            let line = |y: usize| plane[y * w + x0] * (1.0 - fx) + plane[y * w + x1] * fx;
            *value = line(y0) * (1.0 - fy) + line(y1) * fy;
        }
    });
    Tensor::from_vec(out, (1, c, height, width), &Device::Cpu)
}

fn flat(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all()?.to_vec1::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(h: usize, w: usize) -> Tensor {
        let data: Vec<f32> = (0..2 * h * w).map(|i| (i * 7 % 23) as f32).collect();
        Tensor::from_vec(data, (1, 2, h, w), &Device::Cpu).unwrap()
    }

    fn values(x: &Tensor) -> Vec<f32> {
        flat(x).unwrap()
    }

    #[test]
    fn no_flow_is_bit_exact_and_whole_flow_is_a_shift() {
        let x = ramp(5, 6);
        let none = Tensor::zeros((1, 2, 5, 6), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(values(&warp(&x, &none).unwrap()), values(&x));
        let right = (none + 2.0).unwrap();
        let (moved, x) = (values(&warp(&x, &right).unwrap()), values(&x));
        assert_eq!(
            (moved[0], moved[30], moved[5], moved[4 * 6]),
            (x[2 * 6 + 2], x[30 + 2 * 6 + 2], x[2 * 6 + 5], x[4 * 6 + 2])
        );
    }

    #[test]
    fn scaling_is_pytorchs() {
        // torch: interpolate([0, 1, 2, 3], scale_factor=.5) = [.5, 2.5]; of [0, 4], factor 2: [0, 1, 3, 4].
        let row = |v: &[f32]| Tensor::from_slice(v, (1, 1, 1, v.len()), &Device::Cpu).unwrap();
        assert_eq!(values(&scale(&row(&[0.0, 1.0, 2.0, 3.0]), 1, 2).unwrap()), [0.5, 2.5]);
        assert_eq!(values(&scale(&row(&[0.0, 4.0]), 1, 4).unwrap()), [0.0, 1.0, 3.0, 4.0]);
    }
}
