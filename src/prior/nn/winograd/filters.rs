//! `G g Gᵀ` of every filter.

use rayon::prelude::*;

use super::PARTS;
use crate::prior::nn::conv::Filters;
use crate::prior::nn::real::{Real, Shared};
use crate::prior::nn::tile::gemm_tile;

/// Most columns of a register tile.
const MOST: usize = 32;

/// All filters as `[component][panel][input][NR]`, zero beyond the last output.
pub(in crate::prior::nn) fn lift_all<T: Real, F>(filters: &Filters<F>) -> Vec<T>
where
    F: Fn(usize, usize, usize) -> T + Sync,
{
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
pub(super) fn lift_panel<T: Real, F>(filters: &Filters<F>, panel: usize, to: &mut [T], depth: usize)
where
    F: Fn(usize, usize, usize) -> T,
{
    let mut parts = to.chunks_exact_mut(depth);
    lift(filters, panel, std::array::from_fn(|_| parts.next().expect("room for every component")));
}

fn lift<T: Real, F>(filters: &Filters<F>, panel: usize, parts: [&mut [T]; PARTS])
where
    F: Fn(usize, usize, usize) -> T,
{
    let nr = gemm_tile::<T>().1;
    let first = panel * nr;
    let present = nr.min(filters.outputs - first);
    for i in 0..filters.inputs {
        // The same tap of all outputs of the panel side by side, so that the sums are vector code.
        let mut taps = [[T::ZERO; MOST]; 9];
        for m in 0..present {
            for (t, tap) in taps.iter_mut().enumerate() {
                tap[m] = (filters.at)(first + m, i, t);
            }
        }
        let lines = [0, 1, 2].map(|r| three([taps[3 * r], taps[3 * r + 1], taps[3 * r + 2]], nr));
        for c in 0..4 {
            for (r, values) in three([lines[0][c], lines[1][c], lines[2][c]], nr).iter().enumerate() {
                parts[r * 4 + c][i * nr..][..nr].copy_from_slice(&values[..nr]);
            }
        }
    }
}

/// `G` times three numbers, for several outputs: `[g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2]`.
#[inline(always)]
fn three<T: Real>(g: [[T; MOST]; 3], nr: usize) -> [[T; MOST]; 4] {
    let half = T::from_f64(0.5);
    let (mut sum, mut difference) = ([T::ZERO; MOST], [T::ZERO; MOST]);
    for m in 0..nr {
        sum[m] = half * (g[0][m] + g[2][m] + g[1][m]);
        difference[m] = half * (g[0][m] + g[2][m] - g[1][m]);
    }
    [g[0], sum, difference, g[2]]
}
