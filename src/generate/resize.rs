//! Square pictures at another size, on candle's tape, and gradients back to the pictures.

use candle_core::{Tensor, Var};

use crate::{Error, Result};

/// Square pictures at a smaller size: the mean over whole blocks if there are any, else bilinear.
pub(super) fn shrunk(x: &Tensor, size: usize) -> Result<Tensor> {
    let (b, c, from, _) = x.dims4()?;
    if size == 0 || !from.is_multiple_of(size) {
        return resized(x, size.max(1));
    }
    let k = from / size;
    Ok(x.reshape((b * c * size, k, size, k))?.mean((1, 3))?.reshape((b, c, size, size))?)
}

/// Square pictures `[B, C, S, S]` at another size, bilinearly between pixel centres (on the tape).
pub(super) fn resized(x: &Tensor, size: usize) -> Result<Tensor> {
    let (b, c, from, _) = x.dims4()?;
    if from == size {
        return Ok(x.clone());
    }
    let mut weights = vec![0f32; size * from];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let at = ((i as f32 + 0.5) * from as f32 / size as f32 - 0.5).clamp(0.0, (from - 1) as f32);
        let (low, share) = (at.floor() as usize, at.fract());
        row[low] += 1.0 - share;
        row[(low + 1).min(from - 1)] += share;
    }
    let weights = Tensor::from_vec(weights, (size, from), x.device())?;
    let columns = x.reshape((b * c * from, from))?.matmul(&weights.t()?)?;
    let columns = columns.reshape((b * c, from, size))?.transpose(1, 2)?.contiguous()?;
    let both = columns.reshape((b * c * size, from))?.matmul(&weights.t()?)?;
    let both = both.reshape((b * c, size, size))?.transpose(1, 2)?.contiguous()?;
    Ok(both.reshape((b, c, size, size))?)
}

/// ∂L/∂pixels from the gradient by `shown`, which are `pixels` at another size or themselves.
pub(super) fn through_size(gradient: &Tensor, shown: &Tensor, pixels: &Var) -> Result<Vec<f32>> {
    if shown.dims() == pixels.dims() {
        return Ok(gradient.flatten_all()?.to_vec1()?);
    }
    pull_back(shown, gradient, pixels)
}

/// ∂L/∂pixels from ∂L/∂z: the tape of `Σ z · g` with `g` held constant.
pub(super) fn pull_back(z: &Tensor, gradient: &Tensor, pixels: &Var) -> Result<Vec<f32>> {
    let grads = (z * gradient.detach())?.sum_all()?.backward()?;
    let gradient = grads
        .get(pixels.as_tensor())
        .ok_or_else(|| Error::Failed("the encoder passes no gradient to the picture".into()))?;
    Ok(gradient.flatten_all()?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn pull_back_is_the_vector_jacobian_product() {
        // z = x², so the pull-back of g is 2 x g.
        let x = Var::from_vec(vec![1f32, -2.0, 0.5], (1, 3), &Device::Cpu).unwrap();
        let z = x.as_tensor().sqr().unwrap();
        let g = Tensor::new(&[[3f32, 1.0, -4.0]], &Device::Cpu).unwrap();
        assert_eq!(pull_back(&z, &g, &x).unwrap(), [6.0, -4.0, -4.0]);
    }

    #[test]
    fn resizing_is_bilinear_between_pixel_centres_and_its_gradient_is_the_transpose() {
        let ramp: Vec<f32> = (0..16).map(|i| (i % 4 * 2 + i / 4) as f32).collect();
        let x = Var::from_vec(ramp, (1, 1, 4, 4), &Device::Cpu).unwrap();
        let up = resized(x.as_tensor(), 8).unwrap();
        let rows = up.squeeze(0).unwrap().squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        // Known values of torch's interpolate(mode="bilinear", align_corners=False) on a ramp.
        assert_eq!(rows[0], [0.0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.0]);
        assert_eq!(rows[3][0], 1.25);
        // Linear: Σ g · resized(x) is Σ gradient · x.
        let g = Tensor::arange(0f32, 64.0, &Device::Cpu).unwrap().reshape((1, 1, 8, 8)).unwrap();
        let by_x = pull_back(&up, &g, &x).unwrap();
        let sum =
            |a: &Tensor, b: &Tensor| -> f32 { (a * b).unwrap().sum_all().unwrap().to_scalar().unwrap() };
        let by_x = Tensor::from_vec(by_x, (1, 1, 4, 4), &Device::Cpu).unwrap();
        assert!((sum(&up, &g) - sum(x.as_tensor(), &by_x)).abs() < 1e-2);
    }
}
