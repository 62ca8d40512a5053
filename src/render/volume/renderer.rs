//! The renderer's object and its forward pass.

use glam::Vec3;

use super::buffers::{Group, Pool, read_f32, uniform, xavier};
use super::config::{Background, Mode, RenderOptions, RenderOutput, VolumeConfig};
use super::points::PointPass;
use crate::field::FieldConfig;
use crate::gpu::backend::{Buffer, Device};
use crate::gpu::kernels::{
    BACKGROUND_HIDDEN, BACKGROUND_INPUTS, BACKGROUND_PARAMS, BackgroundParams, CAMERA, CompositeParams,
    FEATURES, Kernel, MarchParams, NormalParams, OUTPUTS, PIXEL, ScanParams,
};
use crate::render::camera::Camera;
use crate::rng::{Rng, Stream};
use crate::{Error, Result};

/// Rays of one pass of an `Eval` render; a `Train` render is one pass.
const EVAL_RAYS: usize = 1 << 15;

/// The field, its optimiser state and the renderer around it, on one device.
///
/// A step of training is [`render`](Self::render), [`backward`](Self::backward),
/// [`step`](Self::step), [`update_occupancy`](Self::update_occupancy).
pub struct VolumeRenderer {
    pub(super) device: Device,
    pub(super) field: FieldConfig,
    pub(super) volume: VolumeConfig,
    pub(super) seed: u64,
    pub(super) grid: Group,
    pub(super) mlp: Group,
    pub(super) background: Group,
    pub(super) occupancy: Buffer,
    pub(super) ema: Buffer,
    pub(super) adam_steps: u32,
    pub(super) active_levels: u32,
    pub(super) pool: Pool,
    pub(super) pass: Option<Pass>,
    pub(super) point_pass: Option<PointPass>,
}

/// What the backward pass needs of a forward pass.
pub(super) struct Pass {
    pub(super) rays: usize,
    pub(super) samples: usize,
    pub(super) composite: CompositeParams,
    pub(super) active_levels: u32,
    pub(super) mlp_background: bool,
    pub(super) ray_buffer: Buffer,
    pub(super) offsets: Buffer,
    pub(super) positions: Buffer,
    pub(super) intervals: Buffer,
    pub(super) field: Buffer,
    pub(super) features: Buffer,
    pub(super) background: Buffer,
    pub(super) weights: Buffer,
    pub(super) pixels: Buffer,
    pub(super) normals: Option<NormalPass>,
}

/// What the backward pass needs of the normals' queries.
pub(super) struct NormalPass {
    pub(super) params: NormalParams,
    pub(super) picked: usize,
    pub(super) offsets: Buffer,
    pub(super) selected: Buffer,
    pub(super) queries: Buffer,
    pub(super) field: Buffer,
    pub(super) features: Buffer,
    pub(super) normals: Buffer,
}

/// Memory that a renderer will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Bytes of parameters, gradients, Adam moments and occupancy grid.
    pub parameters: u64,
    /// Bytes of work buffers if every bin of every ray is sampled; seldom a third of it is used.
    pub work_at_most: u64,
}

impl VolumeRenderer {
    /// A new field with random parameters, and its occupancy grid.
    ///
    /// # Errors
    /// If a config is out of its ranges, or the device has too little memory.
    pub fn new(device: &Device, field: &FieldConfig, volume: &VolumeConfig, seed: u64) -> Result<Self> {
        field.validate()?;
        volume.validate()?;
        let rng = |group| Rng::new(seed, Stream::Init, group);
        let (inputs, hidden) = (field.levels as usize * FEATURES, field.hidden as usize);
        let grid = uniform(rng(0), field.grid_params(), |_| 1e-4);
        let mlp = uniform(rng(1), field.mlp_params(), xavier(inputs, hidden, OUTPUTS));
        let behind = uniform(rng(2), BACKGROUND_PARAMS, xavier(BACKGROUND_INPUTS, BACKGROUND_HIDDEN, 3));
        let cells = (volume.occupancy_resolution as usize).pow(3);
        let mut renderer = Self {
            grid: Group::new(&**device, "field.grid", &grid)?,
            mlp: Group::new(&**device, "field.mlp", &mlp)?,
            background: Group::new(&**device, "background.mlp", &behind)?,
            occupancy: device.create("occupancy", cells / 32)?,
            ema: device.create("occupancy.ema", cells)?,
            device: device.clone(),
            field: field.clone(),
            volume: volume.clone(),
            seed,
            adam_steps: 0,
            active_levels: field.active_levels(0),
            pool: Pool::default(),
            pass: None,
            point_pass: None,
        };
        renderer.refresh_occupancy(0)?;
        Ok(renderer)
    }

