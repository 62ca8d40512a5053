//! Rays through the occupancy grid.

use glam::{Vec3, Vec4};
use rayon::prelude::*;

use super::{RAY_CHUNK, chunk_bounds, split_at_bounds};
use crate::gpu::kernels::{CAMERA, MarchParams};
use crate::rng::{Rng, Stream};

/// Rays, their occupied bins and how many there are; see [`crate::gpu::kernels::Kernel::MarchCount`].
pub fn march_count(
    p: &MarchParams,
    cameras: &[f32],
    occupancy: &[u32],
    rays: &mut [f32],
    mask: &mut [u32],
    counts: &mut [u32],
) {
    let (n, words) = (p.rays as usize, p.mask_words as usize);
    (rays[..n * 8].par_chunks_mut(RAY_CHUNK * 8))
        .zip(mask[..n * words].par_chunks_mut(RAY_CHUNK * words))
        .zip(counts[..n].par_chunks_mut(RAY_CHUNK))
        .enumerate()
        .for_each(|(chunk, ((rays, mask), counts))| {
            let all = rays.chunks_exact_mut(8).zip(mask.chunks_exact_mut(words)).zip(counts);
            for (i, ((out, mask), count)) in all.enumerate() {
                let number = p.first_ray + (chunk * RAY_CHUNK + i) as u32;
                let ray = Ray::of_pixel(p, cameras, number);
                out[..3].copy_from_slice(&ray.origin.to_array());
                out[3] = ray.near;
                out[4..7].copy_from_slice(&ray.direction.to_array());
                out[7] = ray.far;
                *count = occupied_bins(p, &ray, number, occupancy, mask);
            }
        });
}

/// Positions and intervals of the samples; see [`crate::gpu::kernels::Kernel::MarchWrite`].
pub fn march_write(
    p: &MarchParams,
    rays: &[f32],
    mask: &[u32],
    offsets: &[u32],
    positions: &mut [f32],
    intervals: &mut [f32],
) {
    let (n, words) = (p.rays as usize, p.mask_words as usize);
    let bounds = chunk_bounds(offsets, n);
    split_at_bounds(positions, &bounds, 3)
        .into_par_iter()
        .zip(split_at_bounds(intervals, &bounds, 2))
        .enumerate()
        .for_each(|(chunk, (positions, intervals))| {
            let mut out = positions.chunks_exact_mut(3).zip(intervals.chunks_exact_mut(2));
            for r in chunk * RAY_CHUNK..n.min((chunk + 1) * RAY_CHUNK) {
                let ray = Ray::load(&rays[r * 8..]);
                let bins = Bins::new(p, &ray, p.first_ray + r as u32);
                for (w, &word) in mask[r * words..(r + 1) * words].iter().enumerate() {
                    let mut left = word;
                    while left != 0 {
                        let (t, length) = bins.sample(w as u32 * 32 + left.trailing_zeros());
                        left &= left - 1;
                        if let Some((position, interval)) = out.next() {
                            position.copy_from_slice(&(ray.origin + ray.direction * t).to_array());
                            interval.copy_from_slice(&[t, length]);
                        }
                    }
                }
            }
        });
}

struct Ray {
    origin: Vec3,
    near: f32,
    direction: Vec3,
    far: f32,
}

impl Ray {
    fn load(words: &[f32]) -> Self {
        Self {
            origin: Vec3::from_slice(words),
            near: words[3],
            direction: Vec3::from_slice(&words[4..]),
            far: words[7],
        }
    }

    fn of_pixel(p: &MarchParams, cameras: &[f32], number: u32) -> Self {
        let (view, pixel) = (number / (p.width * p.height), number % (p.width * p.height));
        let camera = &cameras[view as usize * CAMERA..][..CAMERA];
        let tan = camera[16];
        let (x, y) = ((pixel % p.width) as f32 + 0.5, (pixel / p.width) as f32 + 0.5);
        let px = (2.0 * x / p.width as f32 - 1.0) * tan * p.width as f32 / p.height as f32;
        let py = (1.0 - 2.0 * y / p.height as f32) * tan;
        let column = |i: usize| Vec4::from_slice(&camera[4 * i..]).truncate();
        let direction = (column(0) * px + column(1) * py - column(2)).normalize();
        let origin = column(3);
        let (mut near, mut far) = (p.near, f32::MAX);
        for axis in 0..3 {
            let d = direction[axis];
            // A ray along a face of the box would otherwise divide 0 by 0.
            let d = if d.abs() < 1e-9 { 1e-9 } else { d };
            let a = (-p.half_extent - origin[axis]) / d;
            let b = (p.half_extent - origin[axis]) / d;
            near = near.max(a.min(b));
            far = far.min(a.max(b));
        }
        Self { origin, near, direction, far }
    }
}

/// The bins of one ray: bin k covers `near + k·step` to `near + (k + 1)·step`, cut at the exit.
struct Bins<'a> {
    p: &'a MarchParams,
    near: f32,
    far: f32,
    word: u32,
}

impl<'a> Bins<'a> {
    fn new(p: &'a MarchParams, ray: &Ray, number: u32) -> Self {
        let seed = u64::from(p.seed[0]) | u64::from(p.seed[1]) << 32;
        let word = if p.jitter == 0 {
            0
        } else {
            Rng::new(seed, Stream::Jitter, p.step).words(u64::from(number))[0]
        };
        Self { p, near: ray.near, far: ray.far, word }
    }

    /// Number of bins of the ray.
    fn len(&self) -> u32 {
        let bins = ((self.far - self.near) / self.p.step_size).ceil();
        // Negative for a ray that misses the box; the cast turns that into 0.
        (bins as u32).min(self.p.bins)
    }

    /// Sample position and length of a bin. One random word a ray, turned by the golden ratio from
    /// bin to bin: each sample is uniform in its bin and neighbours are stratified.
    #[inline(always)]
    fn sample(&self, bin: u32) -> (f32, f32) {
        let start = self.near + bin as f32 * self.p.step_size;
        let length = (self.far - start).min(self.p.step_size).max(0.0);
        let turned = self.word.wrapping_add(bin.wrapping_mul(0x9E37_79B9));
        let u = if self.p.jitter == 0 { 0.5 } else { (turned >> 8) as f32 * (1.0 / 16_777_216.0) };
        (start + u * length, length)
    }
}

fn occupied_bins(p: &MarchParams, ray: &Ray, number: u32, occupancy: &[u32], mask: &mut [u32]) -> u32 {
    mask.fill(0);
    if ray.near >= ray.far {
        return 0;
    }
    let bins = Bins::new(p, ray, number);
    let (scale, last) = (0.5 * p.resolution as f32, (p.resolution - 1) as f32);
    let mut count = 0;
    for bin in 0..bins.len() {
        let (t, _) = bins.sample(bin);
        let cell =
            ((ray.origin + ray.direction * t + Vec3::ONE) * scale).clamp(Vec3::ZERO, Vec3::splat(last));
        let (x, y, z) = (cell.x as u32, cell.y as u32, cell.z as u32);
        let cell = x + p.resolution * (y + p.resolution * z);
        let bit = occupancy[cell as usize / 32] >> (cell % 32) & 1;
        mask[bin as usize / 32] |= bit << (bin % 32);
        count += bit;
    }
    count
}
