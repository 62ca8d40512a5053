//! Agreement of all kernels, and the proof that a disagreement is noticed.

use super::chain::{self, VARIANTS};
use super::{Tolerance, gpu, judge, vulkan};
use crate::gpu::kernels::Kernel;
use crate::gpu::pipeline::sources;
use crate::gpu::shader::Sources;

/// What rounding may do to a buffer that `kernel` writes.
///
/// Both sides compute in f32 with the same formulas; what differs is the order of sums, fused
/// multiply-adds, and the driver's division (2.5 ulp), square root and exponential (3 + 2|x| ulp).
pub(super) fn tolerance(kernel: Kernel, buffer: &str) -> Tolerance {
    use Tolerance::{Exact, Flips, MostlyScaled, Scaled};
    match (kernel, buffer) {
        // A sample within rounding of a cell's border falls on either side.
        (Kernel::MarchCount, "mask" | "counts") => Flips,
        // A pixel's centre within rounding of an edge, or a crossing within rounding of a centre.
        (Kernel::SurfaceRasterize | Kernel::SilhouettePairs, "ids" | "edges") => Flips,
        (Kernel::SurfaceRasterize | Kernel::SilhouettePairs, _) => MostlyScaled(2e-5),
        (_, "counts" | "offsets" | "selected" | "occupancy" | "cursors" | "list") => Exact,
        // Distances are divided by a component of the direction: 2^-24 over 2e-3, and some ulp more.
        (Kernel::MarchCount, _) => Scaled(1e-4),
        (Kernel::MarchWrite | Kernel::OccupancyPoints | Kernel::NormalPoints, _) => Scaled(1e-6),
        (Kernel::Adam | Kernel::OccupancyUpdate, _) => Scaled(1e-6),
        // An exponential of up to 15 may be off by 33 ulp, 2e-6; the sums before it are shorter.
        (Kernel::FieldForward | Kernel::BackgroundForward, _) => Scaled(5e-6),
        // Transmittance is a product of up to 60 rounded factors.
        (Kernel::Composite | Kernel::CompositeBackward, _) => Scaled(5e-6),
        (Kernel::NormalComposite | Kernel::NormalBackward, _) => Scaled(5e-6),
        // A ReLU whose argument is zero up to rounding is on or off.
        (Kernel::FieldBackward, "features") => MostlyScaled(5e-6),
        (Kernel::SurfaceTransform | Kernel::SurfaceTransformBackward, _) => Scaled(1e-6),
        (Kernel::SurfaceInterpolate | Kernel::SilhouetteBlend | Kernel::SilhouetteBlendBackward, _) => {
            Scaled(1e-6)
        }
        (Kernel::TextureMip | Kernel::TextureMipBackward, _) => Scaled(1e-6),
        // Differences of edge functions, over their sum: small triangles lose digits.
        (Kernel::SurfaceFootprint, _) => Scaled(2e-5),
        // The share of a level follows a logarithm of a difference.
        (Kernel::TextureSample, _) => Scaled(5e-6),
        (Kernel::TextureSampleBackward, _) => Scaled(1e-5),
        (Kernel::SurfaceInterpolateBackward, "raster_grad") => Scaled(1e-6),
        (Kernel::SurfaceInterpolateBackward, _) => Scaled(1e-5),
        (_, "clip_grad") => Scaled(2e-5),
        // Sums of up to 20,000 terms in any order: √20000·2^-24 of the terms' sum of magnitudes.
        // Differences of neighbouring entries, over ever finer cells.
        (Kernel::GridPositionsBackward, _) => Scaled(1e-5),
        (_, "mlp_grad" | "grid_grad" | "background_mlp_grad") => Scaled(1e-5),
        _ => Exact,
    }
}

fn all_kernels_agree(native_atomics: bool) {
    let Some(gpu) = vulkan(native_atomics, sources()) else { return };
    let mut tested = Vec::new();
    for (i, variant) in VARIANTS.into_iter().enumerate() {
        let rows = chain::run(&gpu, variant, None);
        judge(&format!("{}, native atomics {native_atomics}, variant {i}", gpu.name()), &rows);
        tested.extend(rows.iter().map(|r| r.kernel));
    }
    for kernel in Kernel::ALL {
        assert!(tested.contains(&kernel), "{} was not tested", kernel.name());
    }
}

