//! Matrix products on strided views, one result element summed in one fixed order.
//!
//! The left matrix is read in place (its elements are broadcast one by one, so its strides do not
//! matter); the right one is read in place when its rows are contiguous and few rows meet it, and packed otherwise.

use rayon::prelude::*;

use super::pack::{Packed, pack_all, pack_panel, packed_len};
use super::real::{Real, Shared, uninit, zeroed};
use super::tile::{self, Terms, gemm_tile};

/// A matrix in memory: element (i, j) is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) row: usize,
    pub(crate) col: usize,
}

impl<'a, T> Mat<'a, T> {
    /// Row-major with `row` elements from one row to the next.
    pub(crate) fn new(data: &'a [T], row: usize) -> Self {
        Self { data, row, col: 1 }
    }

    /// The transposed view.
    pub(crate) fn t(self) -> Self {
        Self { data: self.data, row: self.col, col: self.row }
    }

    /// The view from row `i` on.
    pub(crate) fn rows_from(self, i: usize) -> Self {
        Self { data: &self.data[(i * self.row).min(self.data.len())..], ..self }
    }

    pub(super) fn fits(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.row + (cols - 1) * self.col < self.data.len()
    }
}

/// Terms summed in registers before they are added to the result: keeps a panel of the right matrix in
/// the first-level cache, and shortens the chains of roundings.
const K_BLOCK: usize = 256;

/// What a product does with the numbers that are in its result's place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It does not read them.
    Set,
    /// It adds to them.
    Add,
}

/// `c[m x n] = a[m x k] b[k x n]`, or `+=`, on the calling thread; `c` has `c_row` elements from row to row.
/// `b` must have been packed, or (`Err`) have contiguous rows.
pub(crate) fn serial<T: Real>(
    (m, n, k): (usize, usize, usize),
    a: Mat<'_, T>,
    b: Result<&Packed<'_, T>, Mat<'_, T>>,
    c: &mut [T],
    c_row: usize,
    put: Put,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let (mr, nr) = gemm_tile::<T>();
    assert!(a.fits(m, k) && (m - 1) * c_row + n <= c.len(), "matrix product out of bounds");
    let fits = match b {
        Ok(p) => p.k >= k && p.panels.len() >= packed_len::<T>(p.k, n),
        Err(b) => b.col == 1 && b.fits(k, n),
    };
    assert!(fits, "matrix product out of bounds");
    let kernels = [tile::gemm::<T>(false), tile::gemm::<T>(true)];
    let mut edge: Vec<T> = Vec::new();
    let mut tail: Vec<T> = Vec::new();
    for j0 in (0..n).step_by(nr) {
        let cols = nr.min(n - j0);
        let narrow = cols <= nr / 2;
        let (width, kernel) = if narrow { (nr / 2, kernels[1]) } else { (nr, kernels[0]) };
        for k0 in (0..k).step_by(K_BLOCK) {
            let steps = K_BLOCK.min(k - k0);
            let add = put == Put::Add || k0 > 0;
            let (panel, b_step): (&[T], usize) = match b {
                Ok(p) => (&p.panels[j0 * p.k + k0 * nr..], nr),
                Err(b) if cols == width => (&b.data[(k0 * b.row) + j0..], b.row),
                Err(b) => {
                    tail.resize(K_BLOCK * nr, T::ZERO);
                    pack_panel(b.rows_from(k0), steps, j0, cols, &mut tail[..steps * nr]);
                    (&tail, nr)
                }
            };
            for i0 in (0..m).step_by(mr) {
                let rows = mr.min(m - i0);
                let start = i0 * a.row + k0 * a.col;
                let terms = Terms {
                    steps,
                    a: a.data[start..].as_ptr(),
                    a_row: a.row,
                    a_term: a.col,
                    b: panel.as_ptr(),
                    b_step,
                };
                let at = i0 * c_row + j0;
                if cols == width {
                    // SAFETY: bounds asserted above; the tile's columns all exist in b and c.
                    unsafe { kernel(terms, c[at..].as_mut_ptr(), c_row, rows, add) };
                    continue;
                }
                // The last columns go through a whole tile of their own.
                edge.resize(mr * nr, T::ZERO);
                // SAFETY: b is a zero-padded panel here, the result goes to `edge`.
                unsafe { kernel(terms, edge.as_mut_ptr(), nr, rows, false) };
                for i in 0..rows {
                    let (from, to) = (&edge[i * nr..][..cols], &mut c[at + i * c_row..][..cols]);
                    if add {
                        to.iter_mut().zip(from).for_each(|(to, from)| *to += *from);
                    } else {
                        to.copy_from_slice(from);
                    }
                }
            }
        }
    }
}

/// `a[m x k] b[k x n]`, row-major, on all threads; the same bytes for any number of them.
pub(crate) fn product<T: Real>((m, n, k): (usize, usize, usize), a: Mat<'_, T>, b: Mat<'_, T>) -> Vec<T> {
    let mut c = vec![T::ZERO; m * n];
    product_to((m, n, k), a, b, Shared::new(&mut c));
    c
}

