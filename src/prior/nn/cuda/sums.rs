//! Sums over rows and planes, in one fixed order.

use candle_core::Result;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};

use super::{Arg, Data, Gpu, warps};

/// Rows that one block adds up.
pub(super) const CHUNK: usize = 256;

/// Blocks of 32 columns by chunks of rows.
pub(super) fn grid(columns: usize, chunks: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (columns.div_ceil(32) as u32, chunks as u32, 1),
        block_dim: (32, 8, 1),
        shared_mem_bytes: 0,
    }
}

/// The sums of the columns of `x` [rows, columns].
pub(super) fn column_sums(gpu: Gpu<'_>, x: &Arg<'_>, rows: usize, columns: usize) -> Result<Data> {
    let chunks = rows.div_ceil(CHUNK);
    let mut partial = gpu.empty(chunks * columns)?;
    let (n, c, chunk) = (rows as i32, columns as i32, CHUNK as i32);
    launch!(gpu, "column_sums", grid(columns, chunks), [&x.data, &mut partial, &n, &c, &chunk]);
    if chunks == 1 { Ok(partial) } else { of_partial(gpu, &partial, chunks, columns) }
}

/// The sums of the columns of a few rows.
pub(super) fn of_partial(gpu: Gpu<'_>, partial: &Data, rows: usize, columns: usize) -> Result<Data> {
    let mut sums = gpu.empty(columns)?;
    let (n, c) = (rows as i32, columns as i32);
    launch!(gpu, "column_sums", grid(columns, 1), [partial, &mut sums, &n, &c, &n]);
    Ok(sums)
}

/// The sum of each of `planes` planes.
pub(super) fn plane_sums(gpu: Gpu<'_>, x: &Arg<'_>, planes: usize) -> Result<Data> {
    let mut sums = gpu.empty(planes)?;
    let (n, pixels) = (planes as i32, (x.len() / planes) as i32);
    launch!(gpu, "plane_sums", warps(planes), [&x.data, &mut sums, &n, &pixels]);
    Ok(sums)
}

/// The gradient of a bias of channels: the sum of `grad` [B, C, …] over all but its second dimension.
pub(super) fn channel_sums(gpu: Gpu<'_>, grad: &Arg<'_>) -> Result<Data> {
    let (batch, channels) = (grad.dims[0], grad.dims[1]);
    let planes = plane_sums(gpu, grad, batch * channels)?;
    let whole = Arg { data: planes.slice(..), dims: &[batch, channels] };
    column_sums(gpu, &whole, batch, channels)
}

/// Adds `b` [C] to `y` [.., C, pixels] in place.
pub(super) fn add_bias(gpu: Gpu<'_>, y: &mut Data, b: &Arg<'_>, pixels: usize) -> Result<()> {
    let (count, channels, pixels) = (y.len() as u32, b.len() as u32, pixels as u32);
    let config = super::each(y.len());
    launch!(gpu, "add_bias", config, [y, &b.data, &count, &channels, &pixels]);
    Ok(())
}
