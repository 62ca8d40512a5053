//! The composed pipeline against f64, and surfaces found from pictures.

use glam::{DVec3, Vec3};

use super::{Colors, Extracted, Extractor, Rates, Shot, SurfaceModel, SurfaceStage, Weights};
use crate::Result;
use crate::gpu::backend::Device;
use crate::mesh::TriMesh;
use crate::mesh::implicit::flexi::{self, Gradient, Parameters, Split};
use crate::mesh::implicit::weights::CellWeights;
use crate::mesh::implicit::{Lattice, tets};
use crate::mesh::testing::sphere;
use crate::mesh::topology::{is_manifold, is_watertight, signed_volume};
use crate::render::camera::Camera;
use crate::render::surface::SurfaceGrad;
use crate::render::surface::tests::reference;
use crate::rng::{Rng, Stream};

const SIZE: u32 = 28;
const NO_WEIGHTS: Weights =
    Weights { normal_consistency: 0.0, laplacian: 0.0, sign_changes: 0.0, deviation: 0.0 };
const BACKGROUND: Vec3 = Vec3::new(0.25, 0.5, 0.75);

fn pattern(p: DVec3) -> DVec3 {
    DVec3::new((3.0 * p.x).sin(), (2.0 * p.y + p.z).cos(), p.z * p.x) * 0.4 + 0.5
}

/// By row, ∂colour/∂x, ∂y, ∂z.
fn slopes(p: DVec3) -> [DVec3; 3] {
    let s = (2.0 * p.y + p.z).sin();
    [
        DVec3::new(3.0 * (3.0 * p.x).cos(), 0.0, p.z) * 0.4,
        DVec3::new(0.0, -2.0 * s, 0.0) * 0.4,
        DVec3::new(0.0, -s, p.x) * 0.4,
    ]
}

/// A pattern in space, which learns nothing.
#[derive(Default)]
struct Pattern(Vec<DVec3>);

impl Colors for Pattern {
    fn colors(&mut self, points: &[f32], _step: u32) -> Result<Vec<f32>> {
        self.0 = points.as_chunks::<3>().0.iter().map(|p| Vec3::from_array(*p).as_dvec3()).collect();
        Ok(self.0.iter().flat_map(|p| pattern(*p).as_vec3().to_array()).collect())
    }

    fn pull(&mut self, by: &[f32]) -> Result<Vec<f32>> {
        let rows = self.0.iter().zip(by.as_chunks::<3>().0);
        let pulled =
            |(p, by): (&DVec3, &[f32; 3])| slopes(*p).map(|s| s.dot(Vec3::from_array(*by).as_dvec3()) as f32);
        Ok(rows.flat_map(pulled).collect())
    }
}

fn cameras(n: u32, size: u32) -> Vec<Camera> {
    let turn = |i: u32| 360.0 * i as f32 / n as f32 + 17.0;
    let lift = |i: u32| if i.is_multiple_of(2) { 25.0 } else { -20.0 };
    (0..n).map(|i| Camera::orbit(turn(i), lift(i), 2.6, Vec3::new(0.03, 0.02, 0.01), 0.7, size)).collect()
}

/// A dented ball with moved points and uneven weights.
fn model(extractor: Extractor) -> SurfaceModel {
    let mut model = SurfaceModel::from_mesh(7, extractor, &sphere(24, 0.62)).unwrap();
    let rng = Rng::new(3, Stream::Probe, 1);
    let single = |x: f32| f64::from(x);
    let p = &mut model.parameters;
    for (i, d) in p.sdf.iter_mut().enumerate() {
        let moved = *d as f32 * rng.range(i as u64, 0.6, 1.4);
        *d = single(if moved.abs() < 0.02 { 0.02f32.copysign(moved) } else { moved });
    }
    for (i, d) in p.deform.iter_mut().enumerate() {
        *d = DVec3::from_array([0, 1, 2].map(|k| single(rng.range((5000 + 3 * i + k) as u64, -0.5, 0.5))));
    }
    if extractor == Extractor::Flexicubes {
        let cells = flexi::extract(model.lattice, p, Split::Middle).unwrap().cells;
        p.weights.keep(&cells);
        for (r, row) in p.weights.rows.iter_mut().enumerate() {
            let draw = |i| single(rng.range((20_000 + 21 * r + i) as u64, -0.5, 0.5));
            *row = CellWeights::from_array(&std::array::from_fn(draw));
        }
    }
    model
}

