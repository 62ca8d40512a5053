//! Textures: the pyramid of halved pictures, sampling and their gradients.

use rayon::prelude::*;

use super::PIXEL_CHUNK;
use crate::gpu::kernels::TextureParams;

/// Columns and rows of a level.
#[inline(always)]
fn size(p: &TextureParams, level: u32) -> [usize; 2] {
    [(p.width >> level).max(1) as usize, (p.height >> level).max(1) as usize]
}

/// Where a level begins.
#[inline(always)]
fn start(p: &TextureParams, level: u32) -> usize {
    (0..level).map(|l| size(p, l).iter().product::<usize>()).sum::<usize>() * p.channels as usize
}

/// The finer level's texels under texel (x, y), as offsets of texels, and their number.
fn children(fine: [usize; 2], coarse: [usize; 2], x: usize, y: usize) -> ([usize; 4], usize) {
    let (sx, sy) = (fine[0] / coarse[0], fine[1] / coarse[1]);
    let mut out = [0; 4];
    for (i, out) in out.iter_mut().enumerate().take(sx * sy) {
        *out = (y * sy + i / sx) * fine[0] + x * sx + i % sx;
    }
    (out, sx * sy)
}

/// Level `p.level` from the one before, by means; see [`crate::gpu::kernels::Kernel::TextureMip`].
pub fn texture_mip(p: &TextureParams, texels: &mut [f32]) {
    let (fine, coarse, channels) = (size(p, p.level - 1), size(p, p.level), p.channels as usize);
    let (before, from) = texels.split_at_mut(start(p, p.level));
    let before = &before[start(p, p.level - 1)..];
    let out = from[..coarse[0] * coarse[1] * channels].par_chunks_exact_mut(channels);
    out.with_min_len(PIXEL_CHUNK).enumerate().for_each(|(texel, out)| {
        let (children, n) = children(fine, coarse, texel % coarse[0], texel / coarse[0]);
        for (c, out) in out.iter_mut().enumerate() {
            *out = children[..n].iter().map(|t| before[channels * t + c]).sum::<f32>() / n as f32;
        }
    });
}

/// Adds the gradient of level `p.level` to that of the one before; see
/// [`crate::gpu::kernels::Kernel::TextureMipBackward`].
pub fn texture_mip_backward(p: &TextureParams, texels_grad: &mut [f32]) {
    let (fine, coarse, channels) = (size(p, p.level - 1), size(p, p.level), p.channels as usize);
    let (before, from) = texels_grad.split_at_mut(start(p, p.level));
    let (sx, sy) = (fine[0] / coarse[0], fine[1] / coarse[1]);
    let out = before[start(p, p.level - 1)..].par_chunks_exact_mut(channels);
    out.with_min_len(PIXEL_CHUNK).enumerate().for_each(|(texel, out)| {
        let parent = texel / fine[0] / sy * coarse[0] + texel % fine[0] / sx;
        for (c, out) in out.iter_mut().enumerate() {
            *out += from[channels * parent + c] / (sx * sy) as f32;
        }
    });
}

/// Four texels of a level (offsets of their first channel) and the place between them.
struct Taps {
    at: [usize; 4],
    fx: f32,
    fy: f32,
}

/// A coordinate brought near 0 without changing what it means, so that it fits an integer.
#[inline(always)]
fn reduce(p: &TextureParams, u: f32) -> f32 {
    match p.wrap {
        _ if u.is_nan() || u.abs() >= 1e6 => 0.0,
        0 => u - u.floor(),
        1 => u.clamp(-1.0, 2.0),
        _ => u - 2.0 * (0.5 * u).floor(),
    }
}

#[inline(always)]
fn wrap(p: &TextureParams, i: i32, n: i32) -> usize {
    let i = match p.wrap {
        0 => i.rem_euclid(n),
        1 => i.clamp(0, n - 1),
        _ => {
            let i = i.rem_euclid(2 * n);
            if i < n { i } else { 2 * n - 1 - i }
        }
    };
    i as usize
}

#[inline(always)]
fn taps(p: &TextureParams, level: u32, uv: [f32; 2]) -> Taps {
    let ([width, height], start) = (size(p, level), start(p, level));
    let place = |u: f32, n: usize| {
        let x = reduce(p, u) * n as f32 - 0.5;
        let low = if p.sampling == 0 { (x + 0.5).floor() } else { x.floor() };
        let share = if p.sampling == 0 { 0.0 } else { x - low };
        (wrap(p, low as i32, n as i32), wrap(p, low as i32 + 1, n as i32), share)
    };
    let ((x0, x1, fx), (y0, y1, fy)) = (place(uv[0], width), place(uv[1], height));
    let texel = |x: usize, y: usize| start + p.channels as usize * (y * width + x);
    Taps { at: [texel(x0, y0), texel(x1, y0), texel(x0, y1), texel(x1, y1)], fx, fy }
}

