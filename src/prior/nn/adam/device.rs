//! The optimiser's state on a device: all variables in one row, so that an update is a dozen kernels and not
//! a dozen for each of some hundred tensors, and nothing but the norm crosses to the host.

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Shape, Tensor};

use super::{Slot, Update, finite, found};

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
        let norm = f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt();
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

    /// Kind `kind` of variable `i` on the CPU, if it is kept.
    pub(super) fn read(&self, kind: usize, i: usize, shape: &Shape) -> Result<Option<Tensor>> {
        let (first, len) = self.ranges[i];
        let row =
            self.kept.get(kind).map(|t| t.narrow(0, first, len)?.reshape(shape)?.to_device(&Device::Cpu));
        row.transpose()
    }
}
