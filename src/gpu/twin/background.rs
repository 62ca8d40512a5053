//! The background's MLP: spherical harmonics of the direction, one hidden layer, sigmoid.

use rayon::prelude::*;

use super::lanes::exp;
use crate::gpu::kernels::{
    BACKGROUND_HIDDEN as HIDDEN, BACKGROUND_INPUTS as INPUTS, BACKGROUND_PARAMS, BackgroundParams, PIXEL,
};

const CHUNK: usize = 1024;

/// Colours by direction; see [`crate::gpu::kernels::Kernel::BackgroundForward`].
pub fn background_forward(p: &BackgroundParams, rays: &[f32], mlp: &[f32], background: &mut [f32]) {
    let n = p.rays as usize;
    background[..3 * n].par_chunks_mut(3).with_min_len(CHUNK).enumerate().for_each(|(r, out)| {
        let hidden = hidden(mlp, &harmonics(&rays[8 * r + 4..]));
        for (c, out) in out.iter_mut().enumerate() {
            let row = &mlp[HIDDEN * (INPUTS + c)..][..HIDDEN];
            let logit: f32 = row.iter().zip(&hidden).map(|(w, h)| w * h).sum();
            *out = 1.0 / (1.0 + exp(-logit));
        }
    });
}

/// Adds the MLP's gradient; see [`crate::gpu::kernels::Kernel::BackgroundBackward`].
pub fn background_backward(
    p: &BackgroundParams,
    rays: &[f32],
    mlp: &[f32],
    background: &[f32],
    pixels: &[f32],
    pixel_grad: &[f32],
    mlp_grad: &mut [f32],
) {
    let n = p.rays as usize;
    let partial: Vec<[f32; BACKGROUND_PARAMS]> = (0..n.div_ceil(CHUNK))
        .into_par_iter()
        .map(|chunk| {
            let mut sum = [0.0; BACKGROUND_PARAMS];
            for r in chunk * CHUNK..n.min((chunk + 1) * CHUNK) {
                let seen = 1.0 - pixels[r * PIXEL + 3];
                let logit_grad: [f32; 3] = std::array::from_fn(|c| {
                    let color = background[3 * r + c];
                    pixel_grad[r * PIXEL + c] * seen * color * (1.0 - color)
                });
                if logit_grad != [0.0; 3] {
                    add_gradient(mlp, &harmonics(&rays[8 * r + 4..]), &logit_grad, &mut sum);
                }
            }
            sum
        })
        .collect();
    for sum in partial {
        for (total, s) in mlp_grad.iter_mut().zip(sum) {
            *total += s;
        }
    }
}

fn add_gradient(mlp: &[f32], input: &[f32; INPUTS], logit_grad: &[f32; 3], sum: &mut [f32]) {
    let hidden = hidden(mlp, input);
    for (j, &h) in hidden.iter().enumerate() {
        let mut by_hidden = 0.0;
        for (c, g) in logit_grad.iter().enumerate() {
            let at = HIDDEN * (INPUTS + c) + j;
            sum[at] += g * h;
            by_hidden += g * mlp[at];
        }
        if h > 0.0 {
            for (i, x) in input.iter().enumerate() {
                sum[j * INPUTS + i] += by_hidden * x;
            }
        }
    }
}

fn hidden(mlp: &[f32], input: &[f32; INPUTS]) -> [f32; HIDDEN] {
    std::array::from_fn(|j| {
        let row = &mlp[j * INPUTS..][..INPUTS];
        row.iter().zip(input).map(|(w, x)| w * x).sum::<f32>().max(0.0)
    })
}

/// Real spherical harmonics of degree 0, 1, 2 (orthonormal).
fn harmonics(d: &[f32]) -> [f32; INPUTS] {
    let (x, y, z) = (d[0], d[1], d[2]);
    [
        0.282_094_8,
        0.488_602_5 * y,
        0.488_602_5 * z,
        0.488_602_5 * x,
        1.092_548_4 * x * y,
        1.092_548_4 * y * z,
        0.315_391_57 * (3.0 * z * z - 1.0),
        1.092_548_4 * x * z,
        0.546_274_2 * (x * x - y * y),
    ]
}
