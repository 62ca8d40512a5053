//! The list of kernels: names, bindings, parameters. A WGSL shader and its Rust twin share both.
//!
//! In WGSL every kernel is one entry point; `@group(0) @binding(0)` is its parameter struct as a
//! uniform, and `@binding(1 + i)` is entry `i` of [`Kernel::bindings`] as a storage buffer of
//! 32-bit words. `items` of a dispatch is the number of logical invocations named in the kernel's
//! text; the shader guards against more.

mod params;
mod surface;

pub use params::{
    AdamParams, BackgroundParams, CompositeParams, FieldParams, Level, MarchParams, NormalParams,
    OccupancyParams, ScanParams, SurfaceParams, TextureParams,
};

/// How a kernel uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Written, or read and written.
    Write,
}

/// One storage buffer of a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// The name in the shader and the twin.
    pub name: &'static str,
    /// Whether it is written.
    pub access: Access,
}

const fn r(name: &'static str) -> Binding {
    Binding { name, access: Access::Read }
}

const fn w(name: &'static str) -> Binding {
    Binding { name, access: Access::Write }
}

/// Every kernel: of the volume renderer, then of the surface renderer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// One item a ray: ray from camera, box entry and exit, occupied bins as a bit mask, their number.
    MarchCount,
    /// One item in all: exclusive prefix sum of `counts`; `offsets[n]` is the total.
    Scan,
    /// One item a ray: positions and intervals of the samples in the mask, at the ray's offset.
    MarchWrite,
    /// One item a point: hash-grid encoding and MLP, `out` = density, r, g, b.
    FieldForward,
    /// One item a ray: weights, and rgb, opacity, depth, z-variance.
    Composite,
    /// One item a ray: gradient by the field's four outputs of every sample.
    CompositeBackward,
    /// One item a point: MLP backward; `features` turns into its own gradient in place.
    FieldBackward,
    /// One item a (level, point): scatters the feature gradient into the grid's gradient.
    GridBackward,
    /// One item a point: the feature gradient by the point's position.
    GridPositionsBackward,
    /// One item a ray: number of samples whose weight exceeds the normal threshold.
    NormalCount,
    /// One item a ray: index of each such sample, and its four tetrahedral query points.
    NormalPoints,
    /// One item a ray: weighted sum of normals, and of the orientation penalty.
    NormalComposite,
    /// One item a ray: gradient by the queried densities and by the weights.
    NormalBackward,
    /// One item a parameter: Adam; sets the gradient to zero afterwards.
    Adam,
    /// One item a cell: a random point inside each cell of the occupancy grid.
    OccupancyPoints,
    /// One item a cell: `ema = max(decay·ema, density)`.
    OccupancyUpdate,
    /// One item a word of 32 cells: bit = `ema > threshold`.
    OccupancyBits,
    /// One item a ray: background colour from the direction.
    BackgroundForward,
    /// One item a ray: gradient of the background's MLP.
    BackgroundBackward,
    /// One item a vertex and view: position to homogeneous screen position.
    SurfaceTransform,
    /// One item a vertex: adds the sum over the views of its screen positions' gradients.
    SurfaceTransformBackward,
    /// One item a triangle and view: adds one to the count of each tile it may touch.
    SurfaceTileCount,
    /// One item a triangle and view: enters it in each such tile's list (on a GPU in any order).
    SurfaceTileWrite,
    /// One item a pixel: nearest triangle, barycentric coordinates and depth.
    SurfaceRasterize,
    /// One item a pixel: adds the gradient by the screen positions of its triangle.
    SurfaceRasterizeBackward,
    /// One item a pixel: attributes of the vertices at the pixel.
    SurfaceInterpolate,
    /// One item a pixel: adds the gradients by attributes and by coordinates.
    SurfaceInterpolateBackward,
    /// One item a pixel: slopes of (u, v) by the pixel.
    SurfaceFootprint,
    /// One item a pixel: (values, 1) or (background, 0).
    SurfaceCompose,
    /// One item a pixel: the values' part of the gradient.
    SurfaceComposeBackward,
    /// One item a pixel: how it blends with its right and its lower neighbour, and over which edge.
    SilhouettePairs,
    /// One item a pixel: blends it with its four neighbours.
    SilhouetteBlend,
    /// One item a pixel: the blend's gradient by its input.
    SilhouetteBlendBackward,
    /// One item a pixel: adds the blend's gradient by the screen positions of the crossed edges' ends.
    SilhouetteMoveBackward,
    /// One item a texel of the coarser level: mean of the texels under it.
    TextureMip,
    /// One item a texel of the finer level: adds its share of the coarser texel's gradient.
    TextureMipBackward,
    /// One item a pixel: the texture at its coordinates.
    TextureSample,
    /// One item a pixel: adds the gradient by the texels, writes that by the coordinates.
    TextureSampleBackward,
}

