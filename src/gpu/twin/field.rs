//! The field: encoding, MLP with one hidden ReLU layer, activations; and the MLP's gradient.

use rayon::prelude::*;

use super::encoding::{Encoded, encode, load_unit};
use super::lanes::{LANES, Lanes, exp, multiversion, one_minus_exp_neg, softplus};
use crate::gpu::kernels::{FEATURES, FieldParams, MAX_LEVELS, OUTPUTS};

/// Points of one task. The MLP's gradient has one partial sum for each.
const CHUNK: usize = 4096;
/// Widest hidden layer.
const MAX_HIDDEN: usize = 128;
/// Widest input.
const MAX_INPUTS: usize = MAX_LEVELS * FEATURES;
/// Rows of a matrix that are worked on at a time, enough to hide the latency of an addition.
const ROWS: usize = 4;

/// Density and colour of points; see [`crate::gpu::kernels::Kernel::FieldForward`].
pub fn field_forward(
    p: &FieldParams,
    positions: &[f32],
    grid: &[f32],
    mlp: &[f32],
    field: &mut [f32],
    features: &mut [f32],
) {
    let n = p.points as usize;
    let keep = if p.keep_features == 0 { 0 } else { p.levels as usize };
    let mut kept = FeatureChunks::new(&mut features[..keep * n * FEATURES], n, keep);
    (field[..n * OUTPUTS].par_chunks_mut(CHUNK * OUTPUTS))
        .zip(positions[..3 * n].par_chunks(CHUNK * 3))
        .zip(kept.by_chunk.par_iter_mut())
        .for_each(|((field, positions), features)| forward(p, positions, grid, mlp, field, features));
}

/// `features[level][point][2]` cut into chunks of points: for each chunk one slice a level.
struct FeatureChunks<'a> {
    by_chunk: Vec<Vec<&'a mut [[f32; FEATURES]]>>,
}

impl<'a> FeatureChunks<'a> {
    fn new(features: &'a mut [f32], points: usize, levels: usize) -> Self {
        let mut by_chunk: Vec<Vec<_>> =
            (0..points.div_ceil(CHUNK)).map(|_| Vec::with_capacity(levels)).collect();
        if levels > 0 {
            for level in features.as_chunks_mut::<FEATURES>().0.chunks_mut(points) {
                for (chunk, part) in by_chunk.iter_mut().zip(level.chunks_mut(CHUNK)) {
                    chunk.push(part);
                }
            }
        }
        Self { by_chunk }
    }
}

multiversion!(
    forward = forward_body(
        p: &FieldParams,
        positions: &[f32],
        grid: &[f32],
        mlp: &[f32],
        field: &mut [f32],
        features: &mut [&mut [[f32; FEATURES]]],
    )
);

#[inline(always)]
fn forward_body(
    p: &FieldParams,
    positions: &[f32],
    grid: &[f32],
    mlp: &[f32],
    field: &mut [f32],
    features: &mut [&mut [[f32; FEATURES]]],
) {
    let (inputs, width) = (p.levels as usize * FEATURES, p.hidden as usize);
    let (w1, w2) = mlp.split_at(width * inputs);
    let mut encoded: Encoded = [[[0.0; LANES]; FEATURES]; MAX_LEVELS];
    let mut hidden = [[0.0; LANES]; MAX_HIDDEN];
    let mut out = [[0.0; LANES]; OUTPUTS];
    for (block, field) in field.chunks_mut(LANES * OUTPUTS).enumerate() {
        let positions = &positions[block * LANES * 3..];
        let unit = load_unit(positions);
        encode(p, &unit, grid, &mut encoded);
        for (level, kept) in features.iter_mut().enumerate() {
            for (lane, kept) in kept[block * LANES..].iter_mut().take(LANES).enumerate() {
                *kept = [encoded[level][0][lane], encoded[level][1][lane]];
            }
        }
        matrix::<true>(w1, &encoded.as_flattened()[..inputs], &mut hidden[..width]);
        matrix::<false>(w2, &hidden[..width], &mut out);
        activate(p, &blob(p, positions), &mut out);
        for (lane, field) in field.as_chunks_mut::<OUTPUTS>().0.iter_mut().enumerate() {
            *field = [out[0][lane], out[1][lane], out[2][lane], out[3][lane]];
        }
    }
}

/// `y = W x` for a block, W row-major; with a ReLU if asked.
#[inline(always)]
fn matrix<const RELU: bool>(w: &[f32], x: &[Lanes], y: &mut [Lanes]) {
    for (rows, y) in w.chunks_exact(ROWS * x.len()).zip(y.as_chunks_mut::<ROWS>().0) {
        let mut sum = [[0.0f32; LANES]; ROWS];
        for (i, x) in x.iter().enumerate() {
            for (row, sum) in sum.iter_mut().enumerate() {
                let weight = rows[row * (rows.len() / ROWS) + i];
                for lane in 0..LANES {
                    sum[lane] += weight * x[lane];
                }
            }
        }
        for (y, sum) in y.iter_mut().zip(&sum) {
            for lane in 0..LANES {
                y[lane] = if RELU { sum[lane].max(0.0) } else { sum[lane] };
            }
        }
    }
}