    /// Memory for `rays` rays in one `Train` render, before anything is allocated.
    pub fn memory(field: &FieldConfig, volume: &VolumeConfig, rays: usize) -> MemoryEstimate {
        let params = field.grid_params() + field.mlp_params() + BACKGROUND_PARAMS;
        let cells = (volume.occupancy_resolution as usize).pow(3);
        let sample = 3 + 2 + 2 * OUTPUTS + 1 + field.levels as usize * FEATURES;
        let ray = 8 + volume.bins.div_ceil(32) as usize + 2 + 3 + 2 * PIXEL;
        let work = rays * (ray + volume.bins as usize * sample) * 5 / 4;
        MemoryEstimate {
            parameters: 4 * (4 * params + cells + cells / 32) as u64,
            work_at_most: 4 * work as u64,
        }
    }

    /// The field's config.
    pub fn field_config(&self) -> &FieldConfig {
        &self.field
    }

    /// The renderer's config.
    pub fn volume_config(&self) -> &VolumeConfig {
        &self.volume
    }

    /// Renders one picture a camera; all must have the same size.
    ///
    /// # Errors
    /// If there is no camera, sizes differ, the number of background colours is not that of the
    /// cameras, or the device fails.
    pub fn render(
        &mut self,
        cameras: &[Camera],
        background: Background<'_>,
        options: RenderOptions,
    ) -> Result<RenderOutput> {
        let (width, height) = picture_size(cameras)?;
        let colors = background_rows(background, cameras.len())?;
        self.pass = None;
        self.active_levels = self.field.active_levels(options.step);
        let view = View { width, height, cameras: self.upload_cameras(cameras)?, colors, options };
        let rays = cameras.len() * (width * height) as usize;
        let mut output = RenderOutput {
            views: cameras.len(),
            width: width as usize,
            height: height as usize,
            ..Default::default()
        };
        if options.normals {
            output.normal = Some(Vec::with_capacity(3 * rays));
            output.orientation = Some(Vec::with_capacity(rays));
        }
        let pass_rays = if options.mode == Mode::Train { rays } else { EVAL_RAYS };
        for first in (0..rays).step_by(pass_rays) {
            let pass = self.forward(&view, first, pass_rays.min(rays - first))?;
            self.append(&mut output, &pass)?;
            if options.mode == Mode::Train {
                self.pass = Some(pass);
            }
        }
        Ok(output)
    }

    fn upload_cameras(&mut self, cameras: &[Camera]) -> Result<Buffer> {
        let mut data = vec![0.0f32; cameras.len() * CAMERA];
        for (out, camera) in data.chunks_exact_mut(CAMERA).zip(cameras) {
            out[..16].copy_from_slice(&camera.c2w.to_cols_array());
            out[16] = (0.5 * camera.fov_y).tan();
        }
        let buffer = self.pool.get(&*self.device, "cameras", data.len())?;
        self.device.write(&buffer, bytemuck::cast_slice(&data))?;
        Ok(buffer)
    }

