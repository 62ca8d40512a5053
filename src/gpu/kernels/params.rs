//! The kernels' parameter structs: uniforms, so their sizes are multiples of 16 bytes.

use bytemuck::{Pod, Zeroable};

#[cfg(doc)]
use super::Kernel;
use super::MAX_LEVELS;

/// Parameters of [`Kernel::MarchCount`] and [`Kernel::MarchWrite`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct MarchParams {
    /// Rays of this dispatch.
    pub rays: u32,
    /// Number of the first of them: pixel `ray % (width·height)` of view `ray / (width·height)`.
    pub first_ray: u32,
    /// Picture width.
    pub width: u32,
    /// Picture height.
    pub height: u32,
    /// Most bins a ray can have; at most `32·mask_words`.
    pub bins: u32,
    /// Words of mask a ray.
    pub mask_words: u32,
    /// Cells of the occupancy grid a side.
    pub resolution: u32,
    /// 1: samples are jittered inside their bins; 0: they sit in the middle.
    pub jitter: u32,
    /// Seed, low and high word.
    pub seed: [u32; 2],
    /// Step, keys the jitter.
    pub step: u32,
    /// Length of a bin.
    pub step_size: f32,
    /// The sampled box is [-half_extent, half_extent]³; the occupancy grid always spans [-1, 1]³.
    pub half_extent: f32,
    /// Rays start no nearer than this.
    pub near: f32,
    /// Unused, for the uniform's alignment.
    pub pad: [u32; 2],
}

/// Parameters of [`Kernel::Scan`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ScanParams {
    /// Number of counts.
    pub n: u32,
    /// Unused.
    pub pad: [u32; 3],
}

/// One level of the hash grid.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Level {
    /// Vertices a side (cells + 1).
    pub vertices: u32,
    /// First entry of the level.
    pub offset: u32,
    /// Entries of the level; a power of two where hashed.
    pub entries: u32,
    /// 1: XOR hash; 0: dense, x + vertices·(y + vertices·z).
    pub hashed: u32,
}

/// Parameters of the `Field…` and `Grid…` kernels.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct FieldParams {
    /// Points.
    pub points: u32,
    /// Levels of the grid.
    pub levels: u32,
    /// Levels that are switched on; the features of the others are zero.
    pub active_levels: u32,
    /// Hidden width of the MLP.
    pub hidden: u32,
    /// 0: softplus; 1: exponential, its argument clamped to ±15.
    pub activation: u32,
    /// 1: forward stores the features for the backward pass.
    pub keep_features: u32,
    /// Density bias is `blob_scale·(1 − |x| / blob_radius)`.
    pub blob_scale: f32,
    /// See `blob_scale`.
    pub blob_radius: f32,
    /// The levels.
    pub table: [Level; MAX_LEVELS],
}

/// Parameters of [`Kernel::Composite`] and [`Kernel::CompositeBackward`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct CompositeParams {
    /// Rays.
    pub rays: u32,
    /// Number of the first of them (for the background's row).
    pub first_ray: u32,
    /// Rays that share a row of `background`.
    pub rays_per_background: u32,
    /// Backward: 1 adds `weight_grad`.
    pub use_weight_grad: u32,
    /// Samples after the transmittance fell below this have no weight.
    pub early_stop: f32,
    /// Unused.
    pub pad: [u32; 3],
}

/// Parameters of the four normal kernels.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct NormalParams {
    /// Rays.
    pub rays: u32,
    /// Samples with a weight above this get a normal.
    pub threshold: f32,
    /// Distance of the tetrahedral queries.
    pub epsilon: f32,
    /// `n = −g/√(|g|² + floor²)`, g the finite-difference gradient of the density.
    pub floor: f32,
}

/// Parameters of [`Kernel::Adam`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct AdamParams {
    /// Parameters.
    pub n: u32,
    /// Learning rate divided by 1 − β₁ᵗ.
    pub rate: f32,
    /// β₁.
    pub beta1: f32,
    /// β₂.
    pub beta2: f32,
    /// 1/√(1 − β₂ᵗ).
    pub v_scale: f32,
    /// ε.
    pub eps: f32,
    /// Unused.
    pub pad: [u32; 2],
}

/// Parameters of the three occupancy kernels.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct OccupancyParams {
    /// Cells a side, a multiple of 4 so that the cells fill whole words.
    pub resolution: u32,
    /// Step, keys the random points.
    pub step: u32,
    /// Seed, low and high word.
    pub seed: [u32; 2],
    /// EMA decay.
    pub decay: f32,
    /// A cell is occupied above this density.
    pub threshold: f32,
    /// Unused.
    pub pad: [u32; 2],
}

/// Parameters of the two background kernels.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct BackgroundParams {
    /// Rays.
    pub rays: u32,
    /// Unused.
    pub pad: [u32; 3],
}

/// Parameters of the kernels over triangle meshes (`Surface…`, `Silhouette…`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SurfaceParams {
    /// Views.
    pub views: u32,
    /// Vertices.
    pub vertices: u32,
    /// Triangles.
    pub triangles: u32,
    /// Picture width.
    pub width: u32,
    /// Picture height.
    pub height: u32,
    /// Tiles in a row, `⌈width / 16⌉`.
    pub tiles_x: u32,
    /// Rows of tiles.
    pub tiles_y: u32,
    /// 1: triangles that turn clockwise as seen are left out.
    pub cull: u32,
    /// What is nearer than this along the viewing axis is not seen; above 0.
    pub near: f32,
    /// 1: what lies behind `front_raster` is drawn.
    pub peel: u32,
    /// Channels of an attribute, a layer or a blend.
    pub channels: u32,
    /// Unused.
    pub pad: u32,
}

/// Parameters of the texture kernels. Level l of the pyramid has `max(1, width >> l)` columns.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct TextureParams {
    /// Pixels that are sampled.
    pub pixels: u32,
    /// Channels of a texel.
    pub channels: u32,
    /// Texels in a row of level 0.
    pub width: u32,
    /// Rows of level 0; v = 0 is the upper edge of row 0.
    pub height: u32,
    /// Levels of the pyramid.
    pub levels: u32,
    /// 0: nearest texel of level 0; 1: bilinear in level 0; 2: trilinear.
    pub sampling: u32,
    /// 0: repeat; 1: clamp to the edge; 2: mirrored repeat.
    pub wrap: u32,
    /// The level that the mip kernels make, or take the gradient from; at least 1.
    pub level: u32,
}
