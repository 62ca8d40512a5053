//! From a field to an asset: the whole path.

use std::f32::consts::LN_2;
use std::sync::Arc;
use std::time::Instant;

use image::RgbaImage;

use super::bake::{BakeOptions, Surface, base_color};
use super::bake_normals::{Dense, normal_map};
use super::clean::{Components, keep_solids, remove_slivers};
use super::iso::{Grid, extract};
use super::normals::{angle_weighted, refine_by_density};
use super::threshold::{self, Threshold};
use super::topology::{euler_characteristic, is_manifold, is_watertight, weld};
use super::unwrap::{Unwrapped, unwrap};
use super::{
    ColorFn, DensityFn, MeshOptions, MeshReport, Stage, StageTime, TriMesh, place, simplify, smooth,
};
use crate::asset::{Asset, Maps, Material, Mesh};
use crate::{Error, Result};

/// Triangles lower than this share of a grid cell are collapsed.
const SLIVER: f32 = 0.1;

/// Turns a density and a colour over [-1,1]³ into a watertight, unwrapped and textured asset
/// that rests on y = 0 (one mesh, one material). `progress` hears each stage's finished fraction
/// and may stop the work by an error, which is then returned. The callbacks are called from
/// this thread with at most 65,536 points at a time; the result does not depend on the threads.
///
/// # Errors
/// [`Error::Invalid`] for options out of range, [`Error::Failed`] for a field without a surface.
pub fn build_asset(
    density: DensityFn<'_>,
    color: ColorFn<'_>,
    options: &MeshOptions,
    progress: &mut dyn FnMut(Stage, f32) -> Result<()>,
) -> Result<(Asset, MeshReport)> {
    let place = |mesh: &mut TriMesh| place::rest_on_ground(mesh, options.size);
    build_placed(density, color, options, &place, progress)
}

/// [`build_asset`] with a placement of the caller's: `place` moves the finished surface out of the field's
/// box. It must be a similarity, or the normals would be wrong.
///
/// # Errors
/// As [`build_asset`].
pub fn build_placed(
    density: DensityFn<'_>,
    color: ColorFn<'_>,
    options: &MeshOptions,
    place: &dyn Fn(&mut TriMesh),
    progress: &mut dyn FnMut(Stage, f32) -> Result<()>,
) -> Result<(Asset, MeshReport)> {
    options.validate()?;
    let mut run = Run { options, density, progress, timings: Vec::new() };
    let (fine, threshold, components) = run.surface()?;
    run.finish(&fine, &threshold, components, color, place)
}

/// The closed, clean surface that [`build_asset`] would begin with, in the density's space.
///
/// # Errors
/// As [`build_asset`].
pub fn surface(
    density: DensityFn<'_>,
    options: &MeshOptions,
    progress: &mut dyn FnMut(Stage, f32) -> Result<()>,
) -> Result<(TriMesh, Threshold)> {
    options.validate()?;
    let mut run = Run { options, density, progress, timings: Vec::new() };
    let (mesh, threshold, _) = run.surface()?;
    Ok((mesh, threshold))
}

/// [`build_placed`] of a surface that is there already: closed, in the colour's space. It is cleaned, but not
/// smoothed, and takes its colours from the points of the surface themselves.
///
/// # Errors
/// As [`build_asset`]; [`Error::Failed`] if no solid is left of it.
pub fn build_from_surface(
    mesh: &TriMesh,
    color: ColorFn<'_>,
    options: &MeshOptions,
    place: &dyn Fn(&mut TriMesh),
    progress: &mut dyn FnMut(Stage, f32) -> Result<()>,
) -> Result<(Asset, MeshReport)> {
    options.validate()?;
    let options = &MeshOptions { bake_samples: 1, density_normals: false, ..options.clone() };
    let nothing = |points: &[glam::Vec3]| vec![0.0; points.len()];
    let mut run = Run { options, density: &nothing, progress, timings: Vec::new() };
    let mut fine = mesh.clone();
    let components = run.stage(Stage::Clean, |_| Ok(keep_solids(&mut fine, options.keep_fraction)))?;
    if fine.triangles.is_empty() {
        return Err(Error::Failed("the surface encloses nothing".into()));
    }
    let threshold = Threshold { value: 0.0, agreement: 1.0, touches_box: false, attempts: Vec::new() };
    run.finish(&fine, &threshold, components, color, place)
}

