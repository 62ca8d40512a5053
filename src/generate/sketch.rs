//! Sketch-shape: a rough mesh that the field's occupancy keeps to (Metzer et al. 2023, "Latent-NeRF for
//! Shape-Guided Generation of 3D Shapes and Textures", section 4.1).
//!
//! `L = mean_p CE(α(p), inside(p)) (1 − e^{−d(p)² / 2 s²})` over random points p: α = 1 − e^{−δ σ(p)} is the opacity
//! of a stretch of length δ, d the distance from the mesh's surface, and s its leniency: near the surface the
//! prior is free to shape what the sketch only means.

use std::path::Path;

use glam::Vec3;
use sha2::{Digest, Sha256};

use crate::config::SketchConfig;
use crate::mesh::TriMesh;
use crate::mesh::implicit::{Lattice, init};
use crate::mesh::topology::weld;
use crate::rng::{Rng, Stream};
use crate::{Error, Result, asset};

/// Cells along a side of the box on which distances are known; between them they are interpolated.
const CELLS: usize = 64;
/// Optical depth below which an empty inside pulls no harder: the slope of the cross-entropy has a pole at 0.
const LEAST: f64 = 0.01;
/// Draws of the points at a step, beyond those of whatever else draws with this key.
const OWN: u64 = 1 << 41;

/// A guiding mesh.
pub(super) struct Sketch {
    config: SketchConfig,
    lattice: Lattice,
    /// Positive inside.
    distance: Vec<f32>,
}

/// Whether there is such a file, before anything expensive begins.
///
/// # Errors
/// [`Error::Invalid`] if not.
pub(super) fn check(config: &SketchConfig) -> Result<()> {
    if config.file.is_empty() || Path::new(&config.file).is_file() {
        return Ok(());
    }
    Err(Error::invalid("sketch.file", format!("there is no file {}", config.file))
        .hint("name a closed mesh: .obj, .glb or .gltf"))
}

impl Sketch {
    /// The mesh that the configuration names, centred and scaled to [`SketchConfig::size`]; nothing if none.
    ///
    /// # Errors
    /// A file that is missing, no model, or encloses nothing.
    pub(super) fn load(config: &SketchConfig) -> Result<Option<Self>> {
        if config.file.is_empty() {
            return Ok(None);
        }
        let path = Path::new(&config.file);
        let mut mesh = weld(&asset::load(path)?);
        fit(&mut mesh, config.size as f32);
        let sketch = Self::of(&mesh, config)?;
        if !sketch.distance.iter().any(|d| *d > 0.0) {
            return Err(Error::file(path, "encloses nothing: as a sketch it has no inside")
                .hint("the sketch must be closed, its triangles counter-clockwise seen from outside"));
        }
        Ok(Some(sketch))
    }

    /// Tells one shape from another.
    pub(super) fn digest(&self) -> String {
        let hash = Sha256::digest(bytemuck::cast_slice::<f32, u8>(&self.distance));
        hash[..8].iter().map(|b| format!("{b:02x}")).collect()
    }

    fn of(mesh: &TriMesh, config: &SketchConfig) -> Result<Self> {
        let lattice = Lattice::new(CELLS)?;
        let distance = init::from_mesh(lattice, mesh).into_iter().map(|d| d as f32).collect();
        Ok(Self { config: config.clone(), lattice, distance })
    }

    /// The signed distance at a point of the box, trilinear between the lattice's.
    fn at(&self, p: Vec3) -> f32 {
        let n = self.lattice.cells();
        let unit = ((p + 1.0) / self.lattice.spacing() as f32).clamp(Vec3::ZERO, Vec3::splat(n as f32));
        let low = unit.floor().min(Vec3::splat(n as f32 - 1.0));
        let part = unit - low;
        let base = low.to_array().map(|v| v as usize);
        (0..8)
            .map(|corner: usize| {
                let up = [corner & 1, corner >> 1 & 1, corner >> 2];
                let weight: f32 = (0..3).map(|a| if up[a] == 1 { part[a] } else { 1.0 - part[a] }).product();
                weight * self.distance[self.lattice.index([0, 1, 2].map(|a| base[a] + up[a]))]
            })
            .sum()
    }

