//! Random changes of the evaluator's training pictures.
//!
//! It shall judge pictures of other renderers and of a small diffusion model: a little off in place,
//! size, colour and sharpness. Nothing is mirrored, since left and right mean something here.

use crate::rng::{Rng, Stream};

/// Random numbers set aside for each picture.
const DRAWS: u64 = 16;
/// Shares of the side by which a picture is moved, and of its size by which it is scaled.
const SHIFT: f32 = 0.06;
const ZOOM: f32 = 0.14;
/// Changes of contrast, brightness and of each channel's strength.
const CONTRAST: f32 = 0.2;
const BRIGHTNESS: f32 = 0.12;
const TINT: f32 = 0.07;
/// Share of the pictures that are blurred once, and of these that are blurred again.
const BLURRED: f32 = 0.5;

/// Changes picture `index` of step `step`, `[3, size, size]` in −1 … 1; a pure function of its arguments.
pub fn augment(picture: &mut [f32], size: usize, seed: u64, step: u32, index: u64) {
    let rng = Rng::new(seed, Stream::Probe, step);
    let signed = |k: u64| 2.0 * rng.uniform(index * DRAWS + k) - 1.0;
    let plane = size * size;
    let (zoom, dx, dy) = (1.0 + ZOOM * signed(0), SHIFT * signed(1), SHIFT * signed(2));
    let (contrast, brightness) = (1.0 + CONTRAST * signed(3), BRIGHTNESS * signed(4));
    for (c, channel) in picture.chunks_exact_mut(plane).enumerate() {
        let moved = sampled(channel, size, zoom, [dx, dy]);
        let tint = contrast * (1.0 + TINT * signed(5 + c as u64));
        for (out, v) in channel.iter_mut().zip(moved) {
            *out = (v * tint + brightness).clamp(-1.0, 1.0);
        }
        let blur = rng.uniform(index * DRAWS + 8);
        if blur < BLURRED {
            blurred(channel, size);
        }
        if blur < BLURRED * BLURRED {
            blurred(channel, size);
        }
    }
}

/// One channel scaled by `zoom` about its centre and moved by `shift` (shares of the side); bilinear, the
/// border goes on outside.
fn sampled(channel: &[f32], size: usize, zoom: f32, shift: [f32; 2]) -> Vec<f32> {
    let (side, last) = (size as f32, (size - 1) as f32);
    let source = |i: usize, shift: f32| {
        let p = ((i as f32 + 0.5) / side - 0.5 - shift) / zoom + 0.5;
        (p * side - 0.5).clamp(0.0, last)
    };
    let columns: Vec<f32> = (0..size).map(|x| source(x, shift[0])).collect();
    let mut out = Vec::with_capacity(size * size);
    for y in 0..size {
        let sy = source(y, shift[1]);
        let (y0, fy) = (sy as usize, sy.fract());
        let rows = [y0, (y0 + 1).min(size - 1)].map(|y| &channel[y * size..][..size]);
        out.extend(columns.iter().map(|sx| {
            let (x0, fx) = (*sx as usize, sx.fract());
            let x1 = (x0 + 1).min(size - 1);
            let [a, b] = rows.map(|row| row[x0] + (row[x1] - row[x0]) * fx);
            a + (b - a) * fy
        }));
    }
    out
}

/// Weights ¼, ½, ¼ along both axes.
fn blurred(channel: &mut [f32], size: usize) {
    for axis in [1, size] {
        let old = channel.to_vec();
        for (i, out) in channel.iter_mut().enumerate() {
            let place = i / axis % size;
            let before = if place > 0 { old[i - axis] } else { old[i] };
            let after = if place + 1 < size { old[i + axis] } else { old[i] };
            *out = 0.25 * before + 0.5 * old[i] + 0.25 * after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_reproducible_and_mild() {
        let size = 16;
        let original: Vec<f32> =
            (0..3 * size * size).map(|i| if (i / 4) % 2 == 0 { 0.4 } else { -0.4 }).collect();
        let changed = |step: u32, index: u64| {
            let mut picture = original.clone();
            augment(&mut picture, size, 7, step, index);
            picture
        };
        assert_eq!(changed(3, 5), changed(3, 5));
        assert_ne!(changed(3, 5), changed(4, 5));
        assert_ne!(changed(3, 5), changed(3, 6));
        let mean = |p: &[f32]| p.iter().sum::<f32>() / p.len() as f32;
        for index in 0..50 {
            let picture = changed(1, index);
            assert!(picture.iter().all(|v| v.abs() <= 1.0));
            assert!((mean(&picture) - mean(&original)).abs() < 0.3);
        }
    }

    #[test]
    fn moving_moves_and_blurring_keeps_the_sum() {
        let size = 8;
        let mut channel = vec![0.0; 64];
        channel[3 * size + 2] = 1.0;
        let moved = sampled(&channel, size, 1.0, [2.0 / 8.0, 1.0 / 8.0]);
        assert!((moved[4 * size + 4] - 1.0).abs() < 1e-5, "two to the right, one down");
        assert_eq!(sampled(&channel, size, 1.0, [0.0; 2]), channel);
        blurred(&mut channel, size);
        assert!((channel.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((channel[3 * size + 2] - 0.25).abs() < 1e-6 && (channel[2 * size + 2] - 0.125).abs() < 1e-6);
    }
}
