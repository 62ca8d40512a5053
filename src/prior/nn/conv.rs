//! Two-dimensional convolution: forward and input gradient (one kernel), weight gradient in
//! [`super::conv_weight`].

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::conv_weight::weight_gradient;
use super::gemm::{Mat, Put, product_to, serial};
use super::kept::Kept;
use super::pack::{pack, packed_len};
use super::plan::{Plan, Shape, Unit};
use super::real::{Real, Shared, uninit, zeroed};
use super::tape::{self, Arg, Layer};
use super::tile::{self, Terms, conv_tile};
use super::winograd;

/// Zeros around the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// This many rows and columns on every side.
    Same(usize),
    /// One row below and one column on the right (diffusers pads its VAE's downsampling convolutions so).
    BottomRight,
}

impl Padding {
    /// (above and left, below and right).
    pub(crate) fn sides(self) -> (usize, usize) {
        match self {
            Self::Same(n) => (n, n),
            Self::BottomRight => (0, 1),
        }
    }
}

/// Cross-correlation of `x` `[B, Ci, H, W]` with `w` `[Co, Ci, k, k]`, plus `b` `[Co]`: `[B, Co, Ho, Wo]` with
/// `Ho = (H + padding - k) / stride + 1`.
///
/// # Errors
/// When shapes, dtypes or devices do not fit together.
pub fn conv2d(x: &Tensor, w: &Tensor, b: Option<&Tensor>, stride: usize, padding: Padding) -> Result<Tensor> {
    convolve(x, w, b, (stride, padding), None)
}

/// As [`conv2d`], keeping what its kernels make of `w`, if that is no variable, for the next call.
///
/// # Errors
/// As for [`conv2d`].
pub fn conv2d_kept(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: usize,
    padding: Padding,
    kept: &Arc<Kept>,
) -> Result<Tensor> {
    convolve(x, w, b, (stride, padding), Kept::of(kept, w))
}

fn convolve(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    (stride, padding): (usize, Padding),
    kept: Option<Arc<Kept>>,
) -> Result<Tensor> {
    let (_, ci, h, width) = x.dims4()?;
    let (co, wi, k, k2) = w.dims4()?;
    let (before, after) = padding.sides();
    if ci != wi || k != k2 || k == 0 || stride == 0 {
        bail!("conv2d: filter {:?} with stride {stride} does not fit the input {:?}", w.dims(), x.dims());
    }
    if h.min(width) == 0 || h.min(width) + before + after < k {
        bail!("conv2d: the input {:?} is smaller than the filter {:?}", x.dims(), w.dims());
    }
    if b.is_some_and(|b| b.dims() != [co]) {
        bail!("conv2d: the bias must have shape [{co}]");
    }
    let args: Vec<&Tensor> = [x, w].into_iter().chain(b).collect();
    if !tape::on_cpu(&args) || before.max(after) >= k {
        return super::elsewhere::conv2d(x, w, b, stride, padding);
    }
    tape::apply(Conv { stride, before, after, kept }, &args)
}

struct Conv {
    stride: usize,
    before: usize,
    after: usize,
    kept: Option<Arc<Kept>>,
}

impl Conv {
    fn shape<T>(&self, x: &Arg<T>, w: &Arg<T>) -> Shape {
        Shape {
            batch: x.dims[0],
            channels: x.dims[1],
            height: x.dims[2],
            width: x.dims[3],
            dilation: 1,
            before: self.before,
            after: [self.after; 2],
            kernel: w.dims[2],
            stride: self.stride,
        }
    }

    fn kept(&self, backward: bool) -> Option<(&Kept, bool)> {
        self.kept.as_deref().map(|kept| (kept, backward))
    }

    /// A product of matrices.
    fn pointwise(&self, taps: usize) -> bool {
        (taps, self.stride, self.before, self.after) == (1, 1, 0, 0)
    }

    /// The input gradient is the stride-1 convolution of the output gradient (spread out by the stride)
    /// with the flipped filter, padded so that the result has the input's size.
    fn transposed<T>(&self, x: &Arg<T>, w: &Arg<T>) -> Shape {
        let shape = self.shape(x, w);
        let [height, width] = shape.out();
        let (k, s) = (shape.kernel, self.stride);
        let rest = |size: usize, out: usize| size + self.before - 1 - (out - 1) * s;
        Shape {
            channels: w.dims[0],
            height,
            width,
            dilation: s,
            before: k - 1 - self.before,
            after: [rest(shape.height, height), rest(shape.width, width)],
            stride: 1,
            ..shape
        }
    }
}