fn pick<T: Copy>(values: &[T], source: &[u32]) -> Vec<T> {
    source.iter().map(|&v| values[v as usize]).collect()
}

fn run_simplify(fine: &TriMesh, options: &MeshOptions) -> TriMesh {
    let mut mesh = simplify::simplify(fine, options.triangles);
    let area = super::topology::area(&mesh) as f32;
    // Against the height of the average triangle.
    let height = (area / mesh.triangles.len().max(1) as f32).sqrt();
    remove_slivers(&mut mesh, 0.2 * SLIVER * height);
    mesh
}

/// The deepest that the bake looks below the surface, world units.
const MAX_DEPTH: f32 = 0.1;

struct Run<'a, 'p> {
    options: &'a MeshOptions,
    density: DensityFn<'a>,
    progress: &'p mut dyn FnMut(Stage, f32) -> Result<()>,
    timings: Vec<StageTime>,
}

impl Run<'_, '_> {
    /// Runs one stage under the clock; `work` may report fractions.
    fn stage<T>(
        &mut self,
        stage: Stage,
        work: impl FnOnce(&mut dyn FnMut(f32) -> Result<()>) -> Result<T>,
    ) -> Result<T> {
        (self.progress)(stage, 0.0)?;
        let start = Instant::now();
        let result = work(&mut |fraction| (self.progress)(stage, fraction))?;
        self.timings.push(StageTime { stage, seconds: start.elapsed().as_secs_f64() });
        (self.progress)(stage, 1.0)?;
        Ok(result)
    }

    /// The closed, clean surface at full resolution, in the field's space.
    fn surface(&mut self) -> Result<(TriMesh, Threshold, Components)> {
        let (options, density) = (self.options, self.density);
        let mut grid = self.stage(Stage::Sample, |p| Grid::sample(options.resolution, density, p))?;
        let threshold = self.stage(Stage::Threshold, |_| match options.threshold {
            Some(value) => Ok(Threshold { value, agreement: 1.0, touches_box: false, attempts: Vec::new() }),
            None => threshold::choose(&grid, options.characteristic_length),
        })?;
        let mut mesh = self.stage(Stage::Extract, |_| {
            to_opacity(&mut grid, threshold.value);
            grid.close_hull(0.0);
            Ok(extract(&grid, 0.5))
        })?;
        let components = self.stage(Stage::Clean, |_| {
            let components = keep_solids(&mut mesh, options.keep_fraction);
            remove_slivers(&mut mesh, SLIVER * grid.spacing);
            smooth::taubin(&mut mesh, options.smoothing);
            Ok(components)
        })?;
        if mesh.triangles.is_empty() {
            let what = format!("nothing is denser than the threshold {}", threshold.value);
            return Err(Error::Failed(what).hint("lower the threshold, or leave it to the program"));
        }
        Ok((mesh, threshold, components))
    }