/// Weights of a linear loss over rgb, coverage and normals of each pixel.
fn loss_weights(pixels: usize) -> Vec<f32> {
    let rng = Rng::new(8, Stream::Probe, 2);
    (0..7 * pixels as u64).map(|i| rng.range(i, -1.0, 1.0)).collect()
}

/// The loss in f64 from the numbers on, with the triangles that each pixel sees given.
fn value(model: &SurfaceModel, p: &Parameters, cameras: &[Camera], ids: &[u32], weights: &[f32]) -> f64 {
    let (positions, triangles) = match model.extractor {
        Extractor::Dmtet => {
            let s = tets::extract(model.lattice, &p.sdf, &p.deform).unwrap();
            (s.positions, s.triangles)
        }
        Extractor::Flexicubes => {
            let s = flexi::extract(model.lattice, p, Split::Middle).unwrap();
            (s.positions, s.triangles)
        }
    };
    let positions: Vec<f64> = positions.iter().flat_map(DVec3::to_array).collect();
    let scene = reference::Scene {
        attributes: positions.clone(),
        positions,
        triangles,
        texture: None,
        shade: Some(pattern),
        background: BACKGROUND.as_dvec3(),
    };
    let weigh = |(p, w): (&reference::Pixel, &[f32])| -> f64 {
        [0, 1, 2, 3, 5, 6, 7].iter().zip(w).map(|(c, w)| p[*c] * f64::from(*w)).sum()
    };
    scene.render(cameras, ids).iter().zip(weights.chunks(7)).map(weigh).sum()
}

#[track_caller]
fn differences(what: &str, found: &[f64], mut loss: impl FnMut(usize, f64) -> f64) {
    let (h, scale) = (1e-7, found.iter().fold(0.0f64, |m, g| m.max(g.abs())));
    let live: Vec<usize> = (0..found.len()).filter(|&i| found[i] != 0.0).collect();
    assert!(scale > 0.1 && live.len() > 30, "{what}: {} gradients up to {scale}", live.len());
    let mut worst = 0.0f64;
    for &i in live.iter().step_by(live.len().div_ceil(30)) {
        let numeric = (loss(i, h) - loss(i, -h)) / (2.0 * h);
        worst = worst.max((numeric - found[i]).abs() / scale);
    }
    eprintln!("{what}: {worst:.1e} of {scale:.2}");
    // The pictures' gradient is of single precision.
    assert!(worst < 5e-5, "{what}: {worst:e} of {scale}");
}

fn agrees(extractor: Extractor) {
    let model = model(extractor);
    let cameras = cameras(2, SIZE);
    let mut stage = SurfaceStage::new(&Device::cpu(), model.clone(), NO_WEIGHTS, 1);
    let mut paint = Pattern::default();
    let shot = Shot { cameras: &cameras, backgrounds: &[BACKGROUND; 2], normals: true, step: 0 };
    let out = stage.render(&mut paint, &shot).unwrap();
    let weights = loss_weights(out.mask.len());
    let part = |from: usize, n: usize| -> Vec<f32> {
        weights.chunks(7).flat_map(|w| w[from..from + n].to_vec()).collect()
    };
    let (rgb, mask, normal) = (part(0, 3), part(3, 1), part(4, 3));
    let grad = SurfaceGrad { rgb: Some(&rgb), mask: Some(&mask), normal: Some(&normal), depth: None };
    stage.backward(&mut paint, &grad).unwrap();
    let found: &Gradient = stage.gradient().unwrap();
    let blended = out.mask.iter().filter(|m| **m > 0.01 && **m < 0.99).count();
    assert!(blended > 10, "{blended} pixels on silhouettes");
    let p = &model.parameters;
    let loss = |edit: &dyn Fn(&mut Parameters)| {
        let mut q = p.clone();
        edit(&mut q);
        value(&model, &q, &cameras, &out.ids, &weights)
    };
    differences("sdf", &found.sdf, |i, h| loss(&|q| q.sdf[i] += h));
    let flat: Vec<f64> = found.deform.iter().flat_map(DVec3::to_array).collect();
    differences("deform", &flat, |i, h| loss(&|q| q.deform[i / 3][i % 3] += h));
    if extractor == Extractor::Flexicubes {
        let flat: Vec<f64> = found.rows.iter().flat_map(CellWeights::to_array).collect();
        differences("weights", &flat, |i, h| {
            loss(&|q| {
                let row = &mut q.weights.rows[i / CellWeights::LEN];
                let mut x = row.to_array();
                x[i % CellWeights::LEN] += h;
                *row = CellWeights::from_array(&x);
            })
        });
    }
}

