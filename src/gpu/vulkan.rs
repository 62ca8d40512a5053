//! The kernels on a wgpu device: [`Backend`] over [`Gpu`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::adapter::{Choice, Request};
use super::backend::{Backend, Buffer, Device};
use super::device::Gpu;
use super::kernels::{Access, Kernel};
use super::pipeline::{Pipeline, sources};
use super::shader::{Assembled, Defines, ShaderError, Sources};
use crate::{Error, Result};

/// The define of [`Vulkan::new`]'s native atomics.
const FLOAT_ATOMICS: &str = "FLOAT_ATOMICS";

/// The kernels' WGSL on one adapter. Pipelines are compiled when they are first used, and kept.
pub struct Vulkan {
    gpu: Gpu,
    sources: Sources,
    native_atomics: bool,
    pipelines: Mutex<HashMap<Kernel, Arc<Pipeline>>>,
}

/// Opens the device that `request` names.
///
/// # Errors
/// If there is no such adapter, or its driver refuses.
pub fn open(request: &Request) -> Result<(Device, Choice)> {
    let (gpu, choice) = Gpu::open(request)?;
    let device = match gpu {
        Some(gpu) => Device::new(Vulkan::new(gpu, true)),
        None => Device::cpu(),
    };
    Ok((device, choice))
}

impl Vulkan {
    /// `native_atomics`: add to f32 words by the hardware's instruction where the device has it;
    /// else, and on other devices, by a compare-exchange loop.
    pub fn new(gpu: Gpu, native_atomics: bool) -> Self {
        Self::with_sources(gpu, native_atomics, sources().clone())
    }

    /// With other shader files than those the crate was built with.
    pub fn with_sources(gpu: Gpu, native_atomics: bool, sources: Sources) -> Self {
        let native_atomics = native_atomics && gpu.native_atomics();
        Self { gpu, sources, native_atomics, pipelines: Mutex::default() }
    }

    /// The device beneath.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn pipeline(&self, kernel: Kernel) -> Result<Arc<Pipeline>> {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = pipelines.get(&kernel) {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = Arc::new(Pipeline::new(&self.gpu, &self.assemble(kernel)?)?);
        pipelines.insert(kernel, Arc::clone(&pipeline));
        Ok(pipeline)
    }

    fn assemble(&self, kernel: Kernel) -> Result<Assembled> {
        let failed = |e: ShaderError| Error::Gpu(e.to_string());
        let list = self.sources.permutations().map_err(failed)?;
        let variants = list.iter().any(|p| p.entry == kernel.name() && p.defines.has(FLOAT_ATOMICS));
        let mut defines = Defines::default();
        if self.native_atomics && variants {
            defines = defines.with(FLOAT_ATOMICS);
        }
        self.sources.assemble(kernel.name(), &defines).map_err(failed)
    }

    fn inner<'a>(&self, buffer: &'a Buffer) -> Result<&'a wgpu::Buffer> {
        buffer.downcast().ok_or_else(|| Error::Gpu("a buffer of another device".to_owned()))
    }
}

impl Backend for Vulkan {
    fn name(&self) -> String {
        self.gpu.report().name.clone()
    }

    fn max_words(&self) -> usize {
        usize::try_from(self.gpu.max_bytes() / 4).unwrap_or(usize::MAX)
    }

    fn create(&self, label: &str, words: usize) -> Result<Buffer> {
        // Vulkan has no empty buffers, and a shader's `array<vec4f>` wants one element at least.
        let buffer = self.gpu.allocate(label, 4 * words.max(4) as u64)?;
        Ok(Buffer::new(buffer, words))
    }

    fn write(&self, buffer: &Buffer, data: &[u32]) -> Result<()> {
        if data.len() > buffer.words() {
            let reason = format!("{} words written to a buffer of {}", data.len(), buffer.words());
            return Err(Error::Gpu(reason));
        }
        self.gpu.upload(self.inner(buffer)?, bytemuck::cast_slice(data))
    }

    fn read(&self, buffer: &Buffer, offset: usize, out: &mut [u32]) -> Result<()> {
        if offset.checked_add(out.len()).is_none_or(|end| end > buffer.words()) {
            let reason = format!("{} words read at {offset} from a buffer of {}", out.len(), buffer.words());
            return Err(Error::Gpu(reason));
        }
        self.gpu.download(self.inner(buffer)?, 4 * offset as u64, bytemuck::cast_slice_mut(out))
    }

    fn clear(&self, buffer: &Buffer) -> Result<()> {
        self.gpu.zero(self.inner(buffer)?)
    }

    fn dispatch(&self, kernel: Kernel, params: &[u8], items: usize, buffers: &[&Buffer]) -> Result<()> {
        let bindings = kernel.bindings();
        let failed = |reason: String| Error::Gpu(format!("{}: {reason}", kernel.name()));
        if buffers.len() != bindings.len() {
            return Err(failed(format!("{} buffers, {} expected", buffers.len(), bindings.len())));
        }
        let buffers = buffers.iter().map(|b| self.inner(b)).collect::<Result<Vec<_>>>()?;
        for (i, binding) in bindings.iter().enumerate().filter(|(_, b)| b.access == Access::Write) {
            if buffers.iter().enumerate().any(|(j, other)| j != i && *other == buffers[i]) {
                return Err(failed(format!("{} is bound twice", binding.name)));
            }
        }
        let pipeline = self.pipeline(kernel)?;
        self.gpu.dispatch(&pipeline, params, items, &buffers)
    }
}
