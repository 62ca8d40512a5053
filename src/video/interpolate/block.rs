//! One block of [`super::IfNet`]: from what is known of the flows to a better guess.

use std::sync::LazyLock;

use candle_core::{Result as Candle, Tensor};

use crate::Result;
use crate::prior::nn::{Padding, conv2d, prelu, scale};
use crate::prior::weights::Init;

/// Gives a tensor of a name and shape; the last argument is what it starts with when it is fresh.
pub(super) type Get<'a> = dyn FnMut(&str, &[usize], Init) -> Result<Tensor> + 'a;

/// A convolution and the slopes of the PReLU after it.
struct Layer {
    weight: Tensor,
    bias: Tensor,
    slope: Tensor,
    stride: usize,
}

impl Layer {
    fn new(name: &str, from: usize, to: usize, stride: usize, get: &mut Get<'_>) -> Result<Self> {
        let init = Init::Uniform(9 * from);
        Ok(Self {
            weight: get(&format!("{name}.0.weight"), &[to, from, 3, 3], init)?,
            bias: get(&format!("{name}.0.bias"), &[to], init)?,
            slope: get(&format!("{name}.1.weight"), &[to], Init::Constant(0.25))?,
            stride,
        })
    }

    fn forward(&self, x: &Tensor) -> Candle<Tensor> {
        prelu(&conv2d(x, &self.weight, Some(&self.bias), self.stride, Padding::Same(1))?, &self.slope)
    }
}

/// Outputs of a block: changes of two flows (x and y each) and of the mask's logit.
const OUTPUTS: usize = 5;

pub(super) struct Block {
    head: [Layer; 2],
    body: Vec<Layer>,
    last: (Tensor, Tensor),
}

impl Block {
    /// A block of `channels` with `depth` layers between its ends, for pictures of `inputs` channels.
    pub(super) fn new(inputs: usize, channels: usize, depth: usize, get: &mut Get<'_>) -> Result<Self> {
        let c = channels;
        let head = [Layer::new("conv0.0", inputs, c / 2, 2, get)?, Layer::new("conv0.1", c / 2, c, 2, get)?];
        let body =
            (0..depth).map(|k| Layer::new(&format!("convblock.{k}"), c, c, 1, get)).collect::<Result<_>>()?;
        // A fresh network starts near the average of its frames.
        let weight = get("lastconv.weight", &[c, OUTPUTS, 4, 4], Init::Normal(1e-3))?;
        Ok(Self { head, body, last: (weight, get("lastconv.bias", &[OUTPUTS], Init::Zeros)?) })
    }

    /// Changes of the flows `[B, 4, H, W]` (pixels) and of the mask's logit `[B, 1, H, W]`, found at
    /// 1/`at` of the size.
    pub(super) fn forward(&self, x: &Tensor, flow: Option<&Tensor>, at: usize) -> Candle<(Tensor, Tensor)> {
        let (_, _, h, w) = x.dims4()?;
        let mut x = scale(x, h / at, w / at)?;
        if let Some(flow) = flow {
            let flow = (scale(flow, h / at, w / at)? / at as f64)?;
            x = Tensor::cat(&[x, flow], 1)?;
        }
        let features = self.head[1].forward(&self.head[0].forward(&x)?)?;
        let mut y = features.clone();
        for layer in &self.body {
            y = layer.forward(&y)?;
        }
        let y = scale(&doubled(&(y + features)?, &self.last.0, &self.last.1)?, h, w)?;
        Ok(((y.narrow(1, 0, 4)? * (2 * at) as f64)?, y.narrow(1, 4, 1)?))
    }
}

/// For each tap of a 3x3 filter and each pixel of a 2x2 cell, the tap of the transposed 4x4 filter that
/// links them; 16 where there is none.
static TAPS: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let mut taps = Vec::with_capacity(4 * 9);
    for (a, b) in [(0i32, 0i32), (0, 1), (1, 0), (1, 1)] {
        for (dy, dx) in (-1..=1).flat_map(|y| (-1..=1).map(move |x| (y, x))) {
            let (ky, kx) = (a + 1 - 2 * dy, b + 1 - 2 * dx);
            let inside = (0..4).contains(&ky) && (0..4).contains(&kx);
            taps.push(if inside { (4 * ky + kx) as u32 } else { 16 });
        }
    }
    taps
});

/// PyTorch's `ConvTranspose2d(kernel 4, stride 2, padding 1)` of `x` `[B, C, H, W]` with `weight`
/// `[C, O, 4, 4]` and `bias` `[O]`, as a convolution to the four pixels of each cell: `[B, O, 2H, 2W]`.
fn doubled(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Candle<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let o = weight.dim(1)?;
    let taps = Tensor::from_slice(&TAPS, 4 * 9, x.device())?;
    let filter = weight.reshape((c, o, 16))?.pad_with_zeros(2, 0, 1)?.contiguous()?.index_select(&taps, 2)?;
    let filter = filter.reshape((c, o * 4, 9))?.transpose(0, 1)?.contiguous()?.reshape((o * 4, c, 3, 3))?;
    let y = conv2d(x, &filter, None, 1, Padding::Same(1))?.reshape((b, o, 2, 2, h * w))?;
    let y = y.reshape((b * o, 2, 2, h, w))?.permute((0, 3, 1, 4, 2))?.contiguous()?;
    y.reshape((b, o, 2 * h, 2 * w))?.broadcast_add(&bias.reshape((1, o, 1, 1))?)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::rng::{Rng, Stream};

    #[test]
    fn doubling_is_the_transposed_convolution() {
        let normal = |shape: &[usize], step| {
            let n = shape.iter().product();
            Tensor::from_vec(Rng::new(4, Stream::Probe, step).normals(0, n), shape, &Device::Cpu).unwrap()
        };
        let (x, weight, bias) = (normal(&[2, 6, 3, 5], 0), normal(&[6, 5, 4, 4], 1), normal(&[5], 2));
        let ours = doubled(&x, &weight, &bias).unwrap();
        let theirs = x.conv_transpose2d(&weight, 1, 0, 2, 1).unwrap();
        let theirs = theirs.broadcast_add(&bias.reshape((1, 5, 1, 1)).unwrap()).unwrap();
        assert_eq!(ours.dims(), theirs.dims());
        let off = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
        let off = off.to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap();
        assert!(off < 1e-4, "{off}");
    }
}
