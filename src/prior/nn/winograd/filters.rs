//! `G g Gᵀ` of every filter.

use rayon::prelude::*;

use super::PARTS;
use crate::prior::nn::conv::Filters;
use crate::prior::nn::real::{Real, Shared};
use crate::prior::nn::simd::multiversion;
use crate::prior::nn::tile::gemm_tile;

/// All filters as `[component][panel][input][NR]`, zero beyond the last output.
pub(in crate::prior::nn) fn lift_all<T: Real>(filters: &Filters<'_, T>) -> Vec<T> {
    let nr = gemm_tile::<T>().1;
    let panels = filters.outputs.div_ceil(nr);
    let mut all = vec![T::ZERO; PARTS * panels * filters.inputs * nr];
    let (out, len) = (Shared::new(&mut all), filters.inputs * nr);
    (0..panels).into_par_iter().for_each(|panel| {
        // SAFETY: every panel has its own part of each component.
        let parts = std::array::from_fn(|p| unsafe { out.slice((p * panels + panel) * len, len) });
        lift(filters, panel, parts);
    });
    all
}

/// One panel, its components `depth` elements apart.
pub(super) fn lift_panel<T: Real>(filters: &Filters<'_, T>, panel: usize, to: &mut [T], depth: usize) {
    let mut parts = to.chunks_exact_mut(depth);
    lift(filters, panel, std::array::from_fn(|_| parts.next().expect("room for every component")));
}

multiversion! {
    fn lift<T: Real>(filters: &Filters<'_, T>, panel: usize, parts: [&mut [T]; PARTS]) {
        match gemm_tile::<T>().1 {
            8 => columns::<T, 8>(filters, panel, parts),
            16 => columns::<T, 16>(filters, panel, parts),
            32 => columns::<T, 32>(filters, panel, parts),
            nr => unreachable!("no tile has {nr} columns"),
        }
    }
}

/// A panel of `NR` outputs. Their number is a constant so that what happens to one tap of all of them is a few
/// registers' work.
#[inline(always)]
fn columns<T: Real, const NR: usize>(filters: &Filters<'_, T>, panel: usize, parts: [&mut [T]; PARTS]) {
    let present = NR.min(filters.outputs - panel * NR);
    let mut taps = [[T::ZERO; NR]; 9];
    for i in 0..filters.inputs {
        for m in 0..present {
            let filter: &[T; 9] = filters.taps(panel * NR + m, i).try_into().expect("nine taps");
            for (tap, &value) in taps.iter_mut().zip(filter) {
                tap[m] = value;
            }
        }
        let at = |t: usize| &taps[if filters.flipped { 8 - t } else { t }];
        let lines = [0, 1, 2].map(|r| three([at(3 * r), at(3 * r + 1), at(3 * r + 2)]));
        for c in 0..4 {
            for (r, values) in three([&lines[0][c], &lines[1][c], &lines[2][c]]).iter().enumerate() {
                parts[r * 4 + c][i * NR..][..NR].copy_from_slice(values);
            }
        }
    }
}

/// `G` times three numbers, for several outputs: `[g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2]`.
#[inline(always)]
fn three<T: Real, const NR: usize>(g: [&[T; NR]; 3]) -> [[T; NR]; 4] {
    let half = T::from_f64(0.5);
    let (mut sum, mut difference) = ([T::ZERO; NR], [T::ZERO; NR]);
    for m in 0..NR {
        sum[m] = half * (g[0][m] + g[2][m] + g[1][m]);
        difference[m] = half * (g[0][m] + g[2][m] - g[1][m]);
    }
    [*g[0], sum, difference, *g[2]]
}