impl Kernel {
    /// All kernels, in the order of declaration.
    pub const ALL: [Self; 38] = [
        Self::MarchCount,
        Self::Scan,
        Self::MarchWrite,
        Self::FieldForward,
        Self::Composite,
        Self::CompositeBackward,
        Self::FieldBackward,
        Self::GridBackward,
        Self::GridPositionsBackward,
        Self::NormalCount,
        Self::NormalPoints,
        Self::NormalComposite,
        Self::NormalBackward,
        Self::Adam,
        Self::OccupancyPoints,
        Self::OccupancyUpdate,
        Self::OccupancyBits,
        Self::BackgroundForward,
        Self::BackgroundBackward,
        Self::SurfaceTransform,
        Self::SurfaceTransformBackward,
        Self::SurfaceTileCount,
        Self::SurfaceTileWrite,
        Self::SurfaceRasterize,
        Self::SurfaceRasterizeBackward,
        Self::SurfaceInterpolate,
        Self::SurfaceInterpolateBackward,
        Self::SurfaceFootprint,
        Self::SurfaceCompose,
        Self::SurfaceComposeBackward,
        Self::SilhouettePairs,
        Self::SilhouetteBlend,
        Self::SilhouetteBlendBackward,
        Self::SilhouetteMoveBackward,
        Self::TextureMip,
        Self::TextureMipBackward,
        Self::TextureSample,
        Self::TextureSampleBackward,
    ];

