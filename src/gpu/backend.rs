//! What a device must offer: buffers of 32-bit words, and the dispatch of a [`Kernel`].

use std::any::Any;
use std::sync::Arc;

use super::kernels::Kernel;
use crate::Result;

/// A handle on device memory. Clones share the memory; the last one to go frees it.
#[derive(Clone)]
pub struct Buffer {
    inner: Arc<dyn Any + Send + Sync>,
    words: usize,
}

impl Buffer {
    /// Wraps a backend's own buffer type.
    pub fn new<T: Any + Send + Sync>(inner: T, words: usize) -> Self {
        Self { inner: Arc::new(inner), words }
    }

    /// Length in 32-bit words.
    pub fn words(&self) -> usize {
        self.words
    }

    /// The backend's own buffer; `None` if another kind of backend made it.
    pub fn downcast<T: Any>(&self) -> Option<&T> {
        self.inner.downcast_ref()
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} words)", self.words)
    }
}

/// A device that runs the kernels of [`super::kernels`]. Commands take effect in the order of the calls.
pub trait Backend: Send + Sync {
    /// The device's name for logs.
    fn name(&self) -> String;

    /// The longest buffer it can bind, in words.
    fn max_words(&self) -> usize;

    /// A buffer of `words` zeros; `label` names it in error messages.
    ///
    /// # Errors
    /// If there is not enough memory or the device's limit is exceeded.
    fn create(&self, label: &str, words: usize) -> Result<Buffer>;

    /// Copies `data` to the buffer's start.
    ///
    /// # Errors
    /// If `data` is longer than the buffer or the buffer is another backend's.
    fn write(&self, buffer: &Buffer, data: &[u32]) -> Result<()>;

    /// Copies `out.len()` words from `offset` back to the host; waits for the work before it.
    ///
    /// # Errors
    /// If the range is outside of the buffer, or the device is lost.
    fn read(&self, buffer: &Buffer, offset: usize, out: &mut [u32]) -> Result<()>;

    /// Sets the buffer to zero.
    ///
    /// # Errors
    /// If the buffer is another backend's.
    fn clear(&self, buffer: &Buffer) -> Result<()>;

    /// Runs `kernel` with `items` invocations. `params` are the bytes of its parameter struct,
    /// `buffers` stand in the order of [`Kernel::bindings`]. Buffers may be longer than needed; the
    /// caller answers for none being shorter.
    ///
    /// # Errors
    /// If the number of buffers or the length of `params` is wrong, a written buffer is bound twice,
    /// or the device failed.
    fn dispatch(&self, kernel: Kernel, params: &[u8], items: usize, buffers: &[&Buffer]) -> Result<()>;
}

/// A device by its backend. Cheap to clone.
#[derive(Clone)]
pub struct Device(Arc<dyn Backend>);

impl Device {
    /// The processor: the Rust twins of the kernels on rayon's threads.
    pub fn cpu() -> Self {
        Self(Arc::new(super::cpu::Cpu))
    }

    /// Any other backend.
    pub fn new(backend: impl Backend + 'static) -> Self {
        Self(Arc::new(backend))
    }
}

impl std::ops::Deref for Device {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.name())
    }
}
