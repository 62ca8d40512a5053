//! The field: encoding, MLP with one hidden ReLU layer, activations; and the MLP's gradient.

use rayon::prelude::*;

use super::encoding::encode;
use super::lanes::{LANES, Lanes, Vector, exp, multiversion, one_minus_exp_neg, softplus};
use crate::gpu::kernels::{FEATURES, FieldParams, MAX_LEVELS, OUTPUTS};

/// Points of one task. The MLP's gradient has one partial sum for each.
const CHUNK: usize = 8192;
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
    let (n, levels) = (p.points as usize, p.levels as usize);
    let work =
        (field[..n * OUTPUTS].par_chunks_mut(CHUNK * OUTPUTS)).zip(positions[..3 * n].par_chunks(CHUNK * 3));
    if p.keep_features == 0 {
        return work.for_each_init(
            || vec![[0.0; FEATURES]; CHUNK * levels],
            |scratch, (field, positions)| {
                let mut features: Vec<_> = scratch.chunks_mut(CHUNK).collect();
                forward(p, positions, grid, mlp, field, &mut features);
            },
        );
    }
    let mut kept = FeatureChunks::new(&mut features[..levels * n * FEATURES], n, levels);
    work.zip(kept.by_chunk.par_iter_mut())
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
        for level in features.as_chunks_mut::<FEATURES>().0.chunks_mut(points) {
            for (chunk, part) in by_chunk.iter_mut().zip(level.chunks_mut(CHUNK)) {
                chunk.push(part);
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
fn forward_body<V: Vector>(
    p: &FieldParams,
    positions: &[f32],
    grid: &[f32],
    mlp: &[f32],
    field: &mut [f32],
    features: &mut [&mut [[f32; FEATURES]]],
) {
    let (inputs, width) = (p.levels as usize * FEATURES, p.hidden as usize);
    let (w1, w2) = mlp.split_at(width * inputs);
    encode::<V>(p, positions, grid, features);
    let mut x = [[0.0; LANES]; MAX_INPUTS];
    let mut hidden = [[0.0; LANES]; MAX_HIDDEN];
    let mut out = [[0.0; LANES]; OUTPUTS];
    for (block, field) in field.chunks_mut(LANES * OUTPUTS).enumerate() {
        for (features, [a, b]) in features.iter().zip(x.as_chunks_mut().0) {
            for (lane, [f, g]) in features[block * LANES..].iter().take(LANES).enumerate() {
                (a[lane], b[lane]) = (*f, *g);
            }
        }
        matrix::<V, true>(w1, &x[..inputs], &mut hidden[..width]);
        matrix::<V, false>(w2, &hidden[..width], &mut out);
        activate(p, &blob(p, &positions[block * LANES * 3..]), &mut out);
        for (lane, field) in field.as_chunks_mut::<OUTPUTS>().0.iter_mut().enumerate() {
            *field = [out[0][lane], out[1][lane], out[2][lane], out[3][lane]];
        }
    }
}

/// `y = W x` for a block, W row-major; with a ReLU if asked.
#[inline(always)]
fn matrix<V: Vector, const RELU: bool>(w: &[f32], x: &[Lanes], y: &mut [Lanes]) {
    for (rows, y) in w.chunks_exact(ROWS * x.len()).zip(y.as_chunks_mut::<ROWS>().0) {
        let (ab, cd) = rows.split_at(2 * x.len());
        let ((a, b), (c, d)) = (ab.split_at(x.len()), cd.split_at(x.len()));
        let mut sum = [V::splat(0.0); ROWS];
        for ((((x, a), b), c), d) in x.iter().zip(a).zip(b).zip(c).zip(d) {
            let x = V::load(x);
            sum[0] = sum[0].add_product(V::splat(*a), x);
            sum[1] = sum[1].add_product(V::splat(*b), x);
            sum[2] = sum[2].add_product(V::splat(*c), x);
            sum[3] = sum[3].add_product(V::splat(*d), x);
        }
        for (y, sum) in y.iter_mut().zip(sum) {
            if RELU { sum.max(V::splat(0.0)) } else { sum }.store(y);
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
fn backward_body<V: Vector>(
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
            state.block::<V>(&block, field, grad, features);
            filled = 0;
        }
    }
    state.block::<V>(&block[..filled], field, grad, features);
    state.finish(mlp_grad);
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
    x_rows: [[Lanes; MAX_INPUTS / LANES]; LANES],
    hidden: [Lanes; MAX_HIDDEN],
    by_input: [Lanes; MAX_INPUTS],
    /// Gradient of W1, its rows padded.
    grad1: [[Lanes; MAX_INPUTS / LANES]; MAX_HIDDEN],
    /// Gradient of W2, one sum a lane.
    grad2: [[Lanes; OUTPUTS]; MAX_HIDDEN],
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
            x_rows: [[[0.0; LANES]; MAX_INPUTS / LANES]; LANES],
            hidden: [[0.0; LANES]; MAX_HIDDEN],
            by_input: [[0.0; LANES]; MAX_INPUTS],
            grad1: [[[0.0; LANES]; MAX_INPUTS / LANES]; MAX_HIDDEN],
            grad2: [[[0.0; LANES]; OUTPUTS]; MAX_HIDDEN],
        }
    }

    /// One block of at most `LANES` points, by their indices.
    #[inline(always)]
    fn block<V: Vector>(
        &mut self,
        points: &[usize],
        field: &[[f32; OUTPUTS]],
        grad: &[[f32; OUTPUTS]],
        features: &mut [&mut [[f32; FEATURES]]],
    ) {
        let (inputs, width) = (self.inputs, self.width);
        for (level, features) in features.iter().enumerate() {
            for (lane, &i) in points.iter().enumerate() {
                let [a, b] = features[i];
                self.x[2 * level][lane] = a;
                self.x[2 * level + 1][lane] = b;
                self.x_rows[lane].as_flattened_mut()[2 * level..2 * level + 2].copy_from_slice(&[a, b]);
            }
        }
        // Lanes without a point have a zero gradient, whatever their features still are.
        let by_out = logit_gradient(self.p, points, field, grad).map(|x| V::load(&x));
        matrix::<V, true>(self.w1, &self.x[..inputs], &mut self.hidden[..width]);
        for (j, (hidden, sums)) in self.hidden[..width].iter_mut().zip(&mut self.grad2).enumerate() {
            let mut by_hidden = V::splat(0.0);
            for (o, (by_out, sum)) in by_out.iter().zip(sums).enumerate() {
                by_hidden = by_hidden.add_product(V::splat(self.w2[o * width + j]), *by_out);
                V::load(sum).add_product(*by_out, V::load(hidden)).store(sum);
            }
            let mut through = [0.0; LANES];
            by_hidden.store(&mut through);
            for lane in 0..LANES {
                hidden[lane] = if hidden[lane] > 0.0 { through[lane] } else { 0.0 };
            }
        }
        for vector in 0..inputs.div_ceil(LANES) {
            outer_product::<V>(&self.hidden[..width], &self.x_rows, &mut self.grad1, vector);
        }
        let by_input = &mut self.by_input[..inputs.next_multiple_of(ROWS)];
        matrix::<V, false>(&self.w1t, &self.hidden[..width], by_input);
        for (level, features) in features.iter_mut().enumerate() {
            for (lane, &i) in points.iter().enumerate() {
                features[i] = [by_input[2 * level][lane], by_input[2 * level + 1][lane]];
            }
        }
    }

    fn finish(&self, mlp_grad: &mut [f32]) {
        let (grad1, grad2) = mlp_grad.split_at_mut(self.width * self.inputs);
        for (out, row) in grad1.chunks_exact_mut(self.inputs).zip(&self.grad1) {
            out.copy_from_slice(&row.as_flattened()[..self.inputs]);
        }
        for (k, out) in grad2.iter_mut().enumerate() {
            *out = self.grad2[k % self.width][k / self.width].iter().sum();
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

/// `grad[j] += Σ_lane by_hidden[j][lane]·x[lane]` for the given vector of each row.
#[inline(always)]
fn outer_product<V: Vector>(
    by_hidden: &[Lanes],
    x: &[[Lanes; MAX_INPUTS / LANES]; LANES],
    grad: &mut [[Lanes; MAX_INPUTS / LANES]; MAX_HIDDEN],
    vector: usize,
) {
    for (rows, grad) in by_hidden.as_chunks::<ROWS>().0.iter().zip(grad.as_chunks_mut::<ROWS>().0) {
        let [a, b, c, d] = rows;
        let mut sum = [V::splat(0.0); ROWS];
        for (lane, x) in x.iter().enumerate() {
            let x = V::load(&x[vector]);
            sum[0] = sum[0].add_product(V::splat(a[lane]), x);
            sum[1] = sum[1].add_product(V::splat(b[lane]), x);
            sum[2] = sum[2].add_product(V::splat(c[lane]), x);
            sum[3] = sum[3].add_product(V::splat(d[lane]), x);
        }
        for (grad, sum) in grad.iter_mut().zip(sum) {
            V::load(&grad[vector]).add_product(V::splat(1.0), sum).store(&mut grad[vector]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Portable;
    use super::*;
    use crate::field::FieldConfig;
    use crate::rng::{Rng, Stream};

    fn random(step: u32, n: usize) -> Vec<f32> {
        let rng = Rng::new(2, Stream::Probe, step);
        (0..n as u64).map(|i| rng.range(i, -1.0, 1.0)).collect()
    }

    /// Field, feature gradient and MLP gradient of one instruction set.
    fn run<V: Vector>(config: &FieldConfig) -> [Vec<f32>; 3] {
        // Not a multiple of the block: the last one is cut.
        let n = 77;
        let p = config.params(n, config.levels, true);
        let (positions, grid) = (random(0, 3 * n), random(1, config.grid_params()));
        let (mlp, mut grad) = (random(2, config.mlp_params()), random(3, n * OUTPUTS));
        grad[20 * OUTPUTS..45 * OUTPUTS].fill(0.0);
        let mut field = vec![0.0; n * OUTPUTS];
        let mut features = vec![[0.0; FEATURES]; n * config.levels as usize];
        let mut levels: Vec<_> = features.chunks_mut(n).collect();
        forward_body::<V>(&p, &positions, &grid, &mlp, &mut field, &mut levels);
        let mut mlp_grad = vec![0.0; mlp.len()];
        backward_body::<V>(&p, &mlp, &field, &grad, &mut levels, &mut mlp_grad);
        [field, features.into_flattened(), mlp_grad]
    }

    #[test]
    fn instruction_sets_agree_to_the_last_bit() {
        let config = FieldConfig { levels: 5, log2_table: 12, ..Default::default() };
        let want = run::<Portable>(&config);
        assert!(want.iter().all(|x| x.iter().any(|&x| x != 0.0)));
        #[cfg(target_arch = "x86_64")]
        {
            use super::super::lanes::{Avx2, Avx512};
            if is_x86_feature_detected!("avx2") {
                assert!(run::<Avx2>(&config) == want);
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                assert!(run::<Avx512>(&config) == want);
            }
        }
    }
}