    /// The entry point, the shader file and the twin's function are called this.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MarchCount => "march_count",
            Self::Scan => "scan",
            Self::MarchWrite => "march_write",
            Self::FieldForward => "field_forward",
            Self::Composite => "composite",
            Self::CompositeBackward => "composite_backward",
            Self::FieldBackward => "field_backward",
            Self::GridBackward => "grid_backward",
            Self::GridPositionsBackward => "grid_positions_backward",
            Self::NormalCount => "normal_count",
            Self::NormalPoints => "normal_points",
            Self::NormalComposite => "normal_composite",
            Self::NormalBackward => "normal_backward",
            Self::Adam => "adam",
            Self::OccupancyPoints => "occupancy_points",
            Self::OccupancyUpdate => "occupancy_update",
            Self::OccupancyBits => "occupancy_bits",
            Self::BackgroundForward => "background_forward",
            Self::BackgroundBackward => "background_backward",
            Self::SurfaceTransform => "surface_transform",
            Self::SurfaceTransformBackward => "surface_transform_backward",
            Self::SurfaceTileCount => "surface_tile_count",
            Self::SurfaceTileWrite => "surface_tile_write",
            Self::SurfaceRasterize => "surface_rasterize",
            Self::SurfaceRasterizeBackward => "surface_rasterize_backward",
            Self::SurfaceInterpolate => "surface_interpolate",
            Self::SurfaceInterpolateBackward => "surface_interpolate_backward",
            Self::SurfaceFootprint => "surface_footprint",
            Self::SurfaceCompose => "surface_compose",
            Self::SurfaceComposeBackward => "surface_compose_backward",
            Self::SilhouettePairs => "silhouette_pairs",
            Self::SilhouetteBlend => "silhouette_blend",
            Self::SilhouetteBlendBackward => "silhouette_blend_backward",
            Self::SilhouetteMoveBackward => "silhouette_move_backward",
            Self::TextureMip => "texture_mip",
            Self::TextureMipBackward => "texture_mip_backward",
            Self::TextureSample => "texture_sample",
            Self::TextureSampleBackward => "texture_sample_backward",
        }
    }

    /// The storage buffers in binding order. Shapes in words (u32 where the text says so); those of the
    /// surface kernels stand in `kernels/surface.rs`:
    ///
    /// | buffer | shape |
    /// |---|---|
    /// | `cameras` | `[views, 20]`: c2w by columns (16), tan(fov_y/2), 3 unused |
    /// | `occupancy` | u32 `[res³/32]`, cell `x + res·(y + res·z)` is bit `cell % 32` of word `cell / 32` |
    /// | `rays` | `[rays, 8]`: origin, t_near, unit direction, t_far |
    /// | `mask` | u32 `[rays, mask_words]`, bit b = bin b is sampled |
    /// | `counts`, `offsets` | u32 `[rays]`, u32 `[rays + 1]` |
    /// | `positions`, `positions_grad` | `[points, 3]` world |
    /// | `intervals` | `[samples, 2]`: t of the sample, length δ of its bin |
    /// | `grid`, `grid_grad` | `[entries, 2]`, level after level |
    /// | `mlp`, `mlp_grad` | W1 `[hidden, 2·levels]`, then W2 `[4, hidden]`, row-major |
    /// | `field` | `[points, 4]`: density, r, g, b after their activations; `field_grad` its gradient |
    /// | `features` | `[levels, points, 2]` |
    /// | `background` | `[·, 3]`, row `ray / rays_per_background` |
    /// | `weights`, `weight_grad` | `[samples]` |
    /// | `pixels`, `pixel_grad` | `[rays, 6]`: r, g, b, opacity, depth, z-variance |
    /// | `normal_offsets`, `selected` | u32 `[rays + 1]`, u32 `[picked]`: sample index |
    /// | `queries`, `query_field` | `[4·picked, 3]`, `[4·picked, 4]` |
    /// | `normals`, `normals_grad` | `[rays, 4]`: Σwn, Σw·max(0, n·d)² |
    /// | `params`, `grad`, `m`, `v` | `[n]` |
    /// | `ema` | `[res³]` |
    /// | `background_mlp`, its grad | W1 `[16, 9]`, W2 `[3, 16]` |
    pub const fn bindings(self) -> &'static [Binding] {
        match self {
            Self::MarchCount => const { &[r("cameras"), r("occupancy"), w("rays"), w("mask"), w("counts")] },
            Self::Scan => const { &[r("counts"), w("offsets")] },
            Self::MarchWrite => {
                const { &[r("rays"), r("mask"), r("offsets"), w("positions"), w("intervals")] }
            }
            Self::FieldForward => const { &[r("positions"), r("grid"), r("mlp"), w("field"), w("features")] },
            Self::Composite => {
                const { &[r("offsets"), r("intervals"), r("field"), r("background"), w("weights"), w("pixels")] }
            }
            Self::CompositeBackward => {
                const {
                    &[
                        r("offsets"),
                        r("intervals"),
                        r("field"),
                        r("background"),
                        r("pixels"),
                        r("pixel_grad"),
                        r("weight_grad"),
                        w("field_grad"),
                    ]
                }
            }
            Self::FieldBackward => {
                const { &[r("mlp"), r("field"), r("field_grad"), w("features"), w("mlp_grad")] }
            }
            Self::GridBackward => const { &[r("positions"), r("features"), w("grid_grad")] },
            Self::GridPositionsBackward => {
                const { &[r("positions"), r("grid"), r("features"), w("positions_grad")] }
            }
            Self::NormalCount => const { &[r("offsets"), r("weights"), w("counts")] },
            Self::NormalPoints => {
                const {
                    &[
                        r("offsets"),
                        r("weights"),
                        r("positions"),
                        r("normal_offsets"),
                        w("selected"),
                        w("queries"),
                    ]
                }
            }
            Self::NormalComposite => {
                const {
                    &[
                        r("rays"),
                        r("normal_offsets"),
                        r("selected"),
                        r("weights"),
                        r("query_field"),
                        w("normals"),
                    ]
                }
            }
            Self::NormalBackward => {
                const {
                    &[
                        r("rays"),
                        r("normal_offsets"),
                        r("selected"),
                        r("weights"),
                        r("query_field"),
                        r("normals_grad"),
                        w("query_field_grad"),
                        w("weight_grad"),
                    ]
                }
            }
            Self::Adam => const { &[w("params"), w("grad"), w("m"), w("v")] },
            Self::OccupancyPoints => const { &[w("positions")] },
            Self::OccupancyUpdate => const { &[r("field"), w("ema")] },
            Self::OccupancyBits => const { &[r("ema"), w("occupancy")] },
            Self::BackgroundForward => const { &[r("rays"), r("background_mlp"), w("background")] },
            Self::BackgroundBackward => {
                const {
                    &[
                        r("rays"),
                        r("background_mlp"),
                        r("background"),
                        r("pixels"),
                        r("pixel_grad"),
                        w("background_mlp_grad"),
                    ]
                }
            }
            Self::SurfaceTransform => surface::TRANSFORM,
            Self::SurfaceTransformBackward => surface::TRANSFORM_BACKWARD,
            Self::SurfaceTileCount => surface::TILE_COUNT,
            Self::SurfaceTileWrite => surface::TILE_WRITE,
            Self::SurfaceRasterize => surface::RASTERIZE,
            Self::SurfaceRasterizeBackward => surface::RASTERIZE_BACKWARD,
            Self::SurfaceInterpolate => surface::INTERPOLATE,
            Self::SurfaceInterpolateBackward => surface::INTERPOLATE_BACKWARD,
            Self::SurfaceFootprint => surface::FOOTPRINT,
            Self::SurfaceCompose => surface::COMPOSE,
            Self::SurfaceComposeBackward => surface::COMPOSE_BACKWARD,
            Self::SilhouettePairs => surface::PAIRS,
            Self::SilhouetteBlend => surface::BLEND,
            Self::SilhouetteBlendBackward => surface::BLEND_BACKWARD,
            Self::SilhouetteMoveBackward => surface::MOVE_BACKWARD,
            Self::TextureMip => surface::MIP,
            Self::TextureMipBackward => surface::MIP_BACKWARD,
            Self::TextureSample => surface::SAMPLE,
            Self::TextureSampleBackward => surface::SAMPLE_BACKWARD,
        }
    }
}

