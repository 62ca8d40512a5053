//! The losses of the evaluator's training.

use candle_core::{D, DType, Tensor};

use crate::error::Result;

/// InfoNCE in both directions (van den Oord et al. 2018, as in CLIP): picture i belongs to text i and to no
/// other of the batch, except that texts of equal `captions` are no negatives of each other.
///
/// `images` and `texts` are unit vectors `[B, width]`, `scale` `[1]` multiplies their similarities. Returns
/// the mean loss in nats, a scalar.
///
/// # Errors
/// If shapes do not fit.
pub fn info_nce(images: &Tensor, texts: &Tensor, scale: &Tensor, captions: &[usize]) -> Result<Tensor> {
    let logits = images.matmul(&texts.t()?)?.broadcast_mul(scale)?;
    let right = (images * texts)?.sum(D::Minus1)?.broadcast_mul(scale)?;
    let logits = (logits + equals(captions, images)?)?;
    let towards = |dim: usize| -> Result<Tensor> { Ok((log_sum_exp(&logits, dim)? - &right)?.mean_all()?) };
    Ok(((towards(1)? + towards(0)?)? * 0.5)?)
}

/// `[B, B]`: far below zero where two entries are different pictures of one caption, else zero.
fn equals(captions: &[usize], like: &Tensor) -> Result<Tensor> {
    const NEVER: f32 = -1e4;
    let n = captions.len();
    let at = |i: usize, j: usize| if i != j && captions[i] == captions[j] { NEVER } else { 0.0 };
    let values: Vec<f32> = (0..n * n).map(|k| at(k / n, k % n)).collect();
    Ok(Tensor::from_vec(values, (n, n), like.device())?.to_dtype(like.dtype())?)
}

fn log_sum_exp(x: &Tensor, dim: usize) -> Result<Tensor> {
    // Any constant may be drawn out of the sum; the largest keeps the exponentials finite.
    let top = x.max_keepdim(dim)?.detach();
    let sum = x.broadcast_sub(&top)?.exp()?.sum(dim)?;
    Ok((sum.log()? + top.squeeze(dim)?)?)
}

/// Mean squared distance of predicted vectors `[B, 2]` from (cos, sin) of the true azimuths (radians), or
/// from zero where there is none.
///
/// The best prediction is then the mean vector of all azimuths from which a thing can look so: its
/// direction is the azimuth, its length how sure that is. An apple has none, a table two opposite ones.
///
/// # Errors
/// If shapes do not fit.
pub fn azimuth_loss(predicted: &Tensor, azimuths: &[Option<f32>]) -> Result<Tensor> {
    let target: Vec<f32> = azimuths.iter().flat_map(|a| a.map_or([0.0; 2], |a| [a.cos(), a.sin()])).collect();
    let target = Tensor::from_vec(target, (azimuths.len(), 2), predicted.device())?;
    let off = (predicted - target.to_dtype(predicted.dtype())?)?.sqr()?.sum(D::Minus1)?;
    Ok(off.mean_all()?)
}

