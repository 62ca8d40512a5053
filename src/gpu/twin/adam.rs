//! The optimiser.

use rayon::prelude::*;

use super::lanes::{Vector, multiversion};
use crate::gpu::kernels::AdamParams;

const CHUNK: usize = 16_384;

/// Adam with bias correction, `θ −= rate·m / (√v·v_scale + ε)`; the gradient is zero afterwards.
pub fn adam(p: &AdamParams, params: &mut [f32], grad: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let n = p.n as usize;
    (params[..n].par_chunks_mut(CHUNK))
        .zip(grad[..n].par_chunks_mut(CHUNK))
        .zip(m[..n].par_chunks_mut(CHUNK))
        .zip(v[..n].par_chunks_mut(CHUNK))
        .for_each(|(((params, grad), m), v)| update(p, params, grad, m, v));
}

multiversion!(update = update_body(p: &AdamParams, params: &mut [f32], grad: &mut [f32], m: &mut [f32], v: &mut [f32]));

#[inline(always)]
fn update_body<V: Vector>(
    p: &AdamParams,
    params: &mut [f32],
    grad: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    for (((x, g), m), v) in params.iter_mut().zip(grad).zip(m).zip(v) {
        *m = p.beta1 * *m + (1.0 - p.beta1) * *g;
        *v = p.beta2 * *v + (1.0 - p.beta2) * *g * *g;
        *x -= p.rate * *m / (v.sqrt() * p.v_scale + p.eps);
        *g = 0.0;
    }
}
