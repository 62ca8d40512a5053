//! The renderer's state as named tensors, for checkpoints.

use std::collections::BTreeMap;

use super::buffers::{Group, read_f32};
use super::renderer::VolumeRenderer;
use crate::gpu::backend::Buffer;
use crate::{Error, Result};

/// Named tensors, flat.
pub type State = BTreeMap<String, Vec<f32>>;

/// Adam steps taken, active levels.
const PROGRESS: &str = "progress";
const OCCUPANCY: &str = "occupancy.ema";

impl VolumeRenderer {
    /// Parameters, Adam's moments and step count, and the occupancy grid. A renderer with the same
    /// configs and seed that loads it goes on bit for bit.
    ///
    /// # Errors
    /// If the device fails.
    pub fn state(&self) -> Result<State> {
        let mut state = State::new();
        for (name, buffer, len) in self.tensors() {
            state.insert(name, read_f32(&*self.device, buffer, len)?);
        }
        // Exact in f32 up to 2²⁴ steps.
        state.insert(PROGRESS.into(), vec![self.adam_steps as f32, self.active_levels as f32]);
        Ok(state)
    }

    /// Takes over a state; other names than those of [`state`](Self::state) are ignored.
    ///
    /// # Errors
    /// If a tensor is missing, has the wrong length or is not finite (nothing is changed then), or
    /// the device fails.
    pub fn load_state(&mut self, state: &State) -> Result<()> {
        let tensors = self.tensors();
        for (name, _, len) in &tensors {
            check(state, name, *len)?;
        }
        let progress = check(state, PROGRESS, 2)?;
        for (name, buffer, _) in &tensors {
            self.device.write(buffer, bytemuck::cast_slice(&state[name]))?;
        }
        self.adam_steps = progress[0] as u32;
        self.active_levels = (progress[1] as u32).min(self.field.levels);
        for group in [&self.grid, &self.mlp, &self.background] {
            self.device.clear(&group.grad)?;
        }
        self.pass = None;
        self.point_pass = None;
        self.pool.clear();
        self.set_occupancy_bits()
    }

    /// Another renderer with the same field.
    ///
    /// # Errors
    /// If the device fails or has too little memory.
    pub fn copy(&self) -> Result<Self> {
        let mut copy = Self::new(&self.device, &self.field, &self.volume, self.seed)?;
        copy.load_state(&self.state()?)?;
        Ok(copy)
    }

    fn tensors(&self) -> Vec<(String, &Buffer, usize)> {
        let mut tensors = vec![(OCCUPANCY.to_owned(), &self.ema, self.ema.words())];
        for Group { name, len, params, m, v, .. } in [&self.grid, &self.mlp, &self.background] {
            tensors.push(((*name).to_owned(), params, *len));
            tensors.push((format!("{name}.adam_m"), m, *len));
            tensors.push((format!("{name}.adam_v"), v, *len));
        }
        tensors
    }
}

fn check<'a>(state: &'a State, name: &str, len: usize) -> Result<&'a [f32]> {
    let Some(tensor) = state.get(name) else {
        return Err(Error::invalid("checkpoint", format!("has no tensor {name}")));
    };
    if tensor.len() != len {
        let reason = format!("{name} has {} numbers, this field needs {len}", tensor.len());
        return Err(Error::invalid("checkpoint", reason).hint("resume with the config it was saved with"));
    }
    if let Some(i) = tensor.iter().position(|x| !x.is_finite()) {
        return Err(Error::invalid("checkpoint", format!("{name} is not finite at {i}")));
    }
    Ok(tensor)
}
