//! Where a small network starts from: flows that need no learning (Lucas-Kanade, coarse to fine), brought to
//! the wanted time (Jiang et al. 2018, eq. 4), and which of the frames shows what the other hides.

use candle_core::{Device, Tensor};

use crate::Result;
use crate::prior::nn::warp;
use crate::video::metrics::flow::Flow;

/// By how much the logit leans to the frame that alone shows a place.
const HIDDEN: f32 = 4.0;
/// The least share of a frame.
const LEAST: f64 = 0.02;

/// Flows `[B, 4, H, W]` from `times` to the first and the second of frames `[B, 3, H, W]`, in pixels, and the
/// logit `[B, 1, H, W]` of the first one's share.
pub(super) fn start(a: &Tensor, b: &Tensor, times: &[f64]) -> Result<(Tensor, Tensor)> {
    let (mut flows, mut logits) = (Vec::new(), Vec::new());
    for (row, &time) in times.iter().enumerate() {
        let (flow, logit) = one(&a.get(row)?, &b.get(row)?, time)?;
        flows.push(flow);
        logits.push(logit);
    }
    Ok((Tensor::cat(&flows, 0)?, Tensor::cat(&logits, 0)?))
}

fn one(a: &Tensor, b: &Tensor, t: f64) -> Result<(Tensor, Tensor)> {
    let (_, h, w) = a.dims3()?;
    let (la, lb) = (luma(a)?, luma(b)?);
    let (there, back) = rayon::join(|| Flow::estimate(&la, &lb, w, h), || Flow::estimate(&lb, &la, w, h));
    let mix = |x: &[f32], y: &[f32], p: f64, q: f64| -> Vec<f32> {
        x.iter().zip(y).map(|(x, y)| p as f32 * x + q as f32 * y).collect()
    };
    let to = |p: f64, q: f64| [mix(&there.u, &back.u, p, q), mix(&there.v, &back.v, p, q)].concat();
    let to_a = Tensor::from_vec(to(-(1.0 - t) * t, t * t), (1, 2, h, w), &Device::Cpu)?;
    let to_b = Tensor::from_vec(to((1.0 - t).powi(2), -t * (1.0 - t)), (1, 2, h, w), &Device::Cpu)?;
    let seen = |of: &Flow, back: &Flow, flow: &Tensor| -> Result<Tensor> {
        Ok(warp(&Tensor::from_vec(of.visible(back), (1, 1, h, w), &Device::Cpu)?, flow)?)
    };
    // What of a is not seen in b is a's alone.
    let (in_b, in_a) = (seen(&there, &back, &to_a)?, seen(&back, &there, &to_b)?);
    let share = (1.0 - t).clamp(LEAST, 1.0 - LEAST);
    let logit = ((in_a - in_b)? * f64::from(HIDDEN))?.affine(1.0, (share / (1.0 - share)).ln())?;
    Ok((Tensor::cat(&[to_a, to_b], 1)?, logit))
}

/// Rec. 709 luma of `[3, H, W]`.
fn luma(x: &Tensor) -> Result<Vec<f32>> {
    let planes = x.flatten_from(1)?.to_vec2::<f32>()?;
    let [r, g, b] = &planes[..] else { return Ok(Vec::new()) };
    Ok(r.iter().zip(g).zip(b).map(|((r, g), b)| 0.2126 * r + 0.7152 * g + 0.0722 * b).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_translation_is_found_at_any_time() {
        // A texture that moves by (4, −3) pixels from a to b.
        let picture = |t: f32| {
            let at = move |i: usize| {
                let (x, y) = ((i % 64) as f32 - 4.0 * t, (i / 64 % 48) as f32 + 3.0 * t);
                0.5 + 0.2 * (0.31 * x + 0.17 * y).sin()
                    + 0.2 * (0.23 * y - 0.11 * x + (i / 3072) as f32).cos()
            };
            Tensor::from_vec((0..3 * 3072).map(at).collect::<Vec<f32>>(), (1, 3, 48, 64), &Device::Cpu)
                .unwrap()
        };
        let (a, b) = (picture(0.0), picture(1.0));
        for t in [0.25, 0.5, 0.75] {
            let (flow, logit) = start(&a, &b, &[t]).unwrap();
            let flow = flow.narrow(2, 12, 24).unwrap().narrow(3, 12, 40).unwrap();
            let means = flow.mean((2, 3)).unwrap().to_vec2::<f32>().unwrap().remove(0);
            let t = t as f32;
            for (got, want) in means.iter().zip([-4.0 * t, 3.0 * t, 4.0 * (1.0 - t), -3.0 * (1.0 - t)]) {
                assert!((got - want).abs() < 0.15, "{t}: {means:?}");
            }
            let middle = logit.narrow(2, 12, 24).unwrap().narrow(3, 12, 40).unwrap();
            let middle = middle.mean_all().unwrap().to_scalar::<f32>().unwrap();
            assert!((middle - ((1.0 - t) / t).ln()).abs() < 0.2, "{middle}");
        }
    }
}
