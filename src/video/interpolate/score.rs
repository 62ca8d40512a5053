//! How near the network comes to frames that were left out.

use std::path::Path;

use serde::Serialize;

use super::{IfNet, between, is_cut};
use crate::video::io::{Picture, ReadOptions, Reader};
use crate::{Error, Result};

/// Means over the triples of a clip; dB.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Score {
    /// Triples of successive frames that were looked at.
    pub triples: usize,
    /// PSNR of the network's middle frame.
    pub psnr: f64,
    /// PSNR of the average of the two outer frames.
    pub psnr_of_average: f64,
}

/// Every `every`-th triple of successive frames of `clip`: the middle frame from the outer ones, rounded to
/// 8 bits; cuts and exact repeats are left out.
///
/// # Errors
/// Those of reading and of the network; [`Error::File`] for a clip without such a triple.
pub fn score(net: &IfNet, clip: &Path, every: usize) -> Result<Score> {
    let mut reader = Reader::open(clip, ReadOptions::default())?;
    let (mut score, mut frames): (Score, Vec<Picture>) = (Score::default(), Vec::new());
    let mut number = 0;
    while let Some(frame) = reader.next_frame()? {
        frames.push(frame.picture);
        if frames.len() > 3 {
            frames.remove(0);
        }
        number += 1;
        let [a, middle, b] = &frames[..] else { continue };
        if (number - 3) % every.max(1) != 0 || a == b || is_cut(a, b) {
            continue;
        }
        let average: Vec<f32> = a.rgb.iter().zip(&b.rgb).map(|(a, b)| 0.5 * (a + b)).collect();
        score.triples += 1;
        score.psnr += psnr(&between(net, a, b, 0.5)?.rgb, &middle.rgb);
        score.psnr_of_average += psnr(&average, &middle.rgb);
    }
    if score.triples == 0 {
        return Err(Error::file(clip, "holds no three frames of one scene that differ"));
    }
    score.psnr /= score.triples as f64;
    score.psnr_of_average /= score.triples as f64;
    Ok(score)
}

fn psnr(a: &[f32], b: &[f32]) -> f64 {
    let code = |v: &f32| f64::from((v.clamp(0.0, 1.0) * 255.0).round());
    let sum: f64 = a.iter().zip(b).map(|(a, b)| (code(a) - code(b)).powi(2)).sum();
    let mean = sum / (a.len().max(1) as f64 * 255.0 * 255.0);
    -10.0 * mean.max(1e-10).log10()
}

#[cfg(test)]
mod tests {
    use super::psnr;

    #[test]
    fn decibels() {
        let (a, b) = (vec![0.0; 300], vec![51.0 / 255.0; 300]);
        assert!((psnr(&a, &b) - 20.0 * 5f64.log10()).abs() < 1e-9, "a fifth of the range");
        assert_eq!(psnr(&a, &a), 100.0);
    }
}