/// The density's bias, `blob_scale·(1 − |x|/blob_radius)`.
#[inline(always)]
fn blob(p: &FieldParams, positions: &[f32]) -> Lanes {
    let mut bias = [0.0; LANES];
    for (bias, x) in bias.iter_mut().zip(positions.as_chunks::<3>().0) {
        let radius = (x[0] * x[0] + x[1] * x[1] + x[2] * x[2]).sqrt();
        *bias = p.blob_scale * (1.0 - radius / p.blob_radius);
    }
    bias
}

/// Density and sigmoid of the colour logits, in place.
#[inline(always)]
fn activate(p: &FieldParams, bias: &Lanes, out: &mut [Lanes; OUTPUTS]) {
    let [density, colors @ ..] = out;
    if p.activation == 0 {
        for lane in 0..LANES {
            density[lane] = softplus(density[lane] + bias[lane]);
        }
    } else {
        for lane in 0..LANES {
            density[lane] = exp((density[lane] + bias[lane]).clamp(-15.0, 15.0));
        }
    }
    for color in colors {
        for c in color {
            *c = 1.0 / (1.0 + exp(-*c));
        }
    }
}

/// The MLP's gradient, and that of the features in their place; see
/// [`crate::gpu::kernels::Kernel::FieldBackward`]. Points whose `field_grad` is zero are skipped.
pub fn field_backward(
    p: &FieldParams,
    mlp: &[f32],
    field: &[f32],
    field_grad: &[f32],
    features: &mut [f32],
    mlp_grad: &mut [f32],
) {
    let (n, levels) = (p.points as usize, p.levels as usize);
    let mut chunks = FeatureChunks::new(&mut features[..levels * n * FEATURES], n, levels);
    let mut partial = vec![0.0; chunks.by_chunk.len() * mlp.len()];
    (partial.par_chunks_mut(mlp.len()))
        .zip(field[..n * OUTPUTS].par_chunks(CHUNK * OUTPUTS))
        .zip(field_grad[..n * OUTPUTS].par_chunks(CHUNK * OUTPUTS))
        .zip(chunks.by_chunk.par_iter_mut())
        .for_each(|(((sum, field), grad), features)| backward(p, mlp, field, grad, features, sum));
    for sum in partial.chunks(mlp.len()) {
        for (total, s) in mlp_grad.iter_mut().zip(sum) {
            *total += s;
        }
    }
}

multiversion!(
    backward = backward_body(
        p: &FieldParams,
        mlp: &[f32],
        field: &[f32],
        grad: &[f32],
        features: &mut [&mut [[f32; FEATURES]]],
        mlp_grad: &mut [f32],
    )
);

#[inline(always)]
fn backward_body(
    p: &FieldParams,
    mlp: &[f32],
    field: &[f32],
    grad: &[f32],
    features: &mut [&mut [[f32; FEATURES]]],
    mlp_grad: &mut [f32],
) {
    let (field, grad) = (field.as_chunks::<OUTPUTS>().0, grad.as_chunks::<OUTPUTS>().0);
    let mut state = Backward::new(p, mlp);
    let mut block = [0usize; LANES];
    let mut filled = 0;
    for (i, g) in grad.iter().enumerate() {
        if *g == [0.0; OUTPUTS] {
            for level in features.iter_mut() {
                level[i] = [0.0; FEATURES];
            }
            continue;
        }
        block[filled] = i;
        filled += 1;
        if filled == LANES {
            state.block(&block, field, grad, features, mlp_grad);
            filled = 0;
        }
    }
    state.block(&block[..filled], field, grad, features, mlp_grad);
}

/// Working memory of the backward pass.
struct Backward<'a> {
    p: &'a FieldParams,
    inputs: usize,
    width: usize,
    w1: &'a [f32],
    w2: &'a [f32],
    /// W1 transposed, `[inputs, width]`, with zero rows up to a multiple of `ROWS`.
    w1t: Vec<f32>,
    x: [Lanes; MAX_INPUTS],
    /// The features point by point, for the outer product with the hidden gradient.
    x_rows: [[f32; MAX_INPUTS]; LANES],
    hidden: [Lanes; MAX_HIDDEN],
    by_input: [Lanes; MAX_INPUTS],
}

