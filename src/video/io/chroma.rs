//! Chroma to full resolution and back, exactly.
//!
//! Up is linear interpolation, which is what players do. Down is its biorthogonal partner (the low
//! passes of the LeGall 5/3 and of the linear-spline wavelet), so that down(up(c)) = c for every c:
//! a clip that is decoded and encoded without an edit keeps its chroma, however often.
//!
//! | siting | up | down |
//! |---|---|---|
//! | cosited | c_i; (c_i + c_{i+1})/2 | (−1, 2, 6, 2, −1)/8 around 2i |
//! | centred | (c_{i−1} + 3c_i)/4; (3c_i + c_{i+1})/4 | (−1, 3, 3, −1)/4 around 2i + ½ |

use rayon::prelude::*;

/// Where a chroma sample lies between the two luma samples it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Siting {
    /// On the first of the two.
    Cosited,
    /// Half-way between them.
    Centred,
}

/// A plane and its size.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plane {
    pub(super) data: Vec<f32>,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// Subsampling of a pixel format: log2 of the factors and the siting, horizontally and vertically.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sampling {
    pub(super) log2: (u8, u8),
    pub(super) siting: (Siting, Siting),
}

/// Size of a chroma plane.
pub(super) fn subsampled(size: (usize, usize), log2: (u8, u8)) -> (usize, usize) {
    (size.0.div_ceil(1 << log2.0), size.1.div_ceil(1 << log2.1))
}

/// To the size of the luma plane.
pub(super) fn up(mut plane: Plane, size: (usize, usize), sampling: Sampling) -> Plane {
    for level in (0..sampling.log2.1).rev() {
        let height = size.1.div_ceil(1 << level);
        plane = vertical(&plane, height, |i| up_taps(i, plane.height, height, sampling.siting.1));
    }
    for level in (0..sampling.log2.0).rev() {
        let width = size.0.div_ceil(1 << level);
        plane = horizontal(&plane, width, |i| up_taps(i, plane.width, width, sampling.siting.0));
    }
    plane
}

/// From the size of the luma plane; the inverse of [`up`] on everything [`up`] makes.
pub(super) fn down(mut plane: Plane, sampling: Sampling) -> Plane {
    for _ in 0..sampling.log2.0 {
        let width = plane.width.div_ceil(2);
        plane = horizontal(&plane, width, |i| down_taps(i, plane.width, sampling.siting.0));
    }
    for _ in 0..sampling.log2.1 {
        let height = plane.height.div_ceil(2);
        plane = vertical(&plane, height, |i| down_taps(i, plane.height, sampling.siting.1));
    }
    plane
}

type Taps = [(usize, f32); 5];

/// Taps of output sample `i` of an interpolation from `n` samples.
fn up_taps(i: usize, n: usize, _to: usize, siting: Siting) -> Taps {
    let (at, odd) = (i / 2, i % 2 == 1);
    let next = (at + 1).min(n - 1);
    let mut taps = [(0, 0.0); 5];
    match (siting, odd) {
        (Siting::Cosited, false) => taps[0] = (at, 1.0),
        (Siting::Cosited, true) => (taps[0], taps[1]) = ((at, 0.5), (next, 0.5)),
        (Siting::Centred, false) => (taps[0], taps[1]) = ((at.saturating_sub(1), 0.25), (at, 0.75)),
        (Siting::Centred, true) => (taps[0], taps[1]) = ((at, 0.75), (next, 0.25)),
    }
    taps
}

/// Taps of output sample `i` of a reduction from `n` samples; beyond the edge the last sample repeats.
fn down_taps(i: usize, n: usize, siting: Siting) -> Taps {
    let at = |offset: isize| ((2 * i) as isize + offset).clamp(0, n as isize - 1) as usize;
    let even = [-0.125, 0.25, 0.75, 0.25, -0.125];
    match siting {
        Siting::Cosited => std::array::from_fn(|k| (at(k as isize - 2), even[k])),
        // An odd size leaves the last chroma sample one luma sample: extrapolate from the last two,
        // a = (3c + p)/4 and b = (c + 3p)/4.
        Siting::Centred if 2 * i + 1 == n && n > 1 => {
            [(n - 1, 1.5), (n - 2, -0.5), (0, 0.0), (0, 0.0), (0, 0.0)]
        }
        Siting::Centred => [(at(-1), -0.25), (at(0), 0.75), (at(1), 0.75), (at(2), -0.25), (0, 0.0)],
    }
}

fn horizontal(plane: &Plane, width: usize, taps: impl Fn(usize) -> Taps) -> Plane {
    let taps: Vec<Taps> = (0..width).map(taps).collect();
    let mut data = vec![0.0; width * plane.height];
    data.par_chunks_mut(width).zip(plane.data.par_chunks(plane.width)).for_each(|(out, row)| {
        for (value, taps) in out.iter_mut().zip(&taps) {
            *value = taps.iter().map(|&(at, w)| w * row[at]).sum();
        }
    });
    Plane { data, width, height: plane.height }
}

fn vertical(plane: &Plane, height: usize, taps: impl Fn(usize) -> Taps + Sync) -> Plane {
    let mut data = vec![0.0; plane.width * height];
    data.par_chunks_mut(plane.width).enumerate().for_each(|(y, out)| {
        for (at, weight) in taps(y).into_iter().filter(|t| t.1 != 0.0) {
            let row = &plane.data[at * plane.width..][..plane.width];
            out.iter_mut().zip(row).for_each(|(value, v)| *value += weight * v);
        }
    });
    Plane { data, width: plane.width, height }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    fn noise(width: usize, height: usize) -> Plane {
        let data = (0..width * height)
            .map(|i| (Rng::new(7, Stream::Probe, 0).uniform(i as u64) * 256.0).floor())
            .collect();
        Plane { data, width, height }
    }

    #[test]
    fn down_undoes_up_at_every_size_and_siting() {
        let sitings = [Siting::Cosited, Siting::Centred];
        for log2 in [(1, 0), (1, 1), (0, 1), (2, 0), (2, 2)] {
            for siting in [(sitings[0], sitings[1]), (sitings[1], sitings[1]), (sitings[0], sitings[0])] {
                for size in [(1, 1), (2, 2), (3, 5), (4, 4), (5, 3), (8, 7), (33, 18)] {
                    let (w, h) = subsampled(size, log2);
                    let (sampling, small) = (Sampling { log2, siting }, noise(w, h));
                    let large = up(small.clone(), size, sampling);
                    assert_eq!((large.width, large.height), size);
                    // Whole codes times dyadic weights: exact in f32.
                    assert_eq!(down(large, sampling), small, "{log2:?} {siting:?} {size:?}");
                }
            }
        }
    }

    #[test]
    fn a_ramp_stays_a_ramp() {
        // Chroma of a ramp, sampled where the siting says, interpolates to the ramp itself.
        for (siting, offset) in [(Siting::Cosited, 0.0), (Siting::Centred, 0.5)] {
            let small =
                Plane { data: (0..8).map(|i| 2.0 * i as f32 + offset).collect(), width: 8, height: 1 };
            let sampling = Sampling { log2: (1, 0), siting: (siting, siting) };
            let large = up(small, (16, 1), sampling);
            for x in 1..14 {
                assert_eq!(large.data[x], x as f32, "{siting:?}");
            }
        }
    }
}