/// Upper bound of hash-grid levels: the level table stands in a uniform.
pub const MAX_LEVELS: usize = 16;
/// Features of one grid entry.
pub const FEATURES: usize = 2;
/// Outputs of the field's MLP.
pub const OUTPUTS: usize = 4;
/// Words of one pixel in `pixels`.
pub const PIXEL: usize = 6;
/// Words of one camera.
pub const CAMERA: usize = 20;
/// Hidden width of the background's MLP.
pub const BACKGROUND_HIDDEN: usize = 16;
/// Real spherical harmonics of degree 0, 1, 2: the background's input.
pub const BACKGROUND_INPUTS: usize = 9;
/// Parameters of the background's MLP.
pub const BACKGROUND_PARAMS: usize = BACKGROUND_HIDDEN * (BACKGROUND_INPUTS + 3);

/// Words of one pixel in `raster`.
pub const RASTER: usize = 4;
/// Pixels of a tile's side.
pub const SURFACE_TILE: u32 = 16;
/// In `opposite`: nothing is joined at the edge.
pub const NO_VERTEX: u32 = u32::MAX;
/// In `edges`: the edge belongs to the triangle of the pair's second pixel.
pub const SECOND_OWNS: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniforms_are_whole_vec4s() {
        for size in [
            size_of::<MarchParams>(),
            size_of::<ScanParams>(),
            size_of::<FieldParams>(),
            size_of::<CompositeParams>(),
            size_of::<NormalParams>(),
            size_of::<AdamParams>(),
            size_of::<OccupancyParams>(),
            size_of::<BackgroundParams>(),
            size_of::<SurfaceParams>(),
            size_of::<TextureParams>(),
        ] {
            assert_eq!(size % 16, 0);
        }
    }

    #[test]
    fn no_kernel_needs_more_than_the_guaranteed_eight_storage_buffers() {
        for (i, kernel) in Kernel::ALL.into_iter().enumerate() {
            assert!(kernel.bindings().len() <= 8, "{}", kernel.name());
            assert_eq!(kernel as usize, i);
        }
    }
}
