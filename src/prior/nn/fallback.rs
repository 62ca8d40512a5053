//! The same layers as plain candle operations, for devices and dtypes without kernels here.
//!
//! Only operations whose backward is right are used: no fused softmax, layer norm or nearest upsampling
//! (in candle 0.11 the first two cut the graph silently, the last overwrites gradients).

use candle_core::{D, Result, Tensor};

use super::conv::Padding;

/// See [`super::conv2d`].
pub(crate) fn conv2d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: usize,
    padding: Padding,
) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let (before, after) = padding.sides();
    let k = w.dim(2)?;
    let out = |n: usize| (n + before + after - k) / stride + 1;
    // candle takes the input gradient's size of a strided convolution from the height alone, so the
    // input is made square first.
    let side = height.max(width);
    let rest = |n: usize| if stride > 1 { side - n } else { 0 };
    let extra = after - before;
    let x = x.pad_with_zeros(2, 0, rest(height) + extra)?.pad_with_zeros(3, 0, rest(width) + extra)?;
    let y = x.conv2d(w, before, stride, 1, 1)?;
    let y = y.narrow(2, 0, out(height))?.narrow(3, 0, out(width))?;
    match b {
        Some(b) => y.broadcast_add(&b.reshape((1, b.dim(0)?, 1, 1))?),
        None => Ok(y),
    }
}
