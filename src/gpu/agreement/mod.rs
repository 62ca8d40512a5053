//! Every shader against its twin, on equal inputs, in both variants of the atomics.
//!
//! The tests run on the best Vulkan adapter there is, a software rasteriser included. Only where
//! there is none at all they print a line and pass.

mod chain;
mod device;
mod kernels;
mod renderer;
mod surface;

use std::collections::HashMap;

use super::adapter::Request;
use super::backend::{Backend, Buffer, Device};
use super::device::Gpu;
use super::kernels::{Access, Kernel};
use super::shader::Sources;
use super::vulkan::Vulkan;

/// A NaN with a signature: what a kernel must write before it is read.
const POISON: u32 = 0x7fc0_dead;

/// The test adapter, or `None` (and a printed line) where there is no Vulkan at all.
fn gpu() -> Option<Gpu> {
    match Gpu::open(&Request::Vulkan) {
        Ok((gpu, _)) => gpu,
        Err(error) if super::adapter::adapters().is_empty() => {
            eprintln!("SKIPPED, no Vulkan adapter: {error}");
            None
        }
        Err(error) => panic!("the adapter cannot be opened: {error}"),
    }
}

/// The kernels on the test adapter, from the crate's shaders or others.
fn vulkan(native_atomics: bool, sources: &Sources) -> Option<Device> {
    gpu().map(|gpu| Device::new(Vulkan::with_sources(gpu, native_atomics, sources.clone())))
}

/// How much of a difference is rounding.
#[derive(Debug, Clone, Copy)]
enum Tolerance {
    /// Integers without any rounding before them.
    Exact,
    /// Each difference is at most this part of the buffer's largest magnitude.
    Scaled(f64),
    /// The same, but for one element in ten thousand: a rounding error that flips a decision
    /// (a ReLU's side, a cell's border) changes an element by any amount.
    MostlyScaled(f64),
    /// At most one bit (or count) in ten thousand differs, for the same reason.
    Flips,
}

const FLIPS: f64 = 1e-4;

/// One buffer compared.
#[derive(Debug)]
struct Row {
    kernel: Kernel,
    buffer: &'static str,
    error: f64,
    limit: f64,
}

/// A pair of devices and named buffers. A kernel runs on both with the same contents; what the
/// processor wrote becomes the input of the kernels after it.
struct Lab<'a> {
    gpu: &'a Device,
    /// Compare this kernel alone; the others run on the processor only.
    only: Option<Kernel>,
    words: HashMap<&'static str, Vec<u32>>,
    rows: Vec<Row>,
}

impl<'a> Lab<'a> {
    fn new(gpu: &'a Device, only: Option<Kernel>) -> Self {
        Self { gpu, only, words: HashMap::new(), rows: Vec::new() }
    }

    fn set(&mut self, name: &'static str, values: Vec<f32>) {
        self.words.insert(name, values.into_iter().map(f32::to_bits).collect());
    }

    /// A buffer that a kernel is expected to fill, and five words that it must leave alone.
    fn poison(&mut self, name: &'static str, words: usize) {
        self.words.insert(name, vec![POISON; words + 5]);
    }

    fn run(&mut self, kernel: Kernel, params: &[u8], items: usize) {
        let names: Vec<_> = kernel.bindings().iter().map(|b| b.name).collect();
        let wanted = on(&Device::cpu(), &self.words, kernel, params, items);
        let compared = self.only.is_none_or(|only| only == kernel);
        let mut found =
            if compared { on(self.gpu, &self.words, kernel, params, items) } else { wanted.clone() };
        if kernel == Kernel::SurfaceTileWrite {
            self.sort_lists(found.last_mut());
        }
        for (i, name) in names.into_iter().enumerate() {
            if kernel.bindings()[i].access == Access::Write {
                if compared {
                    let (error, limit) = compare(&wanted[i], &found[i], kernels::tolerance(kernel, name));
                    self.rows.push(Row { kernel, buffer: name, error, limit });
                }
                self.words.insert(name, wanted[i].clone());
            }
        }
    }

    /// A tile's list is in any order on a GPU, in that of the triangles on the processor.
    fn sort_lists(&self, list: Option<&mut Vec<u32>>) {
        if let Some(list) = list {
            let tiles = self.words["offsets"].windows(2).take(self.words["counts"].len());
            tiles.for_each(|tile| list[tile[0] as usize..tile[1] as usize].sort_unstable());
        }
    }

    fn floats(&self, name: &str) -> &[f32] {
        bytemuck::cast_slice(&self.words[name])
    }
}

fn on(
    device: &Device,
    words: &HashMap<&'static str, Vec<u32>>,
    kernel: Kernel,
    params: &[u8],
    items: usize,
) -> Vec<Vec<u32>> {
    let buffers: Vec<Buffer> = kernel
        .bindings()
        .iter()
        .map(|binding| {
            let data = words.get(binding.name).unwrap_or_else(|| panic!("{} is not set", binding.name));
            let buffer = device.create(binding.name, data.len()).unwrap();
            device.write(&buffer, data).unwrap();
            buffer
        })
        .collect();
    device.dispatch(kernel, params, items, &buffers.iter().collect::<Vec<_>>()).unwrap();
    buffers.iter().map(|buffer| read(&**device, buffer)).collect()
}

fn read(device: &dyn Backend, buffer: &Buffer) -> Vec<u32> {
    let mut out = vec![0; buffer.words()];
    device.read(buffer, 0, &mut out).unwrap();
    out
}

/// The error as it is measured under `tolerance`, and its limit.
fn compare(wanted: &[u32], found: &[u32], tolerance: Tolerance) -> (f64, f64) {
    assert_eq!(wanted.len(), found.len());
    let pairs = || wanted.iter().copied().zip(found.iter().copied());
    let float = |word: u32| f64::from(f32::from_bits(word));
    // What neither side wrote is no measure of scale.
    let scale = wanted.iter().map(|&w| float(w).abs()).filter(|v| v.is_finite()).fold(1e-30, f64::max);
    let difference = |(a, b): (u32, u32)| match (float(a) - float(b)).abs() / scale {
        _ if a == b => 0.0,
        d if d.is_nan() => f64::INFINITY,
        d => d,
    };
    match tolerance {
        Tolerance::Exact => (pairs().filter(|(a, b)| a != b).count() as f64, 0.0),
        Tolerance::Scaled(limit) => (pairs().map(difference).fold(0.0, f64::max), limit),
        Tolerance::MostlyScaled(limit) => {
            let mut all: Vec<_> = pairs().map(difference).collect();
            all.sort_by(f64::total_cmp);
            (all[((1.0 - FLIPS) * (all.len() - 1) as f64) as usize], limit)
        }
        Tolerance::Flips => {
            let flips: u32 = pairs().map(|(a, b)| (a ^ b).count_ones()).sum();
            (f64::from(flips) / (32.0 * wanted.len() as f64), FLIPS)
        }
    }
}

/// Fails with every row that is beyond its limit; prints all of them.
fn judge(title: &str, rows: &[Row]) {
    eprintln!("{title}");
    for row in rows {
        eprintln!("  {:20} {:20} {:9.2e} of {:.0e}", row.kernel.name(), row.buffer, row.error, row.limit);
    }
    let bad: Vec<_> = rows.iter().filter(|r| r.error > r.limit).collect();
    assert!(bad.is_empty(), "{title}: shader and twin disagree: {bad:#?}");
}
