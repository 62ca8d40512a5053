//! Small layers that move or spread values: channel offsets, nearest upsampling, table look-up.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::elsewhere;
use super::real::Real;
use super::reduce::sum;
use super::tape::{self, Arg, Layer};

/// `x` [B, C, H, W] plus `t` [B, C] on every pixel.
///
/// # Errors
/// When shapes, dtypes or devices do not fit together.
pub fn add_per_channel(x: &Tensor, t: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    if t.dims() != [b, c] {
        bail!("add_per_channel: {:?} does not fit {:?}", t.dims(), x.dims());
    }
    if h * w == 0 || !tape::on_cpu(&[x, t]) {
        return elsewhere::add_per_channel(x, t);
    }
    tape::apply(AddPerChannel, &[x, t])
}

/// Every pixel of `x` [B, C, H, W] twice in each direction: [B, C, 2H, 2W].
///
/// # Errors
/// When `x` has not four dimensions.
pub fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    x.dims4()?;
    if x.elem_count() == 0 || !tape::on_cpu(&[x]) {
        return elsewhere::upsample_nearest2x(x);
    }
    tape::apply(Upsample, &[x])
}

/// Rows `ids` (u32, any shape) of `table` [V, D]: [ids..., D].
///
/// # Errors
/// When an id is not below V.
pub fn embedding(ids: &Tensor, table: &Tensor) -> Result<Tensor> {
    let (rows, width) = table.dims2()?;
    let dims: Vec<usize> = ids.dims().iter().copied().chain([width]).collect();
    if width == 0 || !tape::on_cpu(&[table]) {
        return elsewhere::embedding(&ids.flatten_all()?, table)?.reshape(dims);
    }
    let ids = ids.flatten_all()?.to_vec1::<u32>()?;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
        bail!("embedding: id {id}, but the table has {rows} rows");
    }
    tape::apply(Embedding { ids, dims }, &[table])
}

/// `x` [B, R, C] with its last two dimensions exchanged: [B, C, R], contiguous.
///
/// # Errors
/// When `x` has not three dimensions.
pub fn turned(x: &Tensor) -> Result<Tensor> {
    x.dims3()?;
    elsewhere::turned(x)
}

struct AddPerChannel;

impl Layer for AddPerChannel {
    const NAME: &'static str = "add_per_channel";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let (x, t) = (&args[0], &args[1]);
        let pixels = x.dims[2] * x.dims[3];
        let mut y = vec![T::ZERO; x.data.len()];
        let sources = x.data.par_chunks_exact(pixels).zip(t.data);
        y.par_chunks_exact_mut(pixels).zip(sources).with_min_len(16).for_each(|(y, (x, &t))| {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = x + t);
        });
        Ok((y, x.dims.to_vec()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        needs: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let pixels = args[0].dims[2] * args[0].dims[3];
        let gt = || grad.par_chunks_exact(pixels).with_min_len(16).map(sum).collect();
        Ok(vec![needs[0].then(|| grad.to_vec()), needs[1].then(gt)])
    }
}

struct Upsample;

impl Layer for Upsample {
    const NAME: &'static str = "upsample_nearest2x";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let [b, c, h, w] = *args[0].dims else { bail!("upsample_nearest2x: four dimensions") };
        let mut y = vec![T::ZERO; 4 * args[0].data.len()];
        let rows = y.par_chunks_exact_mut(4 * w).zip(args[0].data.par_chunks_exact(w));
        rows.with_min_len(64).for_each(|(y, x)| {
            let (above, below) = y.split_at_mut(2 * w);
            for (y, &x) in above.chunks_exact_mut(2).zip(x) {
                y.fill(x);
            }
            below.copy_from_slice(above);
        });
        Ok((y, vec![b, c, 2 * h, 2 * w]))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        _: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let w = args[0].dims[3];
        let mut gx = vec![T::ZERO; args[0].data.len()];
        let rows = gx.par_chunks_exact_mut(w).zip(grad.par_chunks_exact(4 * w));
        rows.with_min_len(64).for_each(|(gx, g)| {
            let (above, below) = g.split_at(2 * w);
            for ((gx, a), b) in gx.iter_mut().zip(above.chunks_exact(2)).zip(below.chunks_exact(2)) {
                *gx = a[0] + a[1] + b[0] + b[1];
            }
        });
        Ok(vec![Some(gx)])
    }
}

struct Embedding {
    ids: Vec<u32>,
    dims: Vec<usize>,
}

impl Layer for Embedding {
    const NAME: &'static str = "embedding";

    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)> {
        let width = args[0].dims[1];
        let mut y = Vec::with_capacity(self.ids.len() * width);
        for &id in &self.ids {
            y.extend_from_slice(&args[0].data[id as usize * width..][..width]);
        }
        Ok((y, self.dims.clone()))
    }

    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        _: &[T],
        grad: &[T],
        _: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>> {
        let width = args[0].dims[1];
        let mut table = vec![T::ZERO; args[0].data.len()];
        // In the order of the ids: rows that occur more than once are summed in one fixed order.
        for (&id, g) in self.ids.iter().zip(grad.chunks_exact(width)) {
            let row = &mut table[id as usize * width..][..width];
            row.iter_mut().zip(g).for_each(|(t, &g)| *t += g);
        }
        Ok(vec![Some(table)])
    }
}
