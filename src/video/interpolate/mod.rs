//! More frames: a clip at a multiple of its rate, by a flow network.

mod ifnet;
mod warp;

pub use ifnet::IfNet;
pub use warp::{scale, warp};

use std::path::Path;

use candle_core::{Device, Tensor};

use super::fit::resize;
use super::io::{
    Encoding, Flow, Info, Picture, Progress, Ratio, ReadOptions, Reader, Stamp, Writer, Written,
};
use super::metrics::similarity;
use crate::{Error, Result};

/// Two frames less alike than this (SSIM of 32x32 pixels) are two scenes: nothing lies between them.
const CUT: f64 = 0.2;

/// The picture at `time` between two of one size.
///
/// # Errors
/// Of the network.
pub fn between(net: &IfNet, a: &Picture, b: &Picture, time: f64) -> Result<Picture> {
    let (w, h) = (a.width, a.height);
    let size = (w.next_multiple_of(ifnet::MULTIPLE), h.next_multiple_of(ifnet::MULTIPLE));
    let tensor = |p: &Picture| -> Result<Tensor> {
        let x = Tensor::from_slice(&p.rgb, (1, 3, h, w), &Device::Cpu)?.clamp(0f32, 1f32)?;
        // Zeros, as in training.
        Ok(x.pad_with_zeros(2, 0, size.1 - h)?.pad_with_zeros(3, 0, size.0 - w)?)
    };
    let out = net.between(&tensor(a)?, &tensor(b)?, time)?;
    let rgb = out.narrow(2, 0, h)?.narrow(3, 0, w)?.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
    let alpha = a
        .alpha
        .as_ref()
        .zip(b.alpha.as_ref())
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + (b - a) * time as f32).collect());
    Ok(Picture { width: w, height: h, rgb, alpha })
}

/// True if the two are of different scenes.
pub fn is_cut(a: &Picture, b: &Picture) -> bool {
    let thumb = |p: &Picture| p.map_planes((32, 32), |plane| resize(plane, (p.width, p.height), (32, 32)));
    similarity::ssim(&thumb(a), &thumb(b), &[1.0; 1024]).is_some_and(|s| s < CUT)
}

/// Writes `input` with `factor` frames for each one: `(F − 1)·factor + 1`, the source's among them at
/// their own times. Across a cut the frame before it is repeated.
///
/// # Errors
/// Those of reading, of the network and of writing; [`Error::Interrupted`].
pub fn interpolate(
    net: &IfNet,
    input: &Path,
    output: &Path,
    factor: u32,
    encoding: &Encoding,
    progress: &mut dyn FnMut(Progress) -> Flow,
) -> Result<Written> {
    Writer::check(output, input, encoding)?;
    let mut reader = Reader::open(input, ReadOptions::default())?;
    let mut last =
        reader.next_frame()?.ok_or_else(|| Error::file(input, "its video stream holds no frame"))?;
    let info = faster(reader.info(), factor)?;
    let n = i64::from(factor);
    let mut writer = Writer::create(output, &info, info.size, encoding)?;
    let mut done = 0;
    while let Some(next) = reader.next_frame()? {
        // In ticks of a factor-th, the source's time step divides evenly.
        let (start, step) = (last.stamp.pts * n, next.stamp.pts - last.stamp.pts);
        let cut = is_cut(&last.picture, &next.picture);
        for k in 1..n {
            let stamp = Stamp { pts: start + k * step, duration: step };
            let picture = match cut {
                true => last.picture.clone(),
                false => between(net, &last.picture, &next.picture, k as f64 / n as f64)?,
            };
            if k == 1 {
                writer.push(last.picture.clone(), Stamp { pts: start, duration: step })?;
            }
            writer.push(picture, stamp)?;
        }
        if n == 1 {
            writer.push(last.picture, Stamp { pts: start, duration: step })?;
        }
        last = next;
        done += 1;
        if progress(Progress { done, total: reader.info().frames }) == Flow::Stop {
            return Err(Error::Interrupted);
        }
    }
    let stamp = Stamp { pts: last.stamp.pts * n, duration: last.stamp.duration * n };
    writer.push(last.picture, stamp)?;
    writer.finish()
}

/// The clip's description at `factor` times its rate, with ticks as much finer.
fn faster(info: &Info, factor: u32) -> Result<Info> {
    let times = |value: i32| {
        i32::try_from(i64::from(value) * i64::from(factor)).map_err(|_| {
            Error::invalid("--factor", format!("{factor} is too much for a time base of {}", info.time_base))
        })
    };
    let time_base = Ratio { num: info.time_base.num, den: times(info.time_base.den)? };
    let rate = info.rate.map(|r| times(r.num).map(|num| Ratio { num, den: r.den })).transpose()?;
    Ok(Info { time_base, rate, ..info.clone() })
}
