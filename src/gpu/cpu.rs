//! The `cpu` device: buffers are vectors, kernels their Rust twins on rayon's threads.

use std::slice::IterMut;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytemuck::{AnyBitPattern, NoUninit};

use super::backend::{Backend, Buffer};
use super::kernels::{Access, Kernel};
use super::twin;
use crate::{Error, Result};

type Memory = RwLock<Vec<u32>>;

/// The processor as a backend.
pub(super) struct Cpu;

fn memory(buffer: &Buffer) -> Result<&Memory> {
    buffer.downcast().ok_or_else(|| Error::Gpu("a buffer of another device was bound on the cpu".into()))
}

fn busy(what: &str) -> Error {
    Error::Gpu(format!("{what}: the buffer is in use (bound twice for writing?)"))
}

impl Backend for Cpu {
    fn name(&self) -> String {
        format!("cpu ({} threads)", rayon::current_num_threads())
    }

    fn max_words(&self) -> usize {
        // Offsets in the kernels are u32.
        1 << 31
    }

    fn create(&self, label: &str, words: usize) -> Result<Buffer> {
        if words > self.max_words() {
            return Err(Error::Gpu(format!("buffer {label}: {words} words are too many for the cpu device")));
        }
        let mut data = Vec::new();
        data.try_reserve_exact(words).map_err(|e| {
            Error::Gpu(format!("buffer {label}: {} MiB: {e}", words >> 18))
                .hint("use fewer views, smaller pictures or fewer samples per ray")
        })?;
        data.resize(words, 0);
        Ok(Buffer::new::<Memory>(RwLock::new(data), words))
    }

    fn write(&self, buffer: &Buffer, data: &[u32]) -> Result<()> {
        let mut words = memory(buffer)?.try_write().map_err(|_| busy("write"))?;
        let n = words.len();
        let Some(target) = words.get_mut(..data.len()) else {
            return Err(Error::Gpu(format!("write of {} words into a buffer of {n}", data.len())));
        };
        target.copy_from_slice(data);
        Ok(())
    }

    fn read(&self, buffer: &Buffer, offset: usize, out: &mut [u32]) -> Result<()> {
        let words = memory(buffer)?.try_read().map_err(|_| busy("read"))?;
        let Some(source) = words.get(offset..offset + out.len()) else {
            return Err(Error::Gpu(format!("read of {} words at {offset} of {}", out.len(), words.len())));
        };
        out.copy_from_slice(source);
        Ok(())
    }

    fn clear(&self, buffer: &Buffer) -> Result<()> {
        memory(buffer)?.try_write().map_err(|_| busy("clear"))?.fill(0);
        Ok(())
    }

    fn dispatch(&self, kernel: Kernel, params: &[u8], items: usize, buffers: &[&Buffer]) -> Result<()> {
        let bindings = kernel.bindings();
        if bindings.len() != buffers.len() {
            return Err(Error::Gpu(format!(
                "{}: {} buffers for {} bindings",
                kernel.name(),
                buffers.len(),
                bindings.len()
            )));
        }
        if items == 0 {
            return Ok(());
        }
        let mut guards = Vec::with_capacity(buffers.len());
        for (binding, buffer) in bindings.iter().zip(buffers) {
            let memory = memory(buffer)?;
            let name = || busy(&format!("{}: {}", kernel.name(), binding.name));
            guards.push(match binding.access {
                Access::Read => Guard::Read(memory.try_read().map_err(|_| name())?),
                Access::Write => Guard::Write(memory.try_write().map_err(|_| name())?),
            });
        }
        run(kernel, params, &mut guards.iter_mut())
    }
}

