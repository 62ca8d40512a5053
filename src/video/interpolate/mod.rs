//! More frames: a clip at a multiple of its rate, or at another, by a flow network.

mod block;
mod ifnet;
mod pace;
mod run;
mod score;
mod start;
mod tiles;

pub use ifnet::{IfNet, IfNetConfig};
pub use pace::Pace;
pub use run::Interpolation;
pub use score::{Score, score};

use candle_core::{Device, Tensor};

use super::fit::resize;
use super::io::Picture;
use super::metrics::similarity;
use crate::Result;

/// Two frames less alike than this (SSIM of 32x32 pixels) are two scenes: nothing lies between them.
const CUT: f64 = 0.2;

/// The picture at `time` between two of one size; large ones in tiles. Of two equal frames it is those.
///
/// # Errors
/// Of the network.
pub fn between(net: &IfNet, a: &Picture, b: &Picture, time: f64) -> Result<Picture> {
    let (w, h) = (a.width, a.height);
    let alpha = a
        .alpha
        .as_ref()
        .zip(b.alpha.as_ref())
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + (b - a) * time as f32).collect());
    if a.rgb == b.rgb {
        return Ok(Picture { alpha, ..a.clone() });
    }
    let tensor = |p: &Picture| -> Result<Tensor> {
        Ok(Tensor::from_slice(&p.rgb, (1, 3, h, w), &Device::Cpu)?.clamp(0f32, 1f32)?)
    };
    let (a, b) = (tensor(a)?, tensor(b)?);
    let (rows, columns) = (tiles::spans(h), tiles::spans(w));
    let mut rgb = vec![0.0; 3 * w * h];
    for row in &rows {
        for column in &columns {
            let (th, tw) = (row.weights.len(), column.weights.len());
            let cut = |x: &Tensor| x.narrow(2, row.start, th)?.narrow(3, column.start, tw)?.contiguous();
            let tile = net.between_padded(&cut(&a)?, &cut(&b)?, &[time])?.flatten_all()?.to_vec1::<f32>()?;
            if (th, tw) == (h, w) {
                return Ok(Picture { width: w, height: h, rgb: tile, alpha });
            }
            for (i, line) in tile.chunks_exact(tw).enumerate() {
                let (channel, y) = (i / th, i % th);
                let at = channel * w * h + (row.start + y) * w + column.start;
                for ((out, v), weight) in rgb[at..].iter_mut().zip(line).zip(&column.weights) {
                    *out += v * weight * row.weights[y];
                }
            }
        }
    }
    Ok(Picture { width: w, height: h, rgb, alpha })
}

/// True if the two are of different scenes.
pub fn is_cut(a: &Picture, b: &Picture) -> bool {
    let thumb = |p: &Picture| p.map_planes((32, 32), |plane| resize(plane, (p.width, p.height), (32, 32)));
    similarity::ssim(&thumb(a), &thumb(b), &[1.0; 1024]).is_some_and(|s| s < CUT)
}