/// Share of pictures `[B, width]` whose nearest text of the batch has their caption.
///
/// # Errors
/// If shapes do not fit.
pub fn batch_top1(images: &Tensor, texts: &Tensor, captions: &[usize]) -> Result<f64> {
    let best = images.matmul(&texts.t()?)?.argmax(1)?.to_dtype(DType::U32)?.to_vec1::<u32>()?;
    let right = best.iter().zip(captions).filter(|(b, c)| captions[**b as usize] == **c).count();
    Ok(right as f64 / captions.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn tensor(values: &[f64], rows: usize) -> Tensor {
        Tensor::from_slice(values, (rows, values.len() / rows), &Device::Cpu).unwrap()
    }

    fn scalar(t: &Tensor) -> f64 {
        t.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    const SCALE: f64 = 3.0;

    fn loss(images: &Tensor, texts: &Tensor, captions: &[usize]) -> Tensor {
        let scale = Tensor::new(&[SCALE], &Device::Cpu).unwrap();
        info_nce(images, texts, &scale, captions).unwrap()
    }

    #[test]
    fn agrees_with_the_value_by_hand() {
        // Similarities [[1, 0], [.6, .8]], times 3.
        let (images, texts) = (tensor(&[1., 0., 0.6, 0.8], 2), tensor(&[1., 0., 0., 1.], 2));
        let ln = |a: f64, b: f64| (a.exp() + b.exp()).ln();
        let rows = (ln(3., 0.) - 3. + ln(1.8, 2.4) - 2.4) / 2.;
        let columns = (ln(3., 1.8) - 3. + ln(0., 2.4) - 2.4) / 2.;
        let found = scalar(&loss(&images, &texts, &[0, 1]));
        assert!((found - 0.5 * (rows + columns)).abs() < 1e-9, "{found} {rows} {columns}");
    }

    #[test]
    fn equal_captions_are_no_negatives() {
        let images = tensor(&[1., 0., 0.6, 0.8, 0., 1.], 3);
        let texts = tensor(&[1., 0., 0.8, 0.6, 1., 0.], 3);
        let all = scalar(&loss(&images, &texts, &[0, 1, 2]));
        let some = scalar(&loss(&images, &texts, &[0, 1, 0]));
        // By hand: entries 0 and 2 are left out of each other's sums.
        let dot = |i: usize, j: usize| {
            let row = |t: &Tensor, i: usize| t.to_vec2::<f64>().unwrap()[i].clone();
            SCALE * row(&images, i).iter().zip(row(&texts, j)).map(|(a, b)| a * b).sum::<f64>()
        };
        let ok = |i: usize, j: usize| i == j || i + j != 2;
        let sum = |f: &dyn Fn(usize) -> Option<f64>| (0..3).filter_map(f).map(f64::exp).sum::<f64>().ln();
        let expected: f64 = (0..3)
            .map(|i| {
                let row = sum(&|j| ok(i, j).then(|| dot(i, j)));
                let column = sum(&|j| ok(i, j).then(|| dot(j, i)));
                (row + column - 2.0 * dot(i, i)) / 6.0
            })
            .sum();
        assert!((some - expected).abs() < 1e-9, "{some} {expected}");
        assert!(some < all - 0.1, "{some} {all}");
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let captions = [0, 1, 0];
        let values = [0.3, -0.9, 0.5, 0.7, -0.2, 0.4];
        let texts = tensor(&[0.8, 0.1, -0.5, 0.6, 0.9, -0.3], 3);
        let at = |v: &[f64]| scalar(&loss(&tensor(v, 3), &texts, &captions));
        let var = Var::from_tensor(&tensor(&values, 3)).unwrap();
        let grads = loss(var.as_tensor(), &texts, &captions).backward().unwrap();
        let found = grads.get(var.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for i in 0..values.len() {
            let shifted = |by: f64| {
                let mut v = values;
                v[i] += by;
                at(&v)
            };
            let slope = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            assert!((slope - found[i]).abs() < 1e-7, "{i}: {slope} {}", found[i]);
        }
    }

    #[test]
    fn azimuths_without_a_front_pull_to_zero_and_top1_counts_captions() {
        let predicted = tensor(&[0.0, 1.0, 0.6, 0.8], 2);
        let quarter = std::f32::consts::FRAC_PI_2;
        let found = scalar(&azimuth_loss(&predicted, &[Some(quarter), None]).unwrap());
        assert!((found - 0.5).abs() < 1e-6, "{found}");
        let images = tensor(&[1., 0., 0., 1., 0.7, 0.7], 3);
        let texts = tensor(&[0.9, 0.1, 1., 0., 0., 1.], 3);
        assert!((batch_top1(&images, &texts, &[0, 1, 2]).unwrap() - 0.0).abs() < 1e-9);
        assert!((batch_top1(&images, &texts, &[4, 1, 4]).unwrap() - 1.0 / 3.0).abs() < 1e-9);
    }
}