    /// The points of a step, uniform in the box.
    pub(super) fn points(&self, seed: u64, step: u32) -> Vec<Vec3> {
        let rng = Rng::new(seed, Stream::Noise, step);
        let draw = |i: u64| rng.range(OWN + i, -1.0, 1.0);
        (0..u64::from(self.config.points))
            .map(|i| Vec3::new(draw(3 * i), draw(3 * i + 1), draw(3 * i + 2)))
            .collect()
    }

    /// The weighted loss at densities `density` of `points`, and its gradient by each.
    pub(super) fn loss(&self, points: &[Vec3], density: &[f32]) -> (f64, Vec<f32>) {
        let c = &self.config;
        let scale = c.weight / points.len().max(1) as f64;
        let mut value = 0.0;
        let one = |(p, sigma): (&Vec3, &f32)| {
            let d = f64::from(self.at(*p));
            let lenient = scale * (1.0 - (-0.5 * (d / c.leniency).powi(2)).exp());
            let depth = c.length * f64::from(*sigma);
            // −ln(1 − α) is the optical depth itself; −ln α has the slope −1 / (e^depth − 1).
            let (entropy, slope) = if d > 0.0 {
                let x = depth.max(LEAST);
                (-(-(-x).exp_m1()).ln(), -1.0 / x.exp_m1())
            } else {
                (depth, 1.0)
            };
            value += lenient * entropy;
            (lenient * slope * c.length) as f32
        };
        let gradient = points.iter().zip(density).map(one).collect();
        (value, gradient)
    }
}