#[test]
fn from_distances_to_pictures_by_tetrahedra_and_back() {
    agrees(Extractor::Dmtet);
}

#[test]
fn from_distances_and_weights_to_pictures_by_flexicubes_and_back() {
    agrees(Extractor::Flexicubes);
}

#[test]
fn regularisers_go_into_the_gradient_with_their_weights() {
    for extractor in [Extractor::Dmtet, Extractor::Flexicubes] {
        let model = model(extractor);
        let weights = Weights { normal_consistency: 0.7, laplacian: 0.5, sign_changes: 0.3, deviation: 2.0 };
        let total = |p: &Parameters| -> f64 {
            let mut moved = model.clone();
            moved.parameters = p.clone();
            let mut stage = SurfaceStage::new(&Device::cpu(), moved, weights, 1);
            let cameras = cameras(1, 16);
            let shot = Shot { cameras: &cameras, backgrounds: &[Vec3::ZERO], normals: false, step: 0 };
            stage.render(&mut Nothing, &shot).unwrap();
            let nothing = vec![0.0; 3 * 256];
            let grad = SurfaceGrad { rgb: Some(&nothing), ..Default::default() };
            stage.backward(&mut Nothing, &grad).unwrap().value
        };
        let mut stage = SurfaceStage::new(&Device::cpu(), model.clone(), weights, 1);
        let cameras = cameras(1, 16);
        let shot = Shot { cameras: &cameras, backgrounds: &[Vec3::ZERO], normals: false, step: 0 };
        stage.render(&mut Nothing, &shot).unwrap();
        let nothing = vec![0.0; 3 * 256];
        let penalties =
            stage.backward(&mut Nothing, &SurfaceGrad { rgb: Some(&nothing), ..Default::default() }).unwrap();
        assert_eq!(penalties.terms.len(), if extractor == Extractor::Dmtet { 3 } else { 4 });
        let found = stage.gradient().unwrap();
        let loss = |edit: &dyn Fn(&mut Parameters)| {
            let mut q = model.parameters.clone();
            edit(&mut q);
            total(&q)
        };
        let sdf: Vec<f64> = found.sdf.iter().map(|g| 10.0 * g).collect();
        differences("sdf", &sdf, |i, h| 10.0 * loss(&|q| q.sdf[i] += h));
    }
}

/// Black, without a gradient.
struct Nothing;

impl Colors for Nothing {
    fn colors(&mut self, points: &[f32], _step: u32) -> Result<Vec<f32>> {
        Ok(vec![0.0; points.len()])
    }

    fn pull(&mut self, by: &[f32]) -> Result<Vec<f32>> {
        Ok(vec![0.0; by.len()])
    }
}

/// A block with its edges along no axis of the lattice.
fn block() -> TriMesh {
    let turn = glam::Quat::from_euler(glam::EulerRot::XYZ, 0.5, 0.3, 0.7);
    let mut cube = crate::mesh::testing::cube();
    cube.positions.iter_mut().for_each(|p| *p = turn * ((*p - 0.5) * 0.9));
    cube
}

/// Mean squared difference of silhouettes and its gradient.
fn silhouettes(found: &[f32], wanted: &[f32]) -> (f64, Vec<f32>) {
    let scale = 1.0 / found.len() as f32;
    let off: Vec<f32> = found.iter().zip(wanted).map(|(f, w)| f - w).collect();
    (off.iter().map(|d| f64::from(d * d * scale)).sum(), off.iter().map(|d| 2.0 * scale * d).collect())
}

