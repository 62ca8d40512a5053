//! Layers that move or spread values.

use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::{DType, Result, Storage, Tensor, bail};

use super::tape::{GpuLayer, apply};
use super::{Arg, Data, Gpu, each, sums};

/// See [`super::super::add_per_channel`].
pub(in crate::prior::nn) fn add_per_channel(x: &Tensor, t: &Tensor) -> Result<Tensor> {
    apply(AddPerChannel, &[x, t])
}

/// See [`super::super::upsample_nearest2x`].
pub(in crate::prior::nn) fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    apply(Upsample, &[x])
}

/// Rows `ids` [n] of `table`: [n, D].
pub(in crate::prior::nn) fn embedding(ids: &Tensor, table: &Tensor) -> Result<Tensor> {
    let rows = table.detach().index_select(ids, 0)?;
    if !table.track_op() {
        return Ok(rows);
    }
    apply(Embedding { ids: ids.contiguous()?, rows }, &[table])
}

/// The last two of three dimensions exchanged, contiguous.
pub(in crate::prior::nn) fn turned(x: &Tensor) -> Result<Tensor> {
    apply(Turned, &[x])
}

struct AddPerChannel;

impl GpuLayer for AddPerChannel {
    const NAME: &'static str = "add_per_channel";

    fn forward(&self, gpu: Gpu<'_>, args: &[Arg<'_>]) -> Result<(Data, Vec<usize>)> {
        let [x, t] = args else { bail!("add_per_channel: two arguments") };
        let mut y = gpu.empty(x.len())?;
        let (count, pixels) = (x.len() as u32, (x.len() / t.len()) as u32);
        launch!(gpu, "add_per_plane", each(x.len()), [&x.data, &t.data, &mut y, &count, &pixels]);
        Ok((y, x.dims.to_vec()))
    }

    fn backward(
        &self,
        gpu: Gpu<'_>,
        args: &[Arg<'_>],
        _: &Arg<'_>,
        grad: &Arg<'_>,
        needs: &[bool],
    ) -> Result<Vec<Option<Data>>> {
        let copy = || -> Result<Data> {
            let mut gx = gpu.empty(grad.len())?;
            gpu.0.memcpy_dtod(&grad.data, &mut gx)?;
            Ok(gx)
        };
        let gx = needs[0].then(copy).transpose()?;
        let gt = needs[1].then(|| sums::plane_sums(gpu, grad, args[1].len())).transpose()?;
        Ok(vec![gx, gt])
    }
}

struct Upsample;

impl GpuLayer for Upsample {
    const NAME: &'static str = "upsample_nearest2x";

    fn forward(&self, gpu: Gpu<'_>, args: &[Arg<'_>]) -> Result<(Data, Vec<usize>)> {
        let x = &args[0];
        let [b, c, h, w] = *x.dims else { bail!("upsample_nearest2x: four dimensions") };
        let mut y = gpu.empty(4 * x.len())?;
        let (count, width) = (4 * x.len() as u32, w as u32);
        launch!(gpu, "upsample", each(4 * x.len()), [&x.data, &mut y, &count, &width]);
        Ok((y, vec![b, c, 2 * h, 2 * w]))
    }

    fn backward(
        &self,
        gpu: Gpu<'_>,
        args: &[Arg<'_>],
        _: &Arg<'_>,
        grad: &Arg<'_>,
        _: &[bool],
    ) -> Result<Vec<Option<Data>>> {
        let x = &args[0];
        let mut gx = gpu.empty(x.len())?;
        let (count, width) = (x.len() as u32, x.dims[3] as u32);
        launch!(gpu, "upsample_slope", each(x.len()), [&grad.data, &mut gx, &count, &width]);
        Ok(vec![Some(gx)])
    }
}

/// Puts the selected rows on the tape.
struct Embedding {
    ids: Tensor,
    rows: Tensor,
}

impl GpuLayer for Embedding {
    const NAME: &'static str = "embedding";

    fn forward(&self, gpu: Gpu<'_>, _: &[Arg<'_>]) -> Result<(Data, Vec<usize>)> {
        let (storage, layout) = self.rows.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { bail!("embedding: rows left the GPU") };
        let rows = super::tape::arg(storage, layout)?;
        let mut out = gpu.empty(rows.len())?;
        gpu.0.memcpy_dtod(&rows.data, &mut out)?;
        Ok((out, self.rows.dims().to_vec()))
    }

    fn backward(
        &self,
        gpu: Gpu<'_>,
        args: &[Arg<'_>],
        _: &Arg<'_>,
        grad: &Arg<'_>,
        _: &[bool],
    ) -> Result<Vec<Option<Data>>> {
        let (rows, width) = (args[0].dims[0], args[0].dims[1]);
        let (storage, layout) = self.ids.storage_and_layout();
        let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
            bail!("embedding: ids left the GPU")
        };
        if self.ids.dtype() != DType::U32 {
            bail!("embedding: ids must be u32");
        }
        let ids = storage.as_cuda_slice::<u32>()?.slice(start..end);
        let mut table = gpu.empty(rows * width)?;
        let (n, columns) = ((end - start) as i32, width as i32);
        let config =
            LaunchConfig { grid_dim: (rows as u32, 1, 1), block_dim: (1024, 1, 1), shared_mem_bytes: 0 };
        launch!(gpu, "embedding_slope", config, [&ids, &grad.data, &mut table, &n, &columns]);
        Ok(vec![Some(table)])
    }
}

struct Turned;

/// `x` [B, R, C] with rows and columns exchanged.
fn turn(gpu: Gpu<'_>, x: &Arg<'_>, batch: usize, rows: usize, columns: usize) -> Result<Data> {
    let mut y = gpu.empty(x.len())?;
    let (r, c) = (rows as i32, columns as i32);
    let config = LaunchConfig {
        grid_dim: (columns.div_ceil(32) as u32, rows.div_ceil(32) as u32, batch as u32),
        block_dim: (32, 8, 1),
        shared_mem_bytes: 0,
    };
    launch!(gpu, "turn", config, [&x.data, &mut y, &r, &c]);
    Ok(y)
}

impl GpuLayer for Turned {
    const NAME: &'static str = "turned";

    fn forward(&self, gpu: Gpu<'_>, args: &[Arg<'_>]) -> Result<(Data, Vec<usize>)> {
        let [b, r, c] = *args[0].dims else { bail!("turned: three dimensions") };
        Ok((turn(gpu, &args[0], b, r, c)?, vec![b, c, r]))
    }

    fn backward(
        &self,
        gpu: Gpu<'_>,
        args: &[Arg<'_>],
        _: &Arg<'_>,
        grad: &Arg<'_>,
        _: &[bool],
    ) -> Result<Vec<Option<Data>>> {
        let [b, r, c] = *args[0].dims else { bail!("turned: three dimensions") };
        Ok(vec![Some(turn(gpu, grad, b, c, r)?)])
    }
}