    /// From the clean surface to the asset.
    fn finish(
        mut self,
        fine: &TriMesh,
        threshold: &Threshold,
        components: Components,
        color: ColorFn<'_>,
        place: &dyn Fn(&mut TriMesh),
    ) -> Result<(Asset, MeshReport)> {
        let options = self.options;
        let mut mesh = self.stage(Stage::Simplify, |_| Ok(run_simplify(fine, options)))?;
        let normals = self.normals(&mesh);
        let charts = self.stage(Stage::Unwrap, |_| {
            let mut charts = unwrap(&mesh, options.texture_size, options.padding)?;
            charts.optimize_order();
            Ok(charts)
        })?;
        let texture = self.bake(&mesh, &normals, &charts, color, threshold.value)?;
        let mut part = Mesh {
            positions: pick(&mesh.positions, &charts.source),
            normals: pick(&normals, &charts.source),
            uvs: charts.uvs,
            colors: Vec::new(),
            triangles: charts.triangles,
            material: 0,
        };
        let mut maps = Maps::default();
        if options.normal_map {
            let bumps =
                normal_map(&part, &Dense::new(fine)?, options.texture_size, options.padding as usize)?;
            maps.normal = Some((Arc::new(bumps), 1.0));
        }
        place(&mut mesh);
        part.positions = pick(&mesh.positions, &charts.source);
        let material = Material {
            name: "surface".into(),
            base_color_texture: Some(Arc::new(texture)),
            maps,
            ..Default::default()
        };
        let asset = Asset { meshes: vec![part], materials: vec![material], ..Default::default() };
        let welded = weld(&asset);
        let report = MeshReport {
            threshold: threshold.value,
            silhouette_agreement: threshold.agreement,
            touches_box: threshold.touches_box,
            triangles_extracted: fine.triangles.len(),
            triangles: asset.triangle_count(),
            vertices: asset.meshes[0].positions.len(),
            components_found: components.found,
            components_kept: components.kept,
            cavities: components.cavities,
            watertight: is_watertight(&welded),
            manifold: is_manifold(&welded),
            euler_characteristic: euler_characteristic(&welded),
            charts: charts.chart_count,
            utilization: charts.utilization,
            timings: self.timings,
        };
        Ok((asset, report))
    }

    fn normals(&self, mesh: &TriMesh) -> Vec<glam::Vec3> {
        let mut normals = angle_weighted(mesh);
        if self.options.density_normals {
            refine_by_density(mesh, &mut normals, self.density, 2.0 / self.options.resolution as f32);
        }
        normals
    }

    fn bake(
        &mut self,
        mesh: &TriMesh,
        normals: &[glam::Vec3],
        charts: &Unwrapped,
        color: ColorFn<'_>,
        threshold: f32,
    ) -> Result<RgbaImage> {
        let (options, density) = (self.options, self.density);
        let surface = Surface {
            positions: &pick(&mesh.positions, &charts.source),
            normals: &pick(normals, &charts.source),
            uvs: &charts.uvs,
            triangles: &charts.triangles,
        };
        let cell = 2.0 / options.resolution as f32;
        let bake = BakeOptions {
            size: options.texture_size,
            samples: options.bake_samples,
            outside: cell,
            // Behind a soft skin the visible colour lies deeper: as far as three quarters of the
            // light get at the surface's own density.
            inside: (2.0 * LN_2 / threshold).min(MAX_DEPTH).max(2.0 * cell),
            rings: options.padding as usize,
        };
        self.stage(Stage::Bake, |p| base_color(surface, density, color, &bake, p))
    }
}

/// Density → opacity over the length at which the threshold is half opaque, 1 − 2^(−σ/τ). Densities
/// rise steeply inside an object, and the linear interpolation of marching cubes would pull
/// every vertex to the outer grid point; opacities saturate instead. NaN becomes empty.
fn to_opacity(grid: &mut Grid, tau: f32) {
    for value in &mut grid.values {
        *value = 1.0 - (-LN_2 * value.max(0.0) / tau).exp();
    }
}

#[cfg(test)]
mod tests {
    use glam::Vec3;

    use super::*;
    use crate::asset::glb;
    use crate::mesh::topology::signed_volume;

    /// A ball on a slab, and fog that must not become a surface.
    fn density(points: &[Vec3]) -> Vec<f32> {
        let solid = |p: &Vec3| {
            let ball = 0.3 - (p - Vec3::Y * 0.2).length();
            let slab = 0.1 - (p.y + 0.2).abs().max(2.0 * (p.x.hypot(p.z) - 0.5));
            ball.max(slab)
        };
        points.iter().map(|p| 0.2 + 300.0 / (1.0 + (-60.0 * solid(p)).exp())).collect()
    }

