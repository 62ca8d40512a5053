//! Emission-absorption quadrature (Max, "Optical models for direct volume rendering", 1995) and its
//! gradient: `αᵢ = 1 − exp(−σᵢδᵢ)`, `wᵢ = αᵢ Πⱼ₍ⱼ<ᵢ₎(1 − αⱼ)`.

use rayon::prelude::*;

use super::lanes::one_minus_exp_neg;
use super::{RAY_CHUNK, chunk_bounds, split_at_bounds};
use crate::gpu::kernels::{CompositeParams, OUTPUTS, PIXEL};

/// Rays with less opacity have no z-variance: their mean depth is not defined.
const MIN_OPACITY: f32 = 1e-6;

/// Weights and pixels; see [`crate::gpu::kernels::Kernel::Composite`].
pub fn composite(
    p: &CompositeParams,
    offsets: &[u32],
    intervals: &[f32],
    field: &[f32],
    background: &[f32],
    weights: &mut [f32],
    pixels: &mut [f32],
) {
    let n = p.rays as usize;
    let bounds = chunk_bounds(offsets, n);
    split_at_bounds(weights, &bounds, 1)
        .into_par_iter()
        .zip(pixels[..n * PIXEL].par_chunks_mut(RAY_CHUNK * PIXEL))
        .enumerate()
        .for_each(|(chunk, (weights, pixels))| {
            for (i, pixel) in pixels.chunks_exact_mut(PIXEL).enumerate() {
                let ray = Samples::new(p, offsets, intervals, field, background, chunk * RAY_CHUNK + i);
                ray.forward(&mut weights[ray.start - bounds[chunk]..][..ray.field.len()], pixel);
            }
        });
}

/// Gradient by the field's outputs; see [`crate::gpu::kernels::Kernel::CompositeBackward`].
#[expect(clippy::too_many_arguments, reason = "the kernel's bindings")]
pub fn composite_backward(
    p: &CompositeParams,
    offsets: &[u32],
    intervals: &[f32],
    field: &[f32],
    background: &[f32],
    pixels: &[f32],
    pixel_grad: &[f32],
    weight_grad: &[f32],
    field_grad: &mut [f32],
) {
    let n = p.rays as usize;
    let bounds = chunk_bounds(offsets, n);
    split_at_bounds(field_grad, &bounds, OUTPUTS).into_par_iter().enumerate().for_each(|(chunk, out)| {
        let (out, _) = out.as_chunks_mut::<OUTPUTS>();
        for r in chunk * RAY_CHUNK..n.min((chunk + 1) * RAY_CHUNK) {
            let ray = Samples::new(p, offsets, intervals, field, background, r);
            let extra = if p.use_weight_grad == 0 { &[] } else { &weight_grad[ray.start..] };
            let out = &mut out[ray.start - bounds[chunk]..][..ray.field.len()];
            ray.backward(&pixels[r * PIXEL..], &pixel_grad[r * PIXEL..], extra, out);
        }
    });
}

/// The samples of one ray, and what is behind it.
struct Samples<'a> {
    start: usize,
    intervals: &'a [[f32; 2]],
    field: &'a [[f32; OUTPUTS]],
    background: [f32; 3],
    early_stop: f32,
}

impl<'a> Samples<'a> {
    #[inline(always)]
    fn new(
        p: &CompositeParams,
        offsets: &[u32],
        intervals: &'a [f32],
        field: &'a [f32],
        background: &[f32],
        ray: usize,
    ) -> Self {
        let (start, end) = (offsets[ray] as usize, offsets[ray + 1] as usize);
        let row = 3 * ((p.first_ray as usize + ray) / p.rays_per_background as usize);
        Self {
            start,
            intervals: &intervals.as_chunks().0[start..end],
            field: &field.as_chunks().0[start..end],
            background: [background[row], background[row + 1], background[row + 2]],
            early_stop: p.early_stop,
        }
    }

    fn forward(&self, weights: &mut [f32], pixel: &mut [f32]) {
        let (mut transmittance, mut opacity, mut depth, mut rgb) = (1.0f32, 0.0f32, 0.0f32, [0.0f32; 3]);
        let mut visible = 0;
        for (([t, length], [density, color @ ..]), weight) in
            self.intervals.iter().zip(self.field).zip(weights.iter_mut())
        {
            if transmittance < self.early_stop {
                break;
            }
            visible += 1;
            let alpha = one_minus_exp_neg(density * length);
            *weight = transmittance * alpha;
            transmittance *= 1.0 - alpha;
            opacity += *weight;
            depth += *weight * t;
            for c in 0..3 {
                rgb[c] += *weight * color[c];
            }
        }
        weights[visible..].fill(0.0);
        let mut variance = 0.0;
        if opacity >= MIN_OPACITY {
            let mean = depth / opacity;
            for ([t, _], weight) in self.intervals.iter().zip(&weights[..visible]) {
                variance += weight * (t - mean) * (t - mean);
            }
        }
        for c in 0..3 {
            pixel[c] = rgb[c] + (1.0 - opacity) * self.background[c];
        }
        pixel[3..PIXEL].copy_from_slice(&[opacity, depth, variance]);
    }

    /// `∂L/∂σᵢ = δᵢ (Tᵢ₊₁ gᵢ − Σⱼ₍ⱼ>ᵢ₎ wⱼ gⱼ)` with `gᵢ = ∂L/∂wᵢ`.
    fn backward(&self, pixel: &[f32], grad: &[f32], extra: &[f32], out: &mut [[f32; OUTPUTS]]) {
        let (opacity, depth) = (pixel[3], pixel[4]);
        let (mean, variance_grad) =
            if opacity >= MIN_OPACITY { (depth / opacity, grad[5]) } else { (0.0, 0.0) };
        // The mean depth minimises the variance: its own derivative is zero.
        let weight_gradient = |i: usize| {
            let (t, color) = (self.intervals[i][0], &self.field[i]);
            let mut g = grad[3] + grad[4] * t + variance_grad * (t - mean) * (t - mean);
            for c in 0..3 {
                g += grad[c] * (color[c + 1] - self.background[c]);
            }
            g + extra.get(i).copied().unwrap_or(0.0)
        };
        let alpha = |i: usize| one_minus_exp_neg(self.field[i][0] * self.intervals[i][1]);
        let (mut transmittance, mut visible) = (1.0f32, 0);
        for (i, out) in out.iter_mut().enumerate() {
            if transmittance < self.early_stop {
                break;
            }
            visible += 1;
            let weight = transmittance * alpha(i);
            // The density's slot keeps Tᵢgᵢ for the way back.
            *out = [transmittance * weight_gradient(i), weight * grad[0], weight * grad[1], weight * grad[2]];
            transmittance *= 1.0 - alpha(i);
        }
        let mut behind = 0.0;
        for i in (0..visible).rev() {
            let (alpha, lit) = (alpha(i), out[i][0]);
            out[i][0] = self.intervals[i][1] * ((1.0 - alpha) * lit - behind);
            behind += alpha * lit;
        }
        out[visible..].fill([0.0; OUTPUTS]);
    }
}