/// Centres the mesh's bounds and scales their largest side to `size`.
fn fit(mesh: &mut TriMesh, size: f32) {
    let bounds = mesh.positions.iter().fold((Vec3::MAX, Vec3::MIN), |(l, h), p| (l.min(*p), h.max(*p)));
    let (low, high) = bounds;
    let scale = size / (high - low).max_element().max(f32::MIN_POSITIVE);
    for p in &mut mesh.positions {
        *p = (*p - 0.5 * (low + high)) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{AdamConfig, FieldConfig};
    use crate::gpu::backend::Device;
    use crate::render::volume::{VolumeConfig, VolumeRenderer};

    /// Boxes from `low` to `high`, outside counter-clockwise.
    fn boxes(all: &[(Vec3, Vec3)]) -> TriMesh {
        let quads = [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]];
        let mut mesh = TriMesh::default();
        for (low, high) in all {
            let first = mesh.positions.len() as u32;
            mesh.positions.extend((0..8).map(|c: u32| {
                let pick = |axis: usize| if c >> axis & 1 == 1 { high[axis] } else { low[axis] };
                Vec3::new(pick(0), pick(1), pick(2))
            }));
            for q in quads {
                let [a, b, c, d] = q.map(|i: u32| first + i);
                mesh.triangles.extend([[a, b, c], [a, c, d]]);
            }
        }
        mesh
    }

    /// A wide box with a narrow one on it that reaches into it: a shape that no blob has.
    fn tower() -> TriMesh {
        boxes(&[
            (Vec3::new(-0.6, -0.6, -0.3), Vec3::new(0.6, -0.2, 0.3)),
            (Vec3::new(0.1, -0.4, -0.2), Vec3::new(0.5, 0.6, 0.2)),
        ])
    }

    fn sketch() -> Sketch {
        Sketch::of(&tower(), &SketchConfig { points: 2048, leniency: 0.05, ..SketchConfig::default() })
            .unwrap()
    }

    #[test]
    fn distances_are_those_of_the_union() {
        let s = sketch();
        for (p, want) in [
            ([0.3, -0.3, 0.0], 0.1),  // in both, 0.1 below the wide box's top, which is inside here
            ([-0.4, -0.4, 0.0], 0.2), // in the wide one
            ([0.3, 0.3, 0.0], 0.2),   // in the narrow one
            ([-0.3, 0.3, 0.0], -0.4),
            ([0.3, -0.9, 0.0], -0.3),
        ] {
            let got = s.at(Vec3::from_array(p));
            assert!((got - want).abs() < 0.03, "{p:?}: {got} {want}");
        }
        let corner = s.at(Vec3::ONE);
        assert!(corner.is_finite() && corner < -0.4);
    }

    #[test]
    fn loss_by_hand_and_its_gradient_by_differences() {
        let s = sketch();
        let points = [Vec3::new(-0.4, -0.4, 0.0), Vec3::new(-0.5, 0.6, 0.5), Vec3::new(0.0, -0.19, 0.0)];
        let density = [3.0f32, 0.5, 4.0];
        let (value, gradient) = s.loss(&points, &density);
        let weight = |p: Vec3| 1.0 - (-0.5 * (f64::from(s.at(p)) / 0.05).powi(2)).exp();
        let alpha = |sigma: f64| 1.0 - (-0.2 * sigma).exp();
        let entropy = [-alpha(3.0).ln(), -(1.0 - alpha(0.5)).ln(), -(1.0 - alpha(4.0)).ln()];
        let want: f64 = (0..3).map(|i| weight(points[i]) * entropy[i] / 3.0).sum();
        assert!((value - want).abs() < 1e-6, "{value} {want}");
        // A hundredth of the surface away, the sketch has next to nothing to say.
        assert!(weight(points[2]) < 0.1 && weight(points[0]) > 0.99);
        for i in 0..3 {
            let moved = |h: f32| {
                let mut d = density;
                d[i] += h;
                s.loss(&points, &d).0
            };
            let numeric = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            let off = (numeric - f64::from(gradient[i])).abs();
            assert!(off < 1e-3 * numeric.abs(), "{i}: {numeric} {}", gradient[i]);
        }
        let (empty, pull) = s.loss(&points[..1], &[0.0]);
        assert!(empty.is_finite() && pull[0].is_finite() && pull[0] < 0.0);
    }

    #[test]
    fn a_field_takes_the_sketchs_shape() {
        let s = sketch();
        let field = FieldConfig {
            levels: 4,
            start_levels: 4,
            base_resolution: 8,
            finest_resolution: 32,
            log2_table: 13,
            hidden: 16,
            ..FieldConfig::default()
        };
        let volume = VolumeConfig { occupancy_resolution: 16, ..VolumeConfig::default() };
        let mut renderer = VolumeRenderer::new(&Device::cpu(), &field, &volume, 1).unwrap();
        // Where the sketch is sure: clear of the surface by the lattice's error.
        let probes = s.points(99, 0);
        let agreement = |renderer: &VolumeRenderer| {
            let density = renderer.density(&probes).unwrap();
            let clear = probes.iter().zip(&density).filter(|(p, _)| s.at(**p).abs() > 0.06);
            let (mut both, mut either) = (0, 0);
            for (p, sigma) in clear {
                let (inside, full) = (s.at(*p) > 0.0, 1.0 - (-0.2 * sigma).exp() > 0.5);
                both += u32::from(inside && full);
                either += u32::from(inside || full);
            }
            f64::from(both) / f64::from(either)
        };
        let before = agreement(&renderer);
        let adam = AdamConfig { lr_grid: 0.02, lr_mlp: 0.01, ..AdamConfig::default() };
        let mut losses = Vec::new();
        for step in 0..150 {
            let points = s.points(3, step);
            let mut value = 0.0;
            renderer
                .density_backward(&points, |density| {
                    let (loss, gradient) = s.loss(&points, density);
                    value = loss;
                    gradient
                })
                .unwrap();
            renderer.step(&adam).unwrap();
            losses.push(value);
        }
        let after = agreement(&renderer);
        assert!(before < 0.5 && after > 0.95, "{before} {after}, losses {losses:?}");
    }

    #[test]
    fn a_file_becomes_a_sketch_or_says_why_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tower.obj");
        let mut text = String::new();
        for p in &tower().positions {
            text += &format!("v {} {} {}\n", 10.0 * p.x + 5.0, 10.0 * p.y, 10.0 * p.z);
        }
        for t in &tower().triangles {
            text += &format!("f {} {} {}\n", t[0] + 1, t[1] + 1, t[2] + 1);
        }
        std::fs::write(&path, &text).unwrap();
        let config = SketchConfig { file: path.display().to_string(), ..SketchConfig::default() };
        let loaded = Sketch::load(&config).unwrap().unwrap();
        // Largest side 12 became 1.2, its centre the origin: the tower as above.
        assert!((loaded.at(Vec3::new(-0.4, -0.4, 0.0)) - 0.2).abs() < 0.03);
        assert!(Sketch::load(&SketchConfig::default()).unwrap().is_none());
        std::fs::write(&path, "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n").unwrap();
        assert!(Sketch::load(&config).err().unwrap().hint_text().unwrap().contains("closed"));
    }
}
