//! A wgpu device: opening it, its memory, its queue, and its failures as errors.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::adapter::{self, AdapterReport, Choice, Request};
use super::pipeline::Pipeline;
use crate::{Error, Result};

/// Parameters of that many dispatches fit into the uniform buffer before the queue must be flushed.
const SLOTS: u64 = 256;
/// Bytes of one slot: a multiple of every device's offset alignment, and more than any kernel's struct.
const SLOT: u64 = 512;
/// WebGPU's (and most drivers') limit of workgroups along one dimension of a dispatch.
const MAX_GROUPS: usize = 65_535;

/// Commands that are recorded and not yet submitted.
#[derive(Default)]
struct Recording {
    encoder: Option<wgpu::CommandEncoder>,
    slots: u64,
}

/// An open wgpu device. Commands take effect in the order of the calls.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) report: AdapterReport,
    queue: wgpu::Queue,
    params: wgpu::Buffer,
    recording: Mutex<Recording>,
    /// A buffer for reading back, kept between calls.
    staging: Mutex<Option<wgpu::Buffer>>,
    /// What went wrong outside of an error scope: a lost device, or an error of the driver.
    fault: Arc<Mutex<Option<String>>>,
}

/// A panic of another thread leaves nothing half-done in these small states.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// Opens the adapter that [`adapter::choose`] picks; `None` if that is the processor.
    ///
    /// # Errors
    /// If there is no such adapter or its driver refuses.
    pub fn open(request: &Request) -> Result<(Option<Self>, Choice)> {
        if *request == Request::Cpu {
            // Loading the drivers takes a tenth of a second.
            return Ok((None, adapter::choose(request, &[])?));
        }
        let adapters = adapter::enumerate();
        let reports: Vec<_> = adapters.iter().map(adapter::report).collect();
        let choice = adapter::choose(request, &reports)?;
        let gpu = match choice.adapter {
            Some(i) => Some(Self::from_adapter(&adapters[i], reports[i].clone())?),
            None => None,
        };
        Ok((gpu, choice))
    }

    fn from_adapter(adapter: &wgpu::Adapter, report: AdapterReport) -> Result<Self> {
        let wanted = wgpu::Features::SHADER_FLOAT32_ATOMIC;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("gen3d"),
            required_features: report.features & wanted,
            required_limits: report.limits.clone(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| {
            Error::Gpu(format!("{}: {e}", report.name))
                .hint("try --device cpu, or another adapter of `gen3d doctor`")
        })?;
        let fault = Arc::new(Mutex::new(None));
        let note = |fault: &Arc<Mutex<Option<String>>>| {
            let fault = Arc::clone(fault);
            // The first fault is the cause, later ones its consequences.
            move |text: String| {
                lock(&fault).get_or_insert(text);
            }
        };
        let on_error = note(&fault);
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| on_error(e.to_string())));
        let on_lost = note(&fault);
        device.set_device_lost_callback(move |reason, text| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                on_lost(format!("the device was lost: {text}"));
            }
        });
        let params = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: SLOTS * SLOT,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let (recording, staging) = (Mutex::default(), Mutex::default());
        Ok(Self { device, report, queue, params, recording, staging, fault })
    }

    /// The adapter this device was opened on.
    pub fn report(&self) -> &AdapterReport {
        &self.report
    }

    /// Whether shaders can add to f32 values atomically without a compare-exchange loop.
    pub fn native_atomics(&self) -> bool {
        self.device.features().contains(wgpu::Features::SHADER_FLOAT32_ATOMIC)
    }

    /// The longest storage buffer, in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.report.limits.max_storage_buffer_binding_size.min(self.report.limits.max_buffer_size)
    }

    /// An error if something went wrong since the device was opened.
    pub(super) fn check(&self) -> Result<()> {
        match &*lock(&self.fault) {
            Some(text) => Err(Error::Gpu(format!("{}: {text}", self.report.name))
                .hint("resume the run with --resume; if it happens again, use --device cpu")),
            None => Ok(()),
        }
    }

    /// Runs `make` and turns what wgpu complains about meanwhile into an error.
    pub(super) fn scoped<T>(&self, what: &str, make: impl FnOnce() -> T) -> Result<T> {
        self.check()?;
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let made = make();
        // Scopes are a stack: the innermost goes first.
        let popped = [validation.pop(), memory.pop(), internal.pop()];
        match popped.into_iter().find_map(pollster::block_on) {
            None => Ok(made),
            Some(wgpu::Error::OutOfMemory { .. }) => {
                Err(Error::Gpu(format!("{}: out of memory for {what}", self.report.name))
                    .hint("use smaller pictures, a smaller hash grid, or --device cpu"))
            }
            Some(e) => Err(Error::Gpu(format!("{}: {what}: {e}", self.report.name))),
        }
    }

    /// A storage buffer of `bytes` zeros (a multiple of 4, at least 4).
    pub(super) fn allocate(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
        if bytes > self.max_bytes() {
            let reason = format!("{label} needs {bytes} bytes, the device can bind {}", self.max_bytes());
            return Err(Error::Gpu(reason).hint("use smaller pictures, a smaller hash grid, or --device cpu"));
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size: bytes, usage, mapped_at_creation: false };
        self.scoped(label, || self.device.create_buffer(&descriptor))
    }

    /// Copies `data` (a multiple of 4 bytes) to the start of `buffer`.
    pub(super) fn upload(&self, buffer: &wgpu::Buffer, data: &[u8]) -> Result<()> {
        // A queue's writes overtake what is recorded but not submitted.
        self.flush(&mut lock(&self.recording));
        self.scoped("an upload", || self.queue.write_buffer(buffer, 0, data))
    }

    /// Sets `buffer` to zero.
    pub(super) fn zero(&self, buffer: &wgpu::Buffer) -> Result<()> {
        self.check()?;
        self.encoder(&mut lock(&self.recording)).clear_buffer(buffer, 0, None);
        Ok(())
    }

    /// Copies `out.len()` bytes (a multiple of 4) from `offset` of `buffer`; waits for them.
    pub(super) fn download(&self, buffer: &wgpu::Buffer, offset: u64, out: &mut [u8]) -> Result<()> {
        let bytes = out.len() as u64;
        if bytes == 0 {
            return self.check();
        }
        let mut kept = lock(&self.staging);
        let staging = match kept.take().filter(|b| b.size() >= bytes) {
            Some(buffer) => buffer,
            None => self.scoped("a staging buffer", || {
                self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("staging"),
                    size: bytes.next_power_of_two(),
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            })?,
        };
        {
            let mut recording = lock(&self.recording);
            self.encoder(&mut recording).copy_buffer_to_buffer(buffer, offset, &staging, 0, bytes);
            self.flush(&mut recording);
        }
        let (send, receive) = std::sync::mpsc::channel();
        // The receiver is gone only if this function has returned an error.
        staging.map_async(wgpu::MapMode::Read, ..bytes, move |mapped| drop(send.send(mapped)));
        self.wait()?;
        let failed = |text: String| Error::Gpu(format!("{}: reading back: {text}", self.report.name));
        match receive.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(failed(e.to_string())),
            Err(e) => return Err(failed(e.to_string())),
        }
        out.copy_from_slice(&staging.get_mapped_range(..bytes).map_err(|e| failed(e.to_string()))?);
        staging.unmap();
        *kept = Some(staging);
        Ok(())
    }

    /// Submits what is recorded and waits until the device is idle.
    ///
    /// # Errors
    /// If the device is lost or a command was refused.
    pub fn wait(&self) -> Result<()> {
        self.flush(&mut lock(&self.recording));
        if let Err(e) = self.device.poll(wgpu::PollType::wait_indefinitely()) {
            return Err(Error::Gpu(format!("{}: {e}", self.report.name)));
        }
        self.check()
    }

    /// Records one dispatch of `items` invocations with `params` at binding 0 and `buffers` from 1 on.
    pub(super) fn dispatch(
        &self,
        pipeline: &Pipeline,
        params: &[u8],
        items: usize,
        buffers: &[&wgpu::Buffer],
    ) -> Result<()> {
        if items == 0 {
            return self.check();
        }
        let mut recording = lock(&self.recording);
        if recording.slots == SLOTS {
            self.flush(&mut recording);
        }
        let offset = recording.slots * SLOT;
        recording.slots += 1;
        let [x, y] = groups(items.div_ceil(pipeline.workgroup_size));
        self.scoped(&pipeline.label, || {
            // All slots are written before the submission that reads them, each of them once.
            self.queue.write_buffer(&self.params, offset, params);
            let bindings = pipeline.bind(&self.device, &self.params, (offset, params.len() as u64), buffers);
            let label = Some(pipeline.label.as_str());
            let mut pass = self
                .encoder(&mut recording)
                .begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes: None });
            pass.set_pipeline(&pipeline.pipeline);
            pass.set_bind_group(0, &bindings, &[]);
            pass.dispatch_workgroups(x, y, 1);
        })
    }

    fn encoder<'a>(&self, recording: &'a mut Recording) -> &'a mut wgpu::CommandEncoder {
        recording.encoder.get_or_insert_with(|| self.device.create_command_encoder(&Default::default()))
    }

    fn flush(&self, recording: &mut Recording) {
        recording.slots = 0;
        if let Some(encoder) = recording.encoder.take() {
            self.queue.submit([encoder.finish()]);
        }
    }
}

/// Spreads `n` workgroups over two dimensions where one is not enough; the excess is less than
/// one row. Shaders number them `x + y·num_workgroups.x` and guard against the excess.
fn groups(n: usize) -> [u32; 2] {
    let rows = n.div_ceil(MAX_GROUPS).max(1);
    [n.div_ceil(rows) as u32, rows as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workgroups_spread_over_two_dimensions() {
        assert_eq!(groups(1), [1, 1]);
        assert_eq!(groups(65_535), [65_535, 1]);
        assert_eq!(groups(65_536), [32_768, 2]);
        for n in [65_537, 1 << 20, 123_456_789] {
            let [x, y] = groups(n);
            let total = x as usize * y as usize;
            assert!(x as usize <= MAX_GROUPS && total >= n && total - n < x as usize, "{n}");
        }
    }
}
