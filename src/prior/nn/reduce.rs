//! Sums in a fixed order.

use rayon::prelude::*;

use super::real::Real;
use super::simd::multiversion;

/// Running sums kept side by side: enough for the widest registers, the same for all.
const LANES: usize = 32;

multiversion! {
    /// Sum of `x`: 32 interleaved partial sums, added in order.
    pub(crate) fn sum<T: Real>(x: &[T]) -> T {
        let mut acc = [T::ZERO; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (a, &v) in acc.iter_mut().zip(chunk) {
                *a += v;
            }
        }
        for (a, &v) in acc.iter_mut().zip(rest) {
            *a += v;
        }
        let mut total = T::ZERO;
        for a in acc {
            total += a;
        }
        total
    }
}

/// Sums of `x` [batch, channels, n] over everything but the channels.
pub(crate) fn channel_sums<T: Real>(x: &[T], batch: usize, channels: usize) -> Vec<T> {
    let n = x.len() / (batch * channels).max(1);
    let of = |c: usize| {
        let mut total = T::ZERO;
        for b in 0..batch {
            total += sum(&x[(b * channels + c) * n..][..n]);
        }
        total
    };
    (0..channels).into_par_iter().map(of).collect()
}
