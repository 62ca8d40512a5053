//! The optimiser's state on a device: all variables in one row, so that an update is a dozen kernels and not
//! a dozen for each of some hundred tensors, and nothing but the norm crosses to the host.

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor};

use super::{Slot, Update, finite, found};

/// The sum of a row. candle has one block of threads for each sum, so there are many sums first.
fn sum(x: &Tensor) -> Result<f64> {
    let n = x.elem_count();
    let whole = n / LANES * LANES;
    let mut total = 0.0;
    if n > whole {
        total += f64::from(x.narrow(0, whole, n - whole)?.sum_all()?.to_scalar::<f32>()?);
    }
    if whole > 0 {
        let sums = x.narrow(0, 0, whole)?.reshape((whole / LANES, LANES))?.sum(1)?;
        total += f64::from(sums.sum_all()?.to_scalar::<f32>()?);
    }
    Ok(total)
}

const LANES: usize = 4096;

/// Weights, moments and averages of all variables, one after the other.
pub(super) struct Flat {
    /// By `KINDS`; the averages only if they are kept.
    kept: Vec<Tensor>,
    /// First element and number of elements of each variable.
    ranges: Vec<(usize, usize)>,
}

impl Flat {
    /// Takes over what the slots keep; nothing if there are no variables.
    pub(super) fn new(slots: &mut [Slot]) -> Result<Option<Self>> {
        let Some(device) = slots.first().map(|s| s.var.device().clone()) else { return Ok(None) };
        let mut first = 0;
        let range = |s: &Slot| {
            let at = (first, s.kept[0].len());
            first += at.1;
            at
        };
        let ranges = slots.iter().map(range).collect();
        let mut kept = Vec::new();
        for kind in 0..4 {
            let row: Vec<f32> = slots.iter_mut().flat_map(|s| std::mem::take(&mut s.kept[kind])).collect();
            if !row.is_empty() {
                kept.push(Tensor::from_vec(row, first, &device)?);
            }
        }
        Ok(Some(Self { kept, ranges }))
    }

    /// The summed gradients of all variables, and their norm.
    pub(super) fn gradient(&self, slots: &[Slot], parts: &[&GradStore]) -> Result<(Tensor, f64)> {
        let mut rows = Vec::with_capacity(slots.len());
        for slot in slots {
            let mut sum: Option<Tensor> = None;
            for grad in found(slot, parts)? {
                sum = Some(match sum {
                    Some(sum) => (sum + grad)?,
                    None => grad.clone(),
                });
            }
            rows.extend(sum.map(|s| s.flatten_all()).transpose()?);
        }
        let grad = Tensor::cat(&rows, 0)?;
        let norm = sum(&grad.sqr()?)?.sqrt();
        Ok((grad, finite(norm)?))
    }

    pub(super) fn apply(&mut self, u: &Update, grad: &Tensor) -> Result<()> {
        let blend = |old: &Tensor, new: &Tensor, keep: f32, share: f32| -> Result<Tensor> {
            old.affine(f64::from(keep), 0.0)? + new.affine(f64::from(share), 0.0)?
        };
        let m = blend(&self.kept[1], grad, u.beta1, (1.0 - u.beta1) * u.clip)?;
        let v = blend(&self.kept[2], &grad.sqr()?, u.beta2, (1.0 - u.beta2) * u.clip * u.clip)?;
        let root = v.sqrt()?.affine(f64::from(u.root_correction), f64::from(u.eps))?;
        let w = blend(&self.kept[0], &(&m / root)?, u.decay, -u.step_size)?;
        if let Some(average) = self.kept.get_mut(3) {
            *average = blend(average, &w, u.average, 1.0 - u.average)?;
        }
        self.kept.splice(..3, [w, m, v]);
        Ok(())
    }

    /// Gives the variables their new weights.
    pub(super) fn publish(&self, slots: &[Slot]) -> Result<()> {
        for (slot, &(first, len)) in slots.iter().zip(&self.ranges) {
            slot.var.set(&self.kept[0].narrow(0, first, len)?.reshape(slot.var.shape())?)?;
        }
        Ok(())
    }

    /// Kind `kind` of each variable on the CPU, if it is kept. The whole row crosses once: of a part of a tensor
    /// candle brings all that lies in the same memory.
    pub(super) fn read(&self, kind: usize, slots: &[Slot]) -> Result<Option<Vec<Tensor>>> {
        let Some(row) = self.kept.get(kind) else { return Ok(None) };
        let row = row.to_vec1::<f32>()?;
        let part = |(slot, &(first, len)): (&Slot, &(usize, usize))| {
            Tensor::from_slice(&row[first..first + len], slot.var.shape(), &Device::Cpu)
        };
        slots.iter().zip(&self.ranges).map(part).collect::<Result<_>>().map(Some)
    }
}