enum Guard<'a> {
    Read(RwLockReadGuard<'a, Vec<u32>>),
    Write(RwLockWriteGuard<'a, Vec<u32>>),
}

fn get<'a, T: AnyBitPattern + NoUninit>(guards: &mut IterMut<'a, Guard<'_>>) -> &'a [T] {
    match guards.next() {
        Some(Guard::Read(g)) => bytemuck::cast_slice(g),
        Some(Guard::Write(g)) => bytemuck::cast_slice(g),
        None => &[],
    }
}

fn set<'a, T: AnyBitPattern + NoUninit>(guards: &mut IterMut<'a, Guard<'_>>) -> &'a mut [T] {
    match guards.next() {
        Some(Guard::Write(g)) => bytemuck::cast_slice_mut(g),
        // The table of bindings says what is written; the tests bind every kernel.
        _ => &mut [],
    }
}

fn params<T: AnyBitPattern>(kernel: Kernel, bytes: &[u8]) -> Result<T> {
    bytemuck::try_pod_read_unaligned(bytes)
        .map_err(|e| Error::Gpu(format!("{}: parameters: {e}", kernel.name())))
}

fn run(kernel: Kernel, bytes: &[u8], b: &mut IterMut<'_, Guard<'_>>) -> Result<()> {
    use Kernel as K;
    match kernel {
        K::MarchCount => {
            twin::march_count(&params(kernel, bytes)?, get(b), get(b), set(b), set(b), set(b));
        }
        K::Scan => twin::scan(&params(kernel, bytes)?, get(b), set(b)),
        K::MarchWrite => {
            twin::march_write(&params(kernel, bytes)?, get(b), get(b), get(b), set(b), set(b));
        }
        K::FieldForward => {
            twin::field_forward(&params(kernel, bytes)?, get(b), get(b), get(b), set(b), set(b));
        }
        K::Composite => {
            twin::composite(&params(kernel, bytes)?, get(b), get(b), get(b), get(b), set(b), set(b));
        }
        K::CompositeBackward => {
            let p = params(kernel, bytes)?;
            twin::composite_backward(&p, get(b), get(b), get(b), get(b), get(b), get(b), get(b), set(b));
        }
        K::FieldBackward => {
            twin::field_backward(&params(kernel, bytes)?, get(b), get(b), get(b), set(b), set(b));
        }
        K::GridBackward => twin::grid_backward(&params(kernel, bytes)?, get(b), get(b), set(b)),
        K::GridPositionsBackward => {
            twin::grid_positions_backward(&params(kernel, bytes)?, get(b), get(b), get(b), set(b));
        }
        K::NormalCount => twin::normal_count(&params(kernel, bytes)?, get(b), get(b), set(b)),
        K::NormalPoints => {
            twin::normal_points(&params(kernel, bytes)?, get(b), get(b), get(b), get(b), set(b), set(b));
        }
        K::NormalComposite => {
            twin::normal_composite(&params(kernel, bytes)?, get(b), get(b), get(b), get(b), get(b), set(b));
        }
        K::NormalBackward => {
            let p = params(kernel, bytes)?;
            twin::normal_backward(&p, get(b), get(b), get(b), get(b), get(b), get(b), set(b), set(b));
        }
        K::Adam => twin::adam(&params(kernel, bytes)?, set(b), set(b), set(b), set(b)),
        K::OccupancyPoints => twin::occupancy_points(&params(kernel, bytes)?, set(b)),
        K::OccupancyUpdate => twin::occupancy_update(&params(kernel, bytes)?, get(b), set(b)),
        K::OccupancyBits => twin::occupancy_bits(&params(kernel, bytes)?, get(b), set(b)),
        K::BackgroundForward => {
            twin::background_forward(&params(kernel, bytes)?, get(b), get(b), set(b));
        }
        K::BackgroundBackward => {
            let p = params(kernel, bytes)?;
            twin::background_backward(&p, get(b), get(b), get(b), get(b), get(b), set(b));
        }
        K::SurfaceTransform => {
            let p = params(kernel, bytes)?;
            twin::surface_transform(&p, get(b), get(b), set(b));
        }
        K::SurfaceTransformBackward => {
            let p = params(kernel, bytes)?;
            twin::surface_transform_backward(&p, get(b), get(b), set(b));
        }
        K::SurfaceTileCount => {
            let p = params(kernel, bytes)?;
            twin::surface_tile_count(&p, get(b), get(b), set(b));
        }
        K::SurfaceTileWrite => {
            let p = params(kernel, bytes)?;
            twin::surface_tile_write(&p, get(b), get(b), get(b), set(b), set(b));
        }
        K::SurfaceRasterize => {
            let p = params(kernel, bytes)?;
            twin::surface_rasterize(&p, get(b), get(b), get(b), get(b), get(b), get(b), set(b), set(b));
        }
        K::SurfaceRasterizeBackward => {
            let p = params(kernel, bytes)?;
            twin::surface_rasterize_backward(&p, get(b), get(b), get(b), get(b), set(b));
        }
        K::SurfaceInterpolate => {
            let p = params(kernel, bytes)?;
            twin::surface_interpolate(&p, get(b), get(b), get(b), get(b), set(b));
        }
        K::SurfaceInterpolateBackward => {
            let p = params(kernel, bytes)?;
            twin::surface_interpolate_backward(&p, get(b), get(b), get(b), get(b), get(b), set(b), set(b));
        }
        K::SurfaceFootprint => {
            let p = params(kernel, bytes)?;
            twin::surface_footprint(&p, get(b), get(b), get(b), get(b), get(b), set(b));
        }
        K::SurfaceCompose => {
            let p = params(kernel, bytes)?;
            twin::surface_compose(&p, get(b), get(b), get(b), set(b));
        }
        K::SurfaceComposeBackward => {
            let p = params(kernel, bytes)?;
            twin::surface_compose_backward(&p, get(b), get(b), set(b));
        }
        K::SilhouettePairs => {
            let p = params(kernel, bytes)?;
            twin::silhouette_pairs(&p, get(b), get(b), get(b), get(b), get(b), set(b), set(b));
        }
        K::SilhouetteBlend => {
            let p = params(kernel, bytes)?;
            twin::silhouette_blend(&p, get(b), get(b), set(b));
        }
        K::SilhouetteBlendBackward => {
            let p = params(kernel, bytes)?;
            twin::silhouette_blend_backward(&p, get(b), get(b), set(b));
        }
        K::SilhouetteMoveBackward => {
            let p = params(kernel, bytes)?;
            twin::silhouette_move_backward(&p, get(b), get(b), get(b), get(b), get(b), get(b), set(b));
        }
        K::TextureMip => {
            let p = params(kernel, bytes)?;
            twin::texture_mip(&p, set(b));
        }
        K::TextureMipBackward => {
            let p = params(kernel, bytes)?;
            twin::texture_mip_backward(&p, set(b));
        }
        K::TextureSample => {
            let p = params(kernel, bytes)?;
            twin::texture_sample(&p, get(b), get(b), get(b), get(b), set(b));
        }
        K::TextureSampleBackward => {
            let p = params(kernel, bytes)?;
            twin::texture_sample_backward(&p, get(b), get(b), get(b), get(b), get(b), set(b), set(b));
        }
    }
    Ok(())
}