    fn forward(&mut self, view: &View, first: usize, rays: usize) -> Result<Pass> {
        let train = view.options.mode == Mode::Train;
        let march = self.march(view, first, rays)?;
        let samples = march.samples;
        let (device, pool) = (&*self.device, &mut self.pool);
        let field = pool.get(device, "field", samples * OUTPUTS)?;
        let kept = if train { self.field.levels as usize * FEATURES } else { 0 };
        let features = pool.get(device, "features", samples * kept)?;
        let params = self.field.params(samples, self.active_levels, train);
        let net = [&march.positions, &self.grid.params, &self.mlp.params, &field, &features];
        device.dispatch(Kernel::FieldForward, bytemuck::bytes_of(&params), samples, &net)?;

        let mut composite = CompositeParams {
            rays: rays as u32,
            first_ray: first as u32,
            rays_per_background: view.width * view.height,
            use_weight_grad: 0,
            early_stop: self.volume.early_stop,
            pad: [0; 3],
        };
        let background = match &view.colors {
            Some(colors) => {
                let buffer = pool.get(device, "background", colors.len())?;
                device.write(&buffer, bytemuck::cast_slice(colors))?;
                buffer
            }
            None => {
                (composite.first_ray, composite.rays_per_background) = (0, 1);
                let buffer = pool.get(device, "background", 3 * rays)?;
                let params = BackgroundParams { rays: rays as u32, pad: [0; 3] };
                let bound = [&march.rays, &self.background.params, &buffer];
                device.dispatch(Kernel::BackgroundForward, bytemuck::bytes_of(&params), rays, &bound)?;
                buffer
            }
        };
        let weights = pool.get(device, "weights", samples)?;
        let pixels = pool.get(device, "pixels", rays * PIXEL)?;
        let bound = [&march.offsets, &march.intervals, &field, &background, &weights, &pixels];
        device.dispatch(Kernel::Composite, bytemuck::bytes_of(&composite), rays, &bound)?;
        let mut pass = Pass {
            rays,
            samples,
            composite,
            active_levels: self.active_levels,
            mlp_background: view.colors.is_none(),
            ray_buffer: march.rays,
            offsets: march.offsets,
            positions: march.positions,
            intervals: march.intervals,
            field,
            features,
            background,
            weights,
            pixels,
            normals: None,
        };
        if view.options.normals {
            pass.normals = Some(self.normals(&pass, train)?);
        }
        Ok(pass)
    }

    fn march(&mut self, view: &View, first: usize, rays: usize) -> Result<March> {
        let (device, pool) = (&*self.device, &mut self.pool);
        let mask_words = self.volume.bins.div_ceil(32);
        let params = MarchParams {
            rays: rays as u32,
            first_ray: first as u32,
            width: view.width,
            height: view.height,
            bins: self.volume.bins,
            mask_words,
            resolution: self.volume.occupancy_resolution,
            jitter: u32::from(view.options.mode == Mode::Train),
            seed: [self.seed as u32, (self.seed >> 32) as u32],
            step: view.options.step,
            step_size: self.volume.step_size(),
            half_extent: self.volume.half_extent,
            near: self.volume.near,
            pad: [0; 2],
        };
        let params = bytemuck::bytes_of(&params);
        let ray_buffer = pool.get(device, "rays", rays * 8)?;
        let mask = pool.get(device, "mask", rays * mask_words as usize)?;
        let counts = pool.get(device, "counts", rays)?;
        let bound = [&view.cameras, &self.occupancy, &ray_buffer, &mask, &counts];
        device.dispatch(Kernel::MarchCount, params, rays, &bound)?;
        let offsets = pool.get(device, "offsets", rays + 1)?;
        let samples = scan(device, rays, &counts, &offsets)?;
        let positions = pool.get(device, "positions", samples * 3)?;
        let intervals = pool.get(device, "intervals", samples * 2)?;
        let bound = [&ray_buffer, &mask, &offsets, &positions, &intervals];
        device.dispatch(Kernel::MarchWrite, params, rays, &bound)?;
        Ok(March { samples, rays: ray_buffer, offsets, positions, intervals })
    }

