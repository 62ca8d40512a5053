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

    /// What `make` gives, kept for each direction. `make` runs outside of the cell: it may wait for other threads,
    /// and a thread that waits may come by here with another task. Who comes second throws theirs away.
    pub(super) fn get<T: Real>(&self, backward: bool, make: impl FnOnce() -> Vec<T>) -> &[T] {
        let cell = if backward { &self.backward } else { &self.forward };
        if cell.get().is_none() {
            let _ = cell.set(T::to_cpu_storage_owned(make()));
        }
        let storage = cell.get().expect("set above");
        T::cpu_storage_as_slice(storage).expect("a layer computes in one type")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a thread does that waits for its own part and takes up another task of the same layer.
    #[test]
    fn what_is_kept_may_be_asked_for_while_it_is_made() {
        let kept = Kept::default();
        let made = kept.get(false, || {
            assert_eq!(kept.get(false, || vec![1.0f32]), [1.0]);
            vec![1.0f32]
        });
        assert_eq!(made, [1.0]);
        assert_eq!(kept.get(false, || -> Vec<f32> { panic!("made again") }), [1.0]);
        assert_eq!(kept.get(true, || vec![2.0f32]), [2.0]);
    }
}