    fn color(points: &[Vec3]) -> Vec<Vec3> {
        points
            .iter()
            .map(|p| if p.y > 0.0 { Vec3::new(0.1, 0.2, 0.8) } else { Vec3::new(0.9, 0.6, 0.6) })
            .collect()
    }

    fn small() -> MeshOptions {
        MeshOptions { resolution: 48, triangles: 3_000, texture_size: 256, ..Default::default() }
    }

    #[test]
    fn a_field_becomes_a_closed_textured_asset_on_the_ground() {
        let mut heard = Vec::new();
        let mut progress = |stage, fraction| {
            heard.push((stage, fraction));
            Ok(())
        };
        let (asset, report) = build_asset(&density, &color, &small(), &mut progress).unwrap();
        assert!(report.watertight && report.manifold, "{report:?}");
        assert_eq!((report.euler_characteristic, report.components_kept), (2, 1));
        assert!(report.triangles <= 3_000 && !report.touches_box);
        let (low, high) = asset.bounds().unwrap();
        assert!(low.y == 0.0 && ((high - low).max_element() - 1.0).abs() < 1e-5);
        assert!(signed_volume(&weld(&asset)) > 0.0);
        let part = &asset.meshes[0];
        assert!(part.normals.iter().all(|n| (n.length() - 1.0).abs() < 1e-4));
        assert_eq!((part.normals.len(), part.uvs.len()), (part.positions.len(), part.positions.len()));
        assert_eq!(heard.first(), Some(&(Stage::Sample, 0.0)));
        assert_eq!(heard.last(), Some(&(Stage::Bake, 1.0)));
        assert_eq!(report.timings.len(), 7);
        // The blue ball's top and the pink slab's underside.
        let texture = asset.materials[0].base_color_texture.as_ref().unwrap();
        let texel = |pick: fn(&Vec3, &Vec3) -> bool| {
            let best = (1..part.positions.len())
                .fold(0, |b, i| if pick(&part.positions[i], &part.positions[b]) { i } else { b });
            let uv = (part.uvs[best] * 255.0).as_uvec2();
            texture.get_pixel(uv.x, uv.y).0
        };
        assert_eq!(texel(|a, b| a.y > b.y)[..3], [89, 124, 231]);
        assert_eq!(texel(|a, b| a.y < b.y)[..3], [243, 203, 203]);
    }

    #[test]
    fn the_same_file_at_one_and_two_threads() {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| build_asset(&density, &color, &small(), &mut |_, _| Ok(())).unwrap().0)
        };
        assert_eq!(glb::to_bytes(&with(1)).unwrap(), glb::to_bytes(&with(2)).unwrap());
    }

    #[test]
    fn stops_when_told_and_refuses_nonsense() {
        let mut stop = |stage, _| if stage == Stage::Simplify { Err(Error::Interrupted) } else { Ok(()) };
        let error = build_asset(&density, &color, &small(), &mut stop).unwrap_err();
        assert!(matches!(error, Error::Interrupted));
        let high = MeshOptions { threshold: Some(1e9), ..small() };
        assert!(build_asset(&density, &color, &high, &mut |_, _| Ok(())).unwrap_err().hint_text().is_some());
        let bad = MeshOptions { triangles: 5_000_000, ..small() };
        assert!(build_asset(&density, &color, &bad, &mut |_, _| Ok(())).unwrap_err().is_usage());
    }

    #[test]
    fn opacity_is_half_at_the_threshold() {
        let mut grid = crate::mesh::testing::grid_of(1, |p| 8.0 + 8.0 * p.x);
        to_opacity(&mut grid, 16.0);
        assert!((grid.values[0] - 0.0).abs() < 1e-6 && (grid.values[1] - 0.5).abs() < 1e-6);
    }
}
