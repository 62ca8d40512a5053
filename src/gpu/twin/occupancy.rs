//! The occupancy grid: a decayed maximum of the density in each cell.

use rayon::prelude::*;

use crate::gpu::kernels::{OUTPUTS, OccupancyParams};
use crate::rng::{Rng, Stream};

const CHUNK: usize = 4096;

/// A random point in each cell; see [`crate::gpu::kernels::Kernel::OccupancyPoints`].
pub fn occupancy_points(p: &OccupancyParams, positions: &mut [f32]) {
    let res = p.resolution;
    let seed = u64::from(p.seed[0]) | u64::from(p.seed[1]) << 32;
    let rng = Rng::new(seed, Stream::Occupancy, p.step);
    let n = (res * res * res) as usize;
    positions[..3 * n].par_chunks_mut(3 * CHUNK).enumerate().for_each(|(chunk, positions)| {
        for (i, position) in positions.chunks_exact_mut(3).enumerate() {
            let cell = (chunk * CHUNK + i) as u32;
            let corner = [cell % res, cell / res % res, cell / (res * res)];
            let words = rng.words(u64::from(cell));
            for axis in 0..3 {
                let u = (words[axis] >> 8) as f32 * (1.0 / 16_777_216.0);
                position[axis] = (corner[axis] as f32 + u) * (2.0 / res as f32) - 1.0;
            }
        }
    });
}

/// `ema = max(decay·ema, density)`; see [`crate::gpu::kernels::Kernel::OccupancyUpdate`].
pub fn occupancy_update(p: &OccupancyParams, field: &[f32], ema: &mut [f32]) {
    let n = p.resolution.pow(3) as usize;
    for (ema, field) in ema[..n].iter_mut().zip(field.as_chunks::<OUTPUTS>().0) {
        *ema = (p.decay * *ema).max(field[0]);
    }
}

/// Bits of the cells above the threshold; see [`crate::gpu::kernels::Kernel::OccupancyBits`].
pub fn occupancy_bits(p: &OccupancyParams, ema: &[f32], occupancy: &mut [u32]) {
    let n = p.resolution.pow(3) as usize;
    for (word, cells) in occupancy.iter_mut().zip(ema[..n].as_chunks::<32>().0) {
        *word = cells.iter().enumerate().fold(0, |w, (i, &c)| w | u32::from(c > p.threshold) << i);
    }
}