impl Layer for Conv {
    const NAME: &'static str = "conv2d";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let (x, w) = (&args[0], &args[1]);
        let plan = Plan::new::<T>(self.shape(x, w));
        let (co, ci, taps) = (w.dims[0], w.dims[1], w.dims[2] * w.dims[3]);
        let filters = Filters::forward(w);
        let bias = args.get(2).map(|b| b.data);
        if self.pointwise(taps) {
            let out = pointwise(x, (co, ci), Mat::new(w.data, ci), bias);
            return Ok((out, vec![x.dims[0], co, x.dims[2], x.dims[3]]));
        }
        let out = correlate(&plan, x.data, &filters, bias, self.kept(false));
        Ok((out, vec![x.dims[0], co, plan.out[0], plan.out[1]]))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        needs: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let (x, w) = (&args[0], &args[1]);
        let (co, ci, taps) = (w.dims[0], w.dims[1], w.dims[2] * w.dims[3]);
        let gx = needs[0].then(|| {
            if self.pointwise(taps) {
                let dims = [x.dims[0], co, x.dims[2], x.dims[3]];
                return pointwise(&Arg { data: grad, dims: &dims }, (ci, co), Mat::new(w.data, ci).t(), None);
            }
            let plan = Plan::new::<T>(self.transposed(x, w));
            correlate(&plan, grad, &Filters::backward(w), None, self.kept(true))
        });
        let gw = needs[1].then(|| weight_gradient(&Plan::new::<T>(self.shape(x, w)), x.data, grad, co));
        let mut grads = vec![gx, gw];
        if let Some(&needed) = needs.get(2) {
            grads.push(needed.then(|| super::reduce::channel_sums(grad, x.dims[0], co)));
        }
        Ok(grads)
    }
}

/// A convolution with one tap: `w[outputs x inputs]` times each picture, `[batch, outputs, H, W]`.
fn pointwise<T: Real>(
    x: &Arg<T>,
    (outputs, inputs): (usize, usize),
    w: Mat<'_, T>,
    bias: Option<&[T]>,
) -> Vec<T> {
    let (batch, pixels) = (x.dims[0], x.dims[2] * x.dims[3]);
    let mut result = vec![T::ZERO; batch * outputs * pixels];
    let shape = (outputs, pixels, inputs);
    let picture = |n: usize| Mat::new(&x.data[n * inputs * pixels..][..inputs * pixels], pixels);
    let shift = |(n, to): (usize, &mut [T])| {
        if let Some(bias) = bias {
            to.iter_mut().for_each(|v| *v += bias[n % outputs]);
        }
    };
    if batch >= rayon::current_num_threads() {
        result.par_chunks_exact_mut((outputs * pixels).max(1)).enumerate().for_each(|(n, to)| {
            T::with_scratch(|[panels, ..]| {
                let b = pack(picture(n), inputs, pixels, uninit(panels, packed_len::<T>(inputs, pixels)));
                serial(shape, w, Ok(&b), to, pixels, Put::Set);
            });
            to.chunks_exact_mut(pixels).enumerate().for_each(shift);
        });
    } else {
        for (n, to) in result.chunks_exact_mut((outputs * pixels).max(1)).enumerate() {
            product_to(shape, w, picture(n), Shared::new(to));
            to.par_chunks_exact_mut(pixels).enumerate().for_each(shift);
        }
    }
    result
}

/// Filters by output, input and tap.
#[derive(Clone, Copy)]
pub(super) struct Filters<'a, T> {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    taps: usize,
    weight: &'a [T],
    /// Taps in `weight` from one output to the next, and from one input to the next.
    steps: [usize; 2],
    /// The taps lie in `weight` last first.
    pub(super) flipped: bool,
}

impl<'a, T: Real> Filters<'a, T> {
    /// Those of a convolution with `weight` [Co, Ci, k, k].
    fn forward(weight: &Arg<'a, T>) -> Self {
        let (outputs, inputs, taps) = (weight.dims[0], weight.dims[1], weight.dims[2] * weight.dims[3]);
        let steps = [inputs * taps, taps];
        Self { outputs, inputs, taps, weight: weight.data, steps, flipped: false }
    }