impl Taps {
    #[inline(always)]
    fn weights(&self) -> [f32; 4] {
        let (gx, gy) = (1.0 - self.fx, 1.0 - self.fy);
        [gx * gy, self.fx * gy, gx * self.fy, self.fx * self.fy]
    }
}

/// The levels to mix with their weights; the weight of an unused one is zero.
#[inline(always)]
fn levels(p: &TextureParams, footprint: &[f32]) -> [(u32, f32); 2] {
    if p.sampling < 2 || p.levels < 2 {
        return [(0, 1.0), (0, 0.0)];
    }
    let (w, h) = (p.width as f32, p.height as f32);
    let step = |u: f32, v: f32| (u * w) * (u * w) + (v * h) * (v * h);
    let longest = step(footprint[0], footprint[2]).max(step(footprint[1], footprint[3]));
    // Half the logarithm of a square; below one texel a pixel, the level is 0.
    let level = (0.5 * longest.clamp(1.0, 1e30).log2()).min((p.levels - 1) as f32);
    let low = (level.floor() as u32).min(p.levels - 2);
    let share = level - low as f32;
    [(low, 1.0 - share), (low + 1, share)]
}

/// The texture at each seen pixel, elsewhere zero; see [`crate::gpu::kernels::Kernel::TextureSample`].
pub fn texture_sample(
    p: &TextureParams,
    ids: &[u32],
    uv: &[f32],
    footprint: &[f32],
    texels: &[f32],
    sampled: &mut [f32],
) {
    let channels = p.channels as usize;
    let out = sampled[..channels * p.pixels as usize].par_chunks_exact_mut(channels);
    out.with_min_len(PIXEL_CHUNK).enumerate().for_each(|(pixel, out)| {
        out.fill(0.0);
        if ids[pixel] == 0 {
            return;
        }
        for (level, share) in levels(p, &footprint[4 * pixel..]) {
            if share == 0.0 {
                continue;
            }
            let taps = taps(p, level, [uv[2 * pixel], uv[2 * pixel + 1]]);
            let weights = taps.weights();
            for (c, out) in out.iter_mut().enumerate() {
                let t = taps.at.map(|at| texels[at + c]);
                *out +=
                    share * (t[0] * weights[0] + t[1] * weights[1] + t[2] * weights[2] + t[3] * weights[3]);
            }
        }
    });
}

/// Adds the gradient by the texels of the levels that were read, and writes that by the coordinates
/// (the level's own is cut); see [`crate::gpu::kernels::Kernel::TextureSampleBackward`].
#[expect(clippy::too_many_arguments, reason = "the kernel's bindings")]
pub fn texture_sample_backward(
    p: &TextureParams,
    ids: &[u32],
    uv: &[f32],
    footprint: &[f32],
    texels: &[f32],
    sampled_grad: &[f32],
    texels_grad: &mut [f32],
    uv_grad: &mut [f32],
) {
    let channels = p.channels as usize;
    for pixel in 0..p.pixels as usize {
        let (mut by_u, mut by_v) = (0.0, 0.0);
        for (level, share) in levels(p, &footprint[4 * pixel..]) {
            if ids[pixel] == 0 || share == 0.0 {
                continue;
            }
            let taps = taps(p, level, [uv[2 * pixel], uv[2 * pixel + 1]]);
            let (weights, [width, height]) = (taps.weights(), size(p, level));
            for c in 0..channels {
                let grad = share * sampled_grad[channels * pixel + c];
                let t = taps.at.map(|at| texels[at + c]);
                for (at, weight) in taps.at.into_iter().zip(weights) {
                    texels_grad[at + c] += weight * grad;
                }
                if p.sampling > 0 {
                    let (fx, fy) = (taps.fx, taps.fy);
                    by_u += grad * width as f32 * ((1.0 - fy) * (t[1] - t[0]) + fy * (t[3] - t[2]));
                    by_v += grad * height as f32 * ((1.0 - fx) * (t[2] - t[0]) + fx * (t[3] - t[1]));
                }
            }
        }
        uv_grad[2 * pixel] = by_u;
        uv_grad[2 * pixel + 1] = by_v;
    }
}
