//! Pictures of several samples a pixel, and their gradient.

use crate::render::camera::Camera;
use crate::render::surface::SurfaceOutput;

/// The same cameras with `samples` samples across a pixel.
pub(super) fn cameras(cameras: &[Camera], samples: u32) -> Vec<Camera> {
    cameras.iter().map(|c| Camera { width: c.width * samples, height: c.height * samples, ..*c }).collect()
}

/// The mean over each pixel's samples of `[views, height, width, channels]`, whose `shape` is that of the
/// samples.
pub(super) fn shrink(fine: &[f32], shape: &SurfaceOutput, channels: usize, samples: usize) -> Vec<f32> {
    if samples == 1 {
        return fine.to_vec();
    }
    let (width, height) = (shape.width / samples, shape.height / samples);
    let scale = 1.0 / (samples * samples) as f32;
    let mut out = vec![0.0; shape.views * width * height * channels];
    for (row, fine) in fine.chunks_exact(shape.width * channels).enumerate() {
        // Rows of all views follow each other, and each view has a whole number of rows of pixels.
        let first = row / samples * width * channels;
        for (x, fine) in fine.chunks_exact(channels).enumerate() {
            let at = first + x / samples * channels;
            for (out, fine) in out[at..at + channels].iter_mut().zip(fine) {
                *out += scale * fine;
            }
        }
    }
    out
}

/// The gradient by the samples from the one by the pixels.
pub(super) fn spread(grad: &[f32], shape: &SurfaceOutput, channels: usize, samples: usize) -> Vec<f32> {
    if samples == 1 {
        return grad.to_vec();
    }
    let scale = 1.0 / (samples * samples) as f32;
    let width = shape.width / samples * channels;
    let row = |row: &[f32]| -> Vec<f32> {
        let wide = row.chunks_exact(channels).flat_map(|p| std::iter::repeat_n(p, samples).flatten());
        wide.map(|g| scale * g).collect()
    };
    grad.chunks_exact(width).flat_map(|r| std::iter::repeat_n(row(r), samples).flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreading_is_the_transpose_of_shrinking() {
        let shape = SurfaceOutput { views: 2, width: 6, height: 4, ..Default::default() };
        let number = |i: usize, k: usize| ((i * 7919 + k) % 101) as f32 / 50.0 - 1.0;
        let fine: Vec<f32> = (0..2 * 6 * 4 * 3).map(|i| number(i, 1)).collect();
        let grad: Vec<f32> = (0..2 * 3 * 2 * 3).map(|i| number(i, 2)).collect();
        let small = shrink(&fine, &shape, 3, 2);
        // Pixel (1, 1) of the second view is the mean of its four samples.
        let at = |view: usize, y: usize, x: usize| fine[3 * (6 * (4 * view + y) + x) + 2];
        let mean = (at(1, 2, 2) + at(1, 2, 3) + at(1, 3, 2) + at(1, 3, 3)) / 4.0;
        assert!((small[3 * (3 * (2 + 1) + 1) + 2] - mean).abs() < 1e-6);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let (left, right) = (dot(&small, &grad), dot(&fine, &spread(&grad, &shape, 3, 2)));
        assert!((left - right).abs() < 1e-5 && left.abs() > 0.1, "{left} {right}");
    }
}