    fn normals(&mut self, pass: &Pass, train: bool) -> Result<NormalPass> {
        let (device, pool, rays) = (&*self.device, &mut self.pool, pass.rays);
        let params = NormalParams {
            rays: rays as u32,
            threshold: self.volume.normal_threshold,
            epsilon: self.volume.normal_epsilon,
            // Far below the gradient of any visible surface, far above its square's underflow.
            floor: 1e-3,
        };
        let bytes = bytemuck::bytes_of(&params);
        let counts = pool.get(device, "counts", rays)?;
        device.dispatch(Kernel::NormalCount, bytes, rays, &[&pass.offsets, &pass.weights, &counts])?;
        let offsets = pool.get(device, "normal_offsets", rays + 1)?;
        let picked = scan(device, rays, &counts, &offsets)?;
        let selected = pool.get(device, "selected", picked)?;
        let queries = pool.get(device, "queries", 12 * picked)?;
        let bound = [&pass.offsets, &pass.weights, &pass.positions, &offsets, &selected, &queries];
        device.dispatch(Kernel::NormalPoints, bytes, rays, &bound)?;

        let points = 4 * picked;
        let kept = if train { self.field.levels as usize * FEATURES } else { 0 };
        let field = pool.get(device, "query_field", points * OUTPUTS)?;
        let features = pool.get(device, "query_features", points * kept)?;
        let net = self.field.params(points, self.active_levels, train);
        let bound = [&queries, &self.grid.params, &self.mlp.params, &field, &features];
        device.dispatch(Kernel::FieldForward, bytemuck::bytes_of(&net), points, &bound)?;
        let normals = pool.get(device, "normals", 4 * rays)?;
        let bound = [&pass.ray_buffer, &offsets, &selected, &pass.weights, &field, &normals];
        device.dispatch(Kernel::NormalComposite, bytes, rays, &bound)?;
        Ok(NormalPass { params, picked, offsets, selected, queries, field, features, normals })
    }

    fn append(&self, output: &mut RenderOutput, pass: &Pass) -> Result<()> {
        let pixels = read_f32(&*self.device, &pass.pixels, pass.rays * PIXEL)?;
        for &[r, g, b, opacity, depth, variance] in pixels.as_chunks::<PIXEL>().0 {
            output.rgb.extend([r, g, b]);
            output.opacity.push(opacity);
            output.depth.push(depth);
            output.z_variance.push(variance);
        }
        if let (Some(normals), Some(out), Some(penalty)) =
            (&pass.normals, &mut output.normal, &mut output.orientation)
        {
            for &[x, y, z, p] in read_f32(&*self.device, &normals.normals, 4 * pass.rays)?.as_chunks::<4>().0
            {
                out.extend([x, y, z]);
                penalty.push(p);
            }
        }
        output.samples += pass.samples;
        Ok(())
    }
}

/// What the passes of one render share.
struct View {
    width: u32,
    height: u32,
    cameras: Buffer,
    /// Solid colours; `None` for the MLP.
    colors: Option<Vec<f32>>,
    options: RenderOptions,
}

struct March {
    samples: usize,
    rays: Buffer,
    offsets: Buffer,
    positions: Buffer,
    intervals: Buffer,
}

/// Prefix sum on the device; returns the total.
fn scan(
    device: &dyn crate::gpu::backend::Backend,
    n: usize,
    counts: &Buffer,
    offsets: &Buffer,
) -> Result<usize> {
    let params = ScanParams { n: n as u32, pad: [0; 3] };
    device.dispatch(Kernel::Scan, bytemuck::bytes_of(&params), 1, &[counts, offsets])?;
    let mut total = [0];
    device.read(offsets, n, &mut total)?;
    Ok(total[0] as usize)
}

fn picture_size(cameras: &[Camera]) -> Result<(u32, u32)> {
    let Some(first) = cameras.first() else {
        return Err(Error::invalid("cameras", "at least one is needed"));
    };
    let size = (first.width, first.height);
    if size.0 == 0 || size.1 == 0 || size.0.max(size.1) > 16_384 {
        return Err(Error::invalid("cameras", "pictures must have 1 to 16384 pixels a side"));
    }
    if cameras.iter().any(|c| (c.width, c.height) != size) {
        return Err(Error::invalid("cameras", "all pictures of a render must have the same size"));
    }
    if cameras.len() as u64 * u64::from(size.0) * u64::from(size.1) > 1 << 30 {
        return Err(Error::invalid("cameras", "more than 2^30 pixels in one render"));
    }
    Ok(size)
}

fn background_rows(background: Background<'_>, views: usize) -> Result<Option<Vec<f32>>> {
    match background {
        Background::Mlp => Ok(None),
        Background::Solid(colors) if colors.len() == views => {
            Ok(Some(colors.iter().flat_map(Vec3::to_array).collect()))
        }
        Background::Solid(colors) => {
            Err(Error::invalid("backgrounds", format!("{} colours for {views} views", colors.len())))
        }
    }
}