    /// Those that take the result's gradient to the input's.
    fn backward(weight: &Arg<'a, T>) -> Self {
        let Self { outputs, inputs, steps: [output, input], .. } = Self::forward(weight);
        Self {
            outputs: inputs,
            inputs: outputs,
            steps: [input, output],
            flipped: true,
            ..Self::forward(weight)
        }
    }

    /// The taps of one filter as they lie in memory.
    #[inline(always)]
    pub(super) fn taps(&self, output: usize, input: usize) -> &'a [T] {
        &self.weight[output * self.steps[0] + input * self.steps[1]..][..self.taps]
    }

    fn blocks(&self) -> usize {
        self.outputs.div_ceil(conv_tile::<T>().0)
    }

    /// Elements of a block.
    fn block_len(&self) -> usize {
        self.inputs * self.taps * conv_tile::<T>().0
    }

    /// One block [inputs][taps][MR] of MR outputs, as the tile reads them; zero beyond the last output.
    fn pack(&self, blk: usize, to: &mut [T]) {
        let mr = conv_tile::<T>().0;
        let present = mr.min(self.outputs - blk * mr);
        if present < mr {
            to.fill(T::ZERO);
        }
        for (i, to) in to.chunks_exact_mut((self.taps * mr).max(1)).enumerate() {
            for m in 0..present {
                let taps = self.taps(blk * mr + m, i);
                for (t, to) in to.chunks_exact_mut(mr).enumerate() {
                    to[m] = taps[if self.flipped { self.taps - 1 - t } else { t }];
                }
            }
        }
    }
}

/// The convolution of `source` as laid out by `plan`: [batch, outputs, Ho, Wo]. `kept`: where the filters' other
/// form may stay, and for which direction.
fn correlate<T: Real>(
    plan: &Plan,
    source: &[T],
    filters: &Filters<'_, T>,
    bias: Option<&[T]>,
    kept: Option<(&Kept, bool)>,
) -> Vec<T> {
    if winograd::pays(&plan.shape, filters.outputs, kept.is_some()) {
        let lifted = kept.map(|(kept, backward)| kept.get(backward, || winograd::lift_all(filters)));
        return winograd::correlate(plan.shape, source, filters, lifted, bias);
    }
    let [ho, wo] = plan.out;
    let mut result = vec![T::ZERO; plan.shape.batch * filters.outputs * ho * wo];
    let out = Shared::new(&mut result);
    let units = plan.units();
    let padded = units.len() * plan.padded_len();
    if filters.blocks() * filters.block_len() > padded.max(FEW_FILTERS) {
        by_filters(plan, &units, source, filters, bias, out);
    } else {
        by_pixels(plan, &units, source, filters, bias, out);
    }
    result
}

/// Filters that are packed before the work starts, in elements: an allocation that the C library keeps.
const FEW_FILTERS: usize = 1 << 20;

/// Small filters, large pictures: filters packed once, a task pads its part of the picture.
fn by_pixels<T: Real>(
    plan: &Plan,
    units: &[Unit],
    source: &[T],
    filters: &Filters<'_, T>,
    bias: Option<&[T]>,
    out: Shared<T>,
) {
    let (blocks, len) = (filters.blocks(), filters.block_len());
    let mut packed = vec![T::ZERO; blocks * len];
    packed.par_chunks_exact_mut(len).enumerate().for_each(|(blk, to)| filters.pack(blk, to));
    // With few units the output channels are split too; each part pads its own copy of the input.
    let parts = (4 * rayon::current_num_threads()).div_ceil(units.len().max(1)).clamp(1, blocks.max(1));
    let per_part = blocks.div_ceil(parts).max(1);
    let parts = blocks.div_ceil(per_part);
    (0..units.len() * parts).into_par_iter().for_each(|task| {
        let unit = units[task / parts];
        let first = task % parts * per_part;
        T::with_scratch(|[padded, rows, _]| {
            let padded = zeroed(padded, plan.padded_len());
            pad(plan, unit, source, padded);
            for blk in first..blocks.min(first + per_part) {
                block(
                    plan,
                    unit,
                    padded,
                    &packed[blk * len..][..len],
                    blk,
                    (filters.outputs, bias),
                    out,
                    rows,
                );
            }
        });
    });
}