#[test]
fn a_ball_becomes_a_block_under_silhouettes_and_stays_closed_and_goes_on_from_its_state() {
    let device = Device::cpu();
    let target = SurfaceModel::from_mesh(24, Extractor::Dmtet, &block()).unwrap();
    let mut truth = SurfaceStage::new(&device, target, NO_WEIGHTS, 2);
    {
        let extractor = Extractor::Dmtet;
        let ball = SurfaceModel::from_mesh(16, extractor, &sphere(24, 0.5)).unwrap();
        let weights = Weights { sign_changes: 0.001, ..Weights::default() };
        let mut stage = SurfaceStage::new(&device, ball, weights, 1);
        let mut errors = Vec::new();
        for step in 0..150u32 {
            let rng = Rng::new(2, Stream::Camera, step);
            let cameras: Vec<Camera> = (0..4)
                .map(|i| {
                    let (turn, lift) = (rng.range(2 * i, 0.0, 360.0), rng.range(2 * i + 1, -70.0, 70.0));
                    Camera::orbit(turn, lift, 2.6, Vec3::ZERO, 0.7, 32)
                })
                .collect();
            let shot = Shot { cameras: &cameras, backgrounds: &[Vec3::ZERO; 4], normals: false, step };
            let wanted = truth.render(&mut Nothing, &shot).unwrap().mask;
            let found = stage.render(&mut Nothing, &shot).unwrap().mask;
            let (error, by_mask) = silhouettes(&found, &wanted);
            errors.push(error);
            stage
                .backward(&mut Nothing, &SurfaceGrad { mask: Some(&by_mask), ..Default::default() })
                .unwrap();
            let rate = 1.0 - 0.9 * step as f32 / 150.0;
            stage.step(Rates { sdf: 0.02 * rate, deform: 0.05 * rate, weights: 0.05 * rate });
            if step == 40 {
                // A model from a state is the model.
                stage.model = SurfaceModel::from_state(extractor, &stage.model.state()).unwrap();
            }
        }
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let (before, after) = (mean(&errors[..5]), mean(&errors[145..]));
        let mesh = stage.model.mesh().unwrap();
        eprintln!("{extractor:?}: {before:.5} before, {after:.5} after, volume {}", signed_volume(&mesh));
        assert!(is_watertight(&mesh) && is_manifold(&mesh));
        // Both are antialiased, but not of one lattice and not of as many samples: there is a floor.
        assert!(after < 0.2 * before, "{extractor:?}: {before} {after}");
    }
}

#[test]
fn a_state_is_exact_and_what_does_not_fit_is_refused() {
    let device = Device::cpu();
    let cameras = cameras(2, 16);
    let shot = Shot { cameras: &cameras, backgrounds: &[BACKGROUND; 2], normals: false, step: 0 };
    let go = |stage: &mut SurfaceStage| {
        let mut paint = Pattern::default();
        let out = stage.render(&mut paint, &shot).unwrap();
        let by: Vec<f32> = out.rgb.iter().map(|c| c - 0.3).collect();
        stage.backward(&mut paint, &SurfaceGrad { rgb: Some(&by), ..Default::default() }).unwrap();
        stage.step(Rates { sdf: 0.01, deform: 0.02, weights: 0.02 });
    };
    let mut whole = SurfaceStage::new(&device, model(Extractor::Flexicubes), Weights::default(), 1);
    go(&mut whole);
    go(&mut whole);
    let state = whole.model.state();
    let back = SurfaceModel::from_state(Extractor::Flexicubes, &state).unwrap();
    assert_eq!(back.parameters, whole.model.parameters);
    let mut half = SurfaceStage::new(&device, back, Weights::default(), 1);
    go(&mut whole);
    go(&mut half);
    assert_eq!(half.model.state(), whole.model.state());
    assert!(half.model.state() != state);
    for name in ["sdf", "weights.adam_v", "progress"] {
        let mut bad = state.clone();
        bad.get_mut(name).unwrap().pop();
        assert!(SurfaceModel::from_state(Extractor::Flexicubes, &bad).unwrap_err().is_usage());
    }
}

#[test]
fn threads_do_not_change_a_bit_and_nothing_left_is_an_error() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut stage =
                SurfaceStage::new(&Device::cpu(), model(Extractor::Flexicubes), Weights::default(), 2);
            let (cameras, mut paint) = (cameras(2, 16), Pattern::default());
            let shot = Shot { cameras: &cameras, backgrounds: &[BACKGROUND; 2], normals: false, step: 0 };
            let by: Vec<f32> = stage.render(&mut paint, &shot).unwrap().rgb;
            stage.backward(&mut paint, &SurfaceGrad { rgb: Some(&by), ..Default::default() }).unwrap();
            stage.step(Rates { sdf: 0.01, deform: 0.02, weights: 0.02 });
            stage.model.state()
        })
    };
    assert!(run(1) == run(3));
    let mut empty = model(Extractor::Dmtet);
    empty.parameters.sdf.fill(-1.0);
    assert!(empty.extract().unwrap_err().hint_text().is_some());
    let lattice = Lattice::new(8).unwrap();
    assert_eq!(Parameters::new(lattice, vec![0.0; lattice.len()]).weights.rows.len(), 0);
    assert!(matches!(model(Extractor::Dmtet).extract().unwrap(), Extracted::Tets(_)));
}
