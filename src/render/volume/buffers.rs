//! Device memory of the renderer: parameter groups with their Adam state, and reused work buffers.

use std::collections::HashMap;

use crate::Result;
use crate::gpu::backend::{Backend, Buffer};
use crate::rng::Rng;

/// A group of parameters with gradient and Adam moments.
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) len: usize,
    pub(super) params: Buffer,
    pub(super) grad: Buffer,
    pub(super) m: Buffer,
    pub(super) v: Buffer,
}

impl Group {
    pub(super) fn new(device: &dyn Backend, name: &'static str, values: &[f32]) -> Result<Self> {
        let len = values.len();
        let params = device.create(name, len)?;
        device.write(&params, bytemuck::cast_slice(values))?;
        let [grad, m, v] = [device.create(name, len)?, device.create(name, len)?, device.create(name, len)?];
        Ok(Self { name, len, params, grad, m, v })
    }
}

/// Uniform numbers in ±`bounds(i)`.
pub(super) fn uniform(rng: Rng, len: usize, bound: impl Fn(usize) -> f32) -> Vec<f32> {
    (0..len).map(|i| rng.range(i as u64, -bound(i), bound(i))).collect()
}

/// Xavier bounds of an MLP `inputs → hidden → outputs` without biases, by parameter.
pub(super) fn xavier(inputs: usize, hidden: usize, outputs: usize) -> impl Fn(usize) -> f32 {
    move |i| {
        let fan = if i < inputs * hidden { inputs + hidden } else { hidden + outputs };
        (6.0 / fan as f32).sqrt()
    }
}

/// Work buffers by name, kept from step to step and only ever enlarged.
#[derive(Default)]
pub(in crate::render) struct Pool(HashMap<&'static str, Buffer>);

impl Pool {
    /// A buffer of at least `words` words whose content is arbitrary.
    pub(in crate::render) fn get(
        &mut self,
        device: &dyn Backend,
        name: &'static str,
        words: usize,
    ) -> Result<Buffer> {
        if let Some(buffer) = self.0.get(name)
            && buffer.words() >= words
        {
            return Ok(buffer.clone());
        }
        // The old buffer goes first: there may not be room for both.
        self.0.remove(name);
        // A quarter more than asked for: the number of samples changes from step to step.
        let roomy = (words + words / 4).max(16);
        let buffer = device.create(name, if roomy <= device.max_words() { roomy } else { words })?;
        self.0.insert(name, buffer.clone());
        Ok(buffer)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Reads `len` floats from the start of a buffer.
pub(in crate::render) fn read_f32(device: &dyn Backend, buffer: &Buffer, len: usize) -> Result<Vec<f32>> {
    let mut data = vec![0.0f32; len];
    device.read(buffer, 0, bytemuck::cast_slice_mut(&mut data))?;
    Ok(data)
}