/// Large filters, small pictures: all of the picture is padded once, and a task packs a block of filters
/// just before it uses it, in the cache. Packed filters of a large layer would be fresh pages every time,
/// and clearing those takes longer than the arithmetic.
fn by_filters<T: Real>(
    plan: &Plan,
    units: &[Unit],
    source: &[T],
    filters: &Filters<'_, T>,
    bias: Option<&[T]>,
    out: Shared<T>,
) {
    let len = plan.padded_len();
    let mut buffer = Vec::new();
    let padded = zeroed(&mut buffer, units.len() * len);
    padded.par_chunks_exact_mut(len).zip(units).for_each(|(to, unit)| pad(plan, *unit, source, to));
    let padded: &[T] = padded;
    (0..filters.blocks()).into_par_iter().for_each(|blk| {
        T::with_scratch(|[packed, rows, _]| {
            let packed = uninit(packed, filters.block_len());
            filters.pack(blk, packed);
            for (unit, padded) in units.iter().zip(padded.chunks_exact(len)) {
                block(plan, *unit, padded, packed, blk, (filters.outputs, bias), out, rows);
            }
        });
    });
}

/// Copies a unit's part of the source into a buffer of zeros [channel][phase][plane].
fn pad<T: Real>(plan: &Plan, unit: Unit, source: &[T], buffer: &mut [T]) {
    let Shape { channels, height, width, .. } = plan.shape;
    let (size, depth) = (height * width, plan.phases() * plan.plane);
    plan.copies(unit, |c| {
        for channel in 0..channels {
            let from = &source[(c.image * channels + channel) * size..][..size];
            let to = &mut buffer[channel * depth..(channel + 1) * depth];
            if c.step == 1 && c.gap == 1 {
                to[c.to..c.to + c.count].copy_from_slice(&from[c.from..c.from + c.count]);
            } else {
                for i in 0..c.count {
                    to[c.to + i * c.gap] = from[c.from + i * c.step];
                }
            }
        }
    });
}

/// One block of output channels of one unit, with the bias, into the result.
#[expect(clippy::too_many_arguments, reason = "the state of one loop nest")]
fn block<T: Real>(
    plan: &Plan,
    unit: Unit,
    padded: &[T],
    filters: &[T],
    blk: usize,
    (outputs, bias): (usize, Option<&[T]>),
    out: Shared<T>,
    scratch: &mut Vec<T>,
) {
    let (mr, nr) = conv_tile::<T>();
    let [ho, wo] = plan.out;
    let taps = plan.shape.kernel * plan.shape.kernel;
    let steps = plan.shape.channels;
    let offsets = plan.taps(unit.images);
    let pixels = plan.run(unit.images, unit.rows).next_multiple_of(nr);
    assert_eq!(filters.len(), steps * taps * mr, "one block of filters");
    let depth = plan.phases() * plan.plane;
    let reach = offsets.iter().max().copied().unwrap_or(0);
    assert!((steps - 1) * depth + reach + pixels <= padded.len(), "convolution out of bounds");
    let rows = uninit(scratch, mr * pixels);
    for q in (0..pixels).step_by(nr) {
        let terms = Terms {
            steps,
            a: filters.as_ptr(),
            a_row: 1,
            a_term: mr,
            b: padded[q..].as_ptr(),
            b_step: depth,
        };
        // SAFETY: the largest address was checked above; `rows` holds mr rows of `pixels`.
        unsafe { tile::conv(terms, &offsets, rows[q..].as_mut_ptr(), pixels) };
    }
    let pitch = plan.pitch(unit.images);
    for (m, row) in rows.chunks_exact(pixels).enumerate().take(outputs - (blk * mr).min(outputs)) {
        let channel = blk * mr + m;
        let shift = bias.map_or(T::ZERO, |b| b[channel]);
        for n in 0..unit.images {
            let start = (((unit.image + n) * outputs + channel) * ho + unit.row) * wo;
            // SAFETY: units and blocks own disjoint rows of disjoint channels.
            let to = unsafe { out.slice(start, unit.rows * wo) };
            for (y, to) in to.chunks_exact_mut(wo).enumerate() {
                let from = &row[y * pitch + plan.column(n)..][..wo];
                for (t, &f) in to.iter_mut().zip(from) {
                    *t = f + shift;
                }
            }
        }
    }
}