/// As [`product`], with `b` packed before.
pub(crate) fn product_packed<T: Real>(
    (m, n, k): (usize, usize, usize),
    a: Mat<'_, T>,
    b: &Packed<'_, T>,
) -> Vec<T> {
    let mut c = vec![T::ZERO; m * n];
    if m * n * k > 0 {
        by_blocks((m, n, k), a, Ok(b), Shared::new(&mut c));
    }
    c
}

/// As [`product`], into zeros.
pub(crate) fn product_to<T: Real>(
    (m, n, k): (usize, usize, usize),
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    out: Shared<T>,
) {
    if m * n * k == 0 {
        return;
    }
    if !packing_pays::<T>(m, b) {
        by_blocks((m, n, k), a, Err(b), out);
    } else if n * k > LARGE {
        by_panels((m, n, k), a, b, out);
    } else {
        let mut buffer = Vec::new();
        let packed = pack_all(b, k, n, zeroed(&mut buffer, packed_len::<T>(k, n)));
        by_blocks((m, n, k), a, Ok(&packed), out);
    }
}

/// Whether `m` rows make up for packing the right matrix. One that could be read in place has its rows so far
/// apart that a panel's lines share a few sets of the first-level cache and throw each other out.
fn packing_pays<T: Real>(m: usize, b: Mat<'_, T>) -> bool {
    b.col != 1 || m > 4 * gemm_tile::<T>().0
}

/// Elements of a right matrix that is not packed as a whole: its panels would be fresh pages every time,
/// and clearing those takes longer than packing.
const LARGE: usize = 1 << 20;

/// A large right matrix, such as the weights of a wide layer: a task packs one panel of columns
/// in the cache and uses it for all rows.
fn by_panels<T: Real>((m, n, k): (usize, usize, usize), a: Mat<'_, T>, b: Mat<'_, T>, out: Shared<T>) {
    let nr = gemm_tile::<T>().1;
    (0..n.div_ceil(nr)).into_par_iter().for_each(|p| {
        let cols = nr.min(n - p * nr);
        T::with_scratch(|[panel, block, _]| {
            let panel = uninit(panel, k * nr);
            pack_panel(b, k, p * nr, cols, panel);
            let block = uninit(block, m * cols);
            serial((m, cols, k), a, Ok(&Packed { panels: panel, k }), block, cols, Put::Set);
            for (i, row) in block.chunks_exact(cols).enumerate() {
                // SAFETY: tasks own disjoint columns.
                unsafe { out.slice(i * n + p * nr, cols) }.copy_from_slice(row);
            }
        });
    });
}

/// Blocks of rows and columns; a right matrix that was not packed is read in place.
fn by_blocks<T: Real>(
    (m, n, k): (usize, usize, usize),
    a: Mat<'_, T>,
    b: Result<&Packed<'_, T>, Mat<'_, T>>,
    out: Shared<T>,
) {
    let (rows, cols) = task_shape::<T>(m, n, k);
    let (row_tasks, col_tasks) = (m.div_ceil(rows), n.div_ceil(cols));
    (0..row_tasks * col_tasks).into_par_iter().for_each(|task| {
        let (i0, j0) = (task / col_tasks * rows, task % col_tasks * cols);
        let (rows, cols) = (rows.min(m - i0), cols.min(n - j0));
        let part = b.map(|p| Packed { panels: &p.panels[j0 * k..], k });
        let part = part.as_ref().map_err(|b| Mat { data: &b.data[j0 * b.col..], ..*b });
        if cols == n {
            // SAFETY: tasks own disjoint rows.
            let rows_out = unsafe { out.slice(i0 * n, rows * n) };
            return serial((rows, n, k), a.rows_from(i0), part, rows_out, n, Put::Set);
        }
        // A task's block has gaps between its rows, so it is computed apart and copied row by row.
        let mut block = vec![T::ZERO; rows * cols];
        serial((rows, cols, k), a.rows_from(i0), part, &mut block, cols, Put::Set);
        for (i, row) in block.chunks_exact(cols).enumerate() {
            // SAFETY: tasks own disjoint blocks of rows and columns.
            unsafe { out.slice((i0 + i) * n + j0, cols) }.copy_from_slice(row);
        }
    });
}

/// Bytes of a task's rows of the left matrix, which every panel of columns meets: they should stay in the
/// second-level cache.
const LEFT: usize = 256 << 10;

/// Rows and columns of a task: about four tasks a thread if the matrix is large enough. Any choice
/// gives the same bytes, since an element's sum is never split.
fn task_shape<T: Real>(m: usize, n: usize, k: usize) -> (usize, usize) {
    let (mr, nr) = gemm_tile::<T>();
    let most = (LEFT / (k * size_of::<T>()) / mr * mr).clamp(8 * mr, 64 * mr);
    if rayon::current_num_threads() == 1 {
        return (m.min(most), n);
    }
    let tasks = 4 * rayon::current_num_threads();
    let rows = m.div_ceil(tasks).next_multiple_of(mr).clamp(4 * mr, most);
    let left = tasks.div_ceil(m.div_ceil(rows));
    (rows, n.div_ceil(left).next_multiple_of(nr))
}
