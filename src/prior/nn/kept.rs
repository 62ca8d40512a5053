//! What a layer keeps of weights that do not change, in the order in which its kernels read them.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, Tensor};

use super::real::Real;

/// Elements of a weight up to which its other forms are kept: those of large layers would double the memory of a
/// model, and are small work beside what such layers do with them.
const MOST: usize = 1 << 20;

/// The forms of one layer's weight that its kernels have made, on the CPU. It must go with one weight only. That
/// of a variable, which training changes in place, is never kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// For the result.
    forward: OnceLock<CpuStorage>,
    /// For the gradient of the input.
    backward: OnceLock<CpuStorage>,
}

impl Kept {
    /// `kept`, if `weight` is one to keep.
    pub(super) fn of(kept: &Arc<Self>, weight: &Tensor) -> Option<Arc<Self>> {
        (!weight.track_op() && weight.elem_count() <= MOST).then(|| kept.clone())
    }

    /// What `make` gives, made once for each direction.
    pub(super) fn get<T: Real>(&self, backward: bool, make: impl FnOnce() -> Vec<T>) -> &[T] {
        let cell = if backward { &self.backward } else { &self.forward };
        let storage = cell.get_or_init(|| T::to_cpu_storage_owned(make()));
        T::cpu_storage_as_slice(storage).expect("a layer computes in one type")
    }
}