#[test]
fn all_kernels_agree_with_native_atomics() {
    all_kernels_agree(true);
}

#[test]
fn all_kernels_agree_with_compare_exchange_atomics() {
    all_kernels_agree(false);
}

/// One small mistake a kernel: file, what is there, what is put in its place.
const MISTAKES: [(Kernel, &str, &str, &str); 47] = [
    (Kernel::MarchCount, "march_count.wgsl", "+ 0.5;", "+ 0.4;"),
    (Kernel::MarchCount, "march_count.wgsl", "(bin & 31u)", "((bin + 1u) & 31u)"),
    (Kernel::Scan, "scan.wgsl", "sums[thread] - own", "sums[thread]"),
    (Kernel::MarchWrite, "shared/rng.wgsl", "a * b,", "a * b + 1u,"),
    (Kernel::FieldForward, "shared/field.wgsl", "805459861u", "805459863u"),
    (Kernel::FieldForward, "field_forward.wgsl", "l < p.active_levels", "l <= p.active_levels"),
    (
        Kernel::Composite,
        "composite.wgsl",
        "variance += weights[i] * off * off",
        "variance += weights[i] * off",
    ),
    (
        Kernel::CompositeBackward,
        "composite_backward.wgsl",
        "behind -= transmittance",
        "behind -= 0.999 * transmittance",
    ),
    (Kernel::FieldBackward, "field_backward.wgsl", "sum > 0.0);", "sum > 0.01);"),
    (Kernel::FieldBackward, "field_backward.wgsl", "out * p.hidden + first", "out * p.hidden + first + 1u"),
    (
        Kernel::GridBackward,
        "grid_backward.wgsl",
        "entry + 1u, weight * grad.y",
        "entry + 1u, weight * grad.x",
    ),
    (
        Kernel::GridBackward,
        "shared/atomic_add.wgsl",
        "atomicAdd(&$[i], value)",
        "atomicAdd(&$[i], 0.99 * value)",
    ),
    (Kernel::GridBackward, "shared/atomic_add.wgsl", "bitcast<f32>(old) + value", "value"),
    (Kernel::GridPositionsBackward, "grid_positions_backward.wgsl", "w.yzx * w.zxy", "w.yzx * w.xyz"),
    (Kernel::NormalCount, "normal_count.wgsl", "weights[i] > p.threshold", "weights[i] > 2.0 * p.threshold"),
    (Kernel::NormalPoints, "shared/normal.wgsl", "vec3f(1.0))", "vec3f(1.0, 1.0, 0.99))"),
    (Kernel::NormalComposite, "shared/normal_rays.wgsl", "p.floor * p.floor", "p.floor"),
    (Kernel::NormalBackward, "normal_backward.wgsl", "2.0 * away", "away"),
    (Kernel::Adam, "adam.wgsl", "p.beta2) * g * g", "p.beta2) * g"),
    (Kernel::OccupancyPoints, "shared/rng.wgsl", "round < 10u", "round < 9u"),
    (Kernel::OccupancyUpdate, "occupancy_update.wgsl", "p.decay * ema[cell]", "ema[cell]"),
    (Kernel::OccupancyBits, "occupancy_bits.wgsl", "<< i", "<< (31u - i)"),
    (Kernel::BackgroundForward, "shared/background.wgsl", "3.0 * z * z - 1.0", "3.0 * z * z"),
    (Kernel::BackgroundBackward, "background_backward.wgsl", "(1.0 - pixels[at + 3u]) *", ""),
    (Kernel::SurfaceTransform, "surface_transform.wgsl", "+ row.w;", "+ 1.001 * row.w;"),
    (Kernel::SurfaceTransformBackward, "surface_transform_backward.wgsl", "var view = 0u", "var view = 1u"),
    (Kernel::SurfaceTileCount, "shared/tiles.wgsl", "ceil(box.high + 1.0)", "ceil(box.high - 3.0)"),
    (Kernel::SurfaceTileCount, "shared/tiles.wgsl", "extend(out, cut.xy / p.near)", "out"),
    (Kernel::SurfaceTileCount, "shared/tiles.wgsl", "return terms.x + terms.y", "return terms.x - terms.y"),
    (Kernel::SurfaceTileWrite, "surface_tile_write.wgsl", "= i % p.triangles", "= i"),
    (Kernel::SurfaceRasterize, "surface_rasterize.wgsl", "found.w < best.w", "found.w > best.w"),
    (Kernel::SurfaceRasterize, "shared/triangle_cover.wgsl", "w >= p.near", "w >= 0.1 * p.near"),
    (Kernel::SurfaceRasterizeBackward, "surface_rasterize_backward.wgsl", "grad.w * b.y", "grad.w * b.x"),
    (
        Kernel::SurfaceInterpolate,
        "surface_interpolate.wgsl",
        "b.z * attributes[at.z + c]",
        "b.z * attributes[at.z]",
    ),
    (Kernel::SurfaceInterpolateBackward, "surface_interpolate_backward.wgsl", "b.y * grad", "b.z * grad"),
    (Kernel::SurfaceFootprint, "surface_footprint.wgsl", "all * (e.y / sum)", "all * (e.z / sum)"),
    (Kernel::SurfaceCompose, "surface_compose.wgsl", "(i / picture()) + c", "0u + c"),
    (
        Kernel::SurfaceComposeBackward,
        "surface_compose_backward.wgsl",
        "(p.channels + 1u) * i",
        "p.channels * i",
    ),
    (Kernel::SilhouettePairs, "silhouette_pairs.wgsl", "select(0.5 - d, d - 0.5", "select(0.5 - d, 0.5 - d"),
    (Kernel::SilhouettePairs, "silhouette_pairs.wgsl", "side(a, b, c) * side", "side(a, b, b) * side"),
    (
        Kernel::SilhouetteBlend,
        "shared/blend.wgsl",
        "max(-alpha, 0.0), max(alpha, 0.0)",
        "max(alpha, 0.0), max(alpha, 0.0)",
    ),
    (
        Kernel::SilhouetteBlendBackward,
        "silhouette_blend_backward.wgsl",
        "sum -= share.x",
        "sum -= 0.99 * share.x",
    ),
    (Kernel::SilhouetteMoveBackward, "silhouette_move_backward.wgsl", "-by_alpha,", "by_alpha,"),
    (Kernel::TextureMip, "texture_mip.wgsl", "(first.y + y)", "first.y"),
    (Kernel::TextureMipBackward, "texture_mip_backward.wgsl", "/ f32(scale.x * scale.y)", "/ f32(scale.x)"),
    (Kernel::TextureSample, "shared/texture_taps.wgsl", "2 * n - 1 - m", "2 * n - 2 - m"),
    (
        Kernel::TextureSampleBackward,
        "texture_sample_backward.wgsl",
        "mix(t.z - t.x, t.w - t.y",
        "mix(t.z - t.x, t.w - t.x",
    ),
];

#[test]
fn a_mistake_in_any_kernel_is_noticed() {
    for kernel in Kernel::ALL {
        assert!(MISTAKES.iter().any(|m| m.0 == kernel), "no mistake in {}", kernel.name());
    }
    for (kernel, file, right, wrong) in MISTAKES {
        let mut changed = false;
        let broken = Sources::new(sources().iter().map(|(path, text)| {
            changed |= path == file && text.contains(right);
            (path, if path == file { text.replace(right, wrong) } else { text.to_owned() })
        }));
        assert!(changed, "{file} does not contain {right:?}");
        let noticed = |native_atomics: bool| {
            vulkan(native_atomics, &broken).map(|gpu| {
                let wrong =
                    |variant| chain::run(&gpu, variant, Some(kernel)).iter().any(|r| r.error > r.limit);
                VARIANTS.into_iter().any(wrong)
            })
        };
        let Some(native) = noticed(true) else { return };
        let skipped = right.starts_with("atomicAdd") && gpu().is_some_and(|gpu| !gpu.native_atomics());
        assert!(
            native || skipped || noticed(false) == Some(true),
            "{}: {right:?} -> {wrong:?} in {file} goes unnoticed",
            kernel.name()
        );
    }
}