impl<'a> Backward<'a> {
    #[inline(always)]
    fn new(p: &'a FieldParams, mlp: &'a [f32]) -> Self {
        let (inputs, width) = (p.levels as usize * FEATURES, p.hidden as usize);
        let (w1, w2) = mlp.split_at(width * inputs);
        let mut w1t = vec![0.0; inputs.next_multiple_of(ROWS) * width];
        for (k, w) in w1t[..inputs * width].iter_mut().enumerate() {
            *w = w1[k % width * inputs + k / width];
        }
        Self {
            p,
            inputs,
            width,
            w1,
            w2,
            w1t,
            x: [[0.0; LANES]; MAX_INPUTS],
            x_rows: [[0.0; MAX_INPUTS]; LANES],
            hidden: [[0.0; LANES]; MAX_HIDDEN],
            by_input: [[0.0; LANES]; MAX_INPUTS],
        }
    }

    /// One block of at most `LANES` points, by their indices.
    #[inline(always)]
    fn block(
        &mut self,
        points: &[usize],
        field: &[[f32; OUTPUTS]],
        grad: &[[f32; OUTPUTS]],
        features: &mut [&mut [[f32; FEATURES]]],
        mlp_grad: &mut [f32],
    ) {
        let (inputs, width) = (self.inputs, self.width);
        for (level, features) in features.iter().enumerate() {
            for (lane, &i) in points.iter().enumerate() {
                let [a, b] = features[i];
                self.x[2 * level][lane] = a;
                self.x[2 * level + 1][lane] = b;
                self.x_rows[lane][2 * level..2 * level + 2].copy_from_slice(&features[i]);
            }
        }
        // Lanes without a point have a zero gradient, whatever their features still are.
        let by_out = logit_gradient(self.p, points, field, grad);
        matrix::<true>(self.w1, &self.x[..inputs], &mut self.hidden[..width]);
        let (grad1, grad2) = mlp_grad.split_at_mut(width * inputs);
        for (j, hidden) in self.hidden[..width].iter_mut().enumerate() {
            let mut by_hidden = [0.0; LANES];
            for (o, by_out) in by_out.iter().enumerate() {
                let weight = self.w2[o * width + j];
                let mut products = [0.0; LANES];
                for lane in 0..LANES {
                    by_hidden[lane] += weight * by_out[lane];
                    products[lane] = by_out[lane] * hidden[lane];
                }
                grad2[o * width + j] += total(products);
            }
            for lane in 0..LANES {
                hidden[lane] = if hidden[lane] > 0.0 { by_hidden[lane] } else { 0.0 };
            }
        }
        outer_product(&self.hidden[..width], &self.x_rows, inputs, grad1);
        matrix::<false>(
            &self.w1t,
            &self.hidden[..width],
            &mut self.by_input[..inputs.next_multiple_of(ROWS)],
        );
        for (level, features) in features.iter_mut().enumerate() {
            for (lane, &i) in points.iter().enumerate() {
                features[i] = [self.by_input[2 * level][lane], self.by_input[2 * level + 1][lane]];
            }
        }
    }
}

/// Gradient by the four logits. The activations' derivatives follow from their values:
/// softplus' = 1 − e^(−σ), exp' = σ, sigmoid' = c(1 − c).
#[inline(always)]
fn logit_gradient(
    p: &FieldParams,
    points: &[usize],
    field: &[[f32; OUTPUTS]],
    grad: &[[f32; OUTPUTS]],
) -> [Lanes; OUTPUTS] {
    let mut by_out = [[0.0; LANES]; OUTPUTS];
    for (lane, &i) in points.iter().enumerate() {
        let ([density, ..], g) = (field[i], grad[i]);
        // Beyond the clamp at ±15 the true derivative is zero; this one lets a runaway density return.
        by_out[0][lane] = g[0] * if p.activation == 0 { one_minus_exp_neg(density) } else { density };
        for c in 1..OUTPUTS {
            by_out[c][lane] = g[c] * field[i][c] * (1.0 - field[i][c]);
        }
    }
    by_out
}

/// Sum over the lanes, in a fixed order that vectorises.
#[inline(always)]
fn total(mut x: Lanes) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            x[lane] += x[lane + half];
        }
        half /= 2;
    }
    x[0]
}

/// `grad[j][i] += Σ_lane by_hidden[j][lane]·x[lane][i]`.
#[inline(always)]
fn outer_product(by_hidden: &[Lanes], x: &[[f32; MAX_INPUTS]; LANES], inputs: usize, grad: &mut [f32]) {
    for (rows, grad) in by_hidden.as_chunks::<ROWS>().0.iter().zip(grad.chunks_exact_mut(ROWS * inputs)) {
        let mut sum = [[0.0f32; MAX_INPUTS]; ROWS];
        for (lane, x) in x.iter().enumerate() {
            for (row, sum) in rows.iter().zip(&mut sum) {
                for i in 0..MAX_INPUTS {
                    sum[i] += row[lane] * x[i];
                }
            }
        }
        for (sum, grad) in sum.iter().zip(grad.chunks_exact_mut(inputs)) {
            for (grad, s) in grad.iter_mut().zip(sum) {
                *grad += s;
            }
        }
    }
}
