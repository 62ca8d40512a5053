//! Bindings of the kernels over triangle meshes. Shapes in words, floats unless u32 is said:
//!
//! | buffer | shape |
//! |---|---|
//! | `projections` | `[views, 3, 4]`: rows that map (position, 1) to x·w, y·w (pixels) and w (distance along the axis) |
//! | `positions` | `[vertices, 3]` world; `positions_grad` alike |
//! | `clip`, `clip_grad` | `[views, vertices, 3]`: x·w, y·w, w |
//! | `indices`, `attribute_indices`, `uv_indices` | u32 `[triangles, 3]` |
//! | `opposite` | u32 `[triangles, 3]`: the vertex beyond the edge opposite each corner, or [`NO_VERTEX`](super::NO_VERTEX) |
//! | `counts`, `cursors` | u32 `[views, tiles_y, tiles_x]`; they arrive as zeros |
//! | `offsets`, `list` | u32 prefix sums of `counts`; u32 triangles tile by tile |
//! | `ids`, `front_ids` | u32 `[views, height, width]`: triangle + 1, or 0 |
//! | `raster`, `raster_grad`, `front_raster` | `[views, height, width, 4]`: b₀, b₁, b₂, w |
//! | `attributes`, `attributes_grad` | `[·, channels]` |
//! | `values`, `values_grad` | `[views, height, width, channels]` |
//! | `uvs`, `footprint` | `[·, 2]`; `[views, height, width, 4]`: ∂u/∂x, ∂u/∂y, ∂v/∂x, ∂v/∂y |
//! | `background` | `[views, channels]` |
//! | `layers`, `blended`, their grads | `[views, height, width, channels]`; composing adds a channel to its `channels` |
//! | `alphas` | `[views, height, width, 2]`: pair to the right, pair below; positive where the pixel itself takes |
//! | `edges` | u32, alike: 1 + 3·triangle + corner opposite the crossed edge, or 0; [`SECOND_OWNS`](super::SECOND_OWNS) |
//! | `texels`, `texels_grad` | `[level 0, level 1, …]`, each `[height, width, channels]` |
//! | `uv`, `uv_grad` | `[pixels, 2]` |
//! | `sampled`, `sampled_grad` | `[pixels, channels]` |

use super::{Binding, r, w};

pub(super) const TRANSFORM: &[Binding] = &[r("projections"), r("positions"), w("clip")];
pub(super) const TRANSFORM_BACKWARD: &[Binding] = &[r("projections"), r("clip_grad"), w("positions_grad")];
pub(super) const TILE_COUNT: &[Binding] = &[r("indices"), r("clip"), w("counts")];
pub(super) const TILE_WRITE: &[Binding] = &[r("indices"), r("clip"), r("offsets"), w("cursors"), w("list")];
pub(super) const RASTERIZE: &[Binding] = &[
    r("indices"),
    r("clip"),
    r("offsets"),
    r("list"),
    r("front_ids"),
    r("front_raster"),
    w("ids"),
    w("raster"),
];
pub(super) const RASTERIZE_BACKWARD: &[Binding] =
    &[r("indices"), r("clip"), r("ids"), r("raster_grad"), w("clip_grad")];
pub(super) const INTERPOLATE: &[Binding] =
    &[r("ids"), r("raster"), r("attributes"), r("attribute_indices"), w("values")];
pub(super) const INTERPOLATE_BACKWARD: &[Binding] = &[
    r("ids"),
    r("raster"),
    r("attributes"),
    r("attribute_indices"),
    r("values_grad"),
    w("attributes_grad"),
    w("raster_grad"),
];
pub(super) const FOOTPRINT: &[Binding] =
    &[r("ids"), r("indices"), r("clip"), r("uvs"), r("uv_indices"), w("footprint")];
pub(super) const COMPOSE: &[Binding] = &[r("ids"), r("values"), r("background"), w("layers")];
pub(super) const COMPOSE_BACKWARD: &[Binding] = &[r("ids"), r("layers_grad"), w("values_grad")];
pub(super) const PAIRS: &[Binding] =
    &[r("ids"), r("raster"), r("indices"), r("opposite"), r("clip"), w("alphas"), w("edges")];
pub(super) const BLEND: &[Binding] = &[r("alphas"), r("layers"), w("blended")];
pub(super) const BLEND_BACKWARD: &[Binding] = &[r("alphas"), r("blended_grad"), w("layers_grad")];
pub(super) const MOVE_BACKWARD: &[Binding] =
    &[r("alphas"), r("edges"), r("layers"), r("blended_grad"), r("indices"), r("clip"), w("clip_grad")];
pub(super) const MIP: &[Binding] = &[w("texels")];
pub(super) const MIP_BACKWARD: &[Binding] = &[w("texels_grad")];
pub(super) const SAMPLE: &[Binding] = &[r("ids"), r("uv"), r("footprint"), r("texels"), w("sampled")];
pub(super) const SAMPLE_BACKWARD: &[Binding] =
    &[r("ids"), r("uv"), r("footprint"), r("texels"), r("sampled_grad"), w("texels_grad"), w("uv_grad")];
