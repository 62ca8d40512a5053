//! Closed forms, topology and finite differences of both iso-surfaces.

use glam::DVec3;

use super::flexi::{self, Parameters, Split};
use super::weights::CellWeights;
use super::{Lattice, init, regularize, tets, to_tri_mesh};
use crate::mesh::TriMesh;
use crate::mesh::testing::{cube, sphere};
use crate::mesh::topology::{euler_characteristic, is_manifold, is_watertight, signed_volume};
use crate::rng::{Rng, Stream};

fn values(lattice: Lattice, f: impl Fn(DVec3) -> f64) -> Vec<f64> {
    (0..lattice.len()).map(|i| f(lattice.base(i))).collect()
}

fn ball(p: DVec3) -> f64 {
    0.7 - p.length()
}

/// White noise inside a hull that is outside.
fn noise(lattice: Lattice, seed: u64) -> Vec<f64> {
    let rng = Rng::new(seed, Stream::Probe, 0);
    let hull = |i: usize| lattice.coordinates(i).iter().any(|&c| c == 0 || c == lattice.cells());
    (0..lattice.len()).map(|i| if hull(i) { -1.0 } else { f64::from(rng.normal(i as u64)) }).collect()
}

fn vectors(seed: u64, n: usize, scale: f64) -> Vec<DVec3> {
    let rng = Rng::new(seed, Stream::Probe, 1);
    let one = |i: u64| scale * f64::from(rng.normal(i));
    (0..n as u64).map(|i| DVec3::new(one(3 * i), one(3 * i + 1), one(3 * i + 2))).collect()
}

fn of_tets(lattice: Lattice, sdf: &[f64], deform: &[DVec3]) -> TriMesh {
    let s = tets::extract(lattice, sdf, deform).unwrap();
    to_tri_mesh(&s.positions, &s.triangles)
}

fn of_flexi(lattice: Lattice, p: &Parameters, split: Split) -> TriMesh {
    let s = flexi::extract(lattice, p, split).unwrap();
    to_tri_mesh(&s.positions, &s.triangles)
}

#[track_caller]
fn closed(mesh: &TriMesh) {
    assert!(!mesh.triangles.is_empty() && is_watertight(mesh) && is_manifold(mesh));
}

#[test]
fn spheres_are_closed_and_their_volume_converges_quadratically() {
    let exact = 4.0 / 3.0 * std::f64::consts::PI * 0.7f64.powi(3);
    type Make = fn(Lattice) -> TriMesh;
    let makes: [Make; 3] = [
        |l| of_tets(l, &values(l, ball), &vec![DVec3::ZERO; l.len()]),
        |l| of_flexi(l, &Parameters::new(l, values(l, ball)), Split::Diagonal),
        |l| of_flexi(l, &Parameters::new(l, values(l, ball)), Split::Middle),
    ];
    for make in makes {
        let error = |cells: usize| {
            let mesh = make(Lattice::new(cells).unwrap());
            closed(&mesh);
            assert_eq!(euler_characteristic(&mesh), 2);
            signed_volume(&mesh) - exact
        };
        let (coarse, fine) = (error(12), error(48));
        // Four times finer: 16 times better, if the error is quadratic.
        let gain = coarse / fine;
        assert!(coarse < 0.0 && (11.0..22.0).contains(&gain), "{coarse} {fine}");
    }
}

#[test]
fn noise_gives_closed_manifolds() {
    let lattice = Lattice::new(10).unwrap();
    for seed in 0..12 {
        let sdf = noise(lattice, seed);
        let deform = vectors(seed, lattice.len(), 0.5);
        closed(&of_tets(lattice, &sdf, &deform));
        let mut p = Parameters::new(lattice, sdf);
        p.deform = deform;
        for split in [Split::Middle, Split::Diagonal] {
            closed(&of_flexi(lattice, &p, split));
        }
    }
}

#[test]
fn wrong_lengths_and_resolutions_are_refused() {
    let lattice = Lattice::new(4).unwrap();
    assert!(Lattice::new(0).is_err() && Lattice::new(129).is_err());
    assert!(tets::extract(lattice, &[0.0; 3], &vec![DVec3::ZERO; lattice.len()]).unwrap_err().is_usage());
    let mut p = Parameters::new(lattice, values(lattice, ball));
    p.deform.pop();
    assert!(flexi::extract(lattice, &p, Split::Middle).unwrap_err().is_usage());
}

/// Compares `gradient` with central differences of `loss` in a sample of the parameters that `slot`
/// reaches.
#[track_caller]
fn differences(what: &str, gradient: &[f64], mut loss: impl FnMut(usize, f64) -> f64) {
    let h = 1e-6;
    let largest = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
    assert!(largest > 1e-5, "{what}: no gradient at all");
    let live: Vec<usize> = (0..gradient.len()).filter(|&i| gradient[i] != 0.0).collect();
    for &i in live.iter().step_by(live.len().div_ceil(40)).chain(&[0, gradient.len() / 2]) {
        let numeric = (loss(i, h) - loss(i, -h)) / (2.0 * h);
        let error = (numeric - gradient[i]).abs();
        assert!(error < 1e-6 * largest.max(1.0), "{what} {i}: {numeric} {}", gradient[i]);
    }
}

/// Some smooth loss of the positions, and its gradient.
fn probe(positions: &[DVec3]) -> (f64, Vec<DVec3>) {
    let weights = vectors(77, positions.len(), 1.0);
    let value = positions.iter().zip(&weights).map(|(p, w)| w.dot(*p) + w.x * p.length_squared()).sum();
    (value, positions.iter().zip(&weights).map(|(p, w)| *w + 2.0 * w.x * *p).collect())
}

/// A bumpy solid far from zero at every point, so that steps of a difference change no sign.
fn bumpy(lattice: Lattice) -> Vec<f64> {
    let noise = noise(lattice, 3);
    let value = |i: usize| {
        let v = ball(lattice.base(i)) + 0.2 * noise[i];
        if v.abs() < 0.01 { 0.01f64.copysign(v) } else { v }
    };
    (0..lattice.len()).map(value).collect()
}

#[test]
fn tets_gradient_is_that_of_finite_differences() {
    let lattice = Lattice::new(7).unwrap();
    let (sdf, deform) = (bumpy(lattice), vectors(5, lattice.len(), 0.5));
    let surface = tets::extract(lattice, &sdf, &deform).unwrap();
    let gradient = surface.backward(lattice, &sdf, &deform, &probe(&surface.positions).1).unwrap();
    let loss =
        |sdf: &[f64], deform: &[DVec3]| probe(&tets::extract(lattice, sdf, deform).unwrap().positions).0;
    differences("sdf", &gradient.sdf, |i, h| {
        let mut s = sdf.clone();
        s[i] += h;
        loss(&s, &deform)
    });
    let flat: Vec<f64> = gradient.deform.iter().flat_map(DVec3::to_array).collect();
    differences("deform", &flat, |i, h| {
        let mut d = deform.clone();
        d[i / 3][i % 3] += h;
        loss(&sdf, &d)
    });
}

#[test]
fn flexicubes_gradients_are_those_of_finite_differences() {
    let lattice = Lattice::new(6).unwrap();
    let mut p = Parameters::new(lattice, bumpy(lattice));
    p.deform = vectors(5, lattice.len(), 0.5);
    let cells = flexi::extract(lattice, &p, Split::Middle).unwrap().cells;
    p.weights.keep(&cells);
    let rng = Rng::new(9, Stream::Probe, 2);
    for (r, row) in p.weights.rows.iter_mut().enumerate() {
        let draw = |i| 0.5 * f64::from(rng.normal((CellWeights::LEN * r + i) as u64));
        *row = CellWeights::from_array(&std::array::from_fn(draw));
    }
    let surface = flexi::extract(lattice, &p, Split::Middle).unwrap();
    assert_eq!(surface.cells, cells);
    let by_vertices = surface.backward(lattice, &p, &probe(&surface.positions).1).unwrap();
    let (_, by_deviation) = surface.deviation(lattice, &p).unwrap();
    type Value = fn(Lattice, &Parameters) -> f64;
    let losses: [(&flexi::Gradient, Value); 2] = [
        (&by_vertices, |l, q| probe(&flexi::extract(l, q, Split::Middle).unwrap().positions).0),
        (&by_deviation, |l, q| {
            let surface = flexi::extract(l, q, Split::Middle).unwrap();
            surface.deviation(l, q).unwrap().0
        }),
    ];
    for (g, value) in losses {
        let loss = |edit: &dyn Fn(&mut Parameters)| {
            let mut q = p.clone();
            edit(&mut q);
            value(lattice, &q)
        };
        differences("sdf", &g.sdf, |i, h| loss(&|q| q.sdf[i] += h));
        let flat: Vec<f64> = g.deform.iter().flat_map(DVec3::to_array).collect();
        differences("deform", &flat, |i, h| loss(&|q| q.deform[i / 3][i % 3] += h));
        let flat: Vec<f64> = g.rows.iter().flat_map(CellWeights::to_array).collect();
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
fn regularisers_gradients_and_zeros() {
    let lattice = Lattice::new(7).unwrap();
    let sdf = bumpy(lattice);
    let surface = tets::extract(lattice, &sdf, &vectors(5, lattice.len(), 0.5)).unwrap();
    type OnMesh = fn(&[DVec3], &[[u32; 3]]) -> regularize::Penalty<DVec3>;
    let on_mesh: [(&str, OnMesh); 2] =
        [("normals", regularize::normal_consistency), ("laplacian", regularize::laplacian)];
    for (name, penalty) in on_mesh {
        let flat: Vec<f64> = penalty(&surface.positions, &surface.triangles)
            .gradient
            .iter()
            .flat_map(DVec3::to_array)
            .collect();
        differences(name, &flat, |i, h| {
            let mut moved = surface.positions.clone();
            moved[i / 3][i % 3] += h;
            penalty(&moved, &surface.triangles).value
        });
    }
    type OnSdf = fn(Lattice, &[f64]) -> regularize::Penalty<f64>;
    let on_sdf: [(&str, OnSdf); 2] =
        [("signs", |l, s| regularize::sign_changes(l, s, 0.4)), ("eikonal", regularize::eikonal)];
    for (name, penalty) in on_sdf {
        differences(name, &penalty(lattice, &sdf).gradient, |i, h| {
            let mut moved = sdf.clone();
            moved[i] += h;
            penalty(lattice, &moved).value
        });
    }
    // A plane's distance is eikonal; a flat surface has one normal.
    let plane = values(lattice, |p| (p.dot(DVec3::new(2.0, -1.0, 2.0)) - 0.1) / 3.0);
    assert!(regularize::eikonal(lattice, &plane).value < 1e-20);
    let flat = tets::extract(lattice, &plane, &vec![DVec3::ZERO; lattice.len()]).unwrap();
    assert!(regularize::normal_consistency(&flat.positions, &flat.triangles).value < 1e-12);
}

#[test]
fn a_density_and_a_mesh_begin_where_they_are() {
    let lattice = Lattice::new(24).unwrap();
    let none = vec![DVec3::ZERO; lattice.len()];
    let sdf = init::from_density(lattice, &|p| p.iter().map(|p| 50.0 * (0.7 - p.length())).collect(), 5.0);
    assert!(sdf.iter().all(|s| (-1.0..=1.0).contains(s)));
    // The surface of density 5 has radius 0.6; the clamped steps leave it within a cell.
    let surface = tets::extract(lattice, &sdf, &none).unwrap();
    closed(&to_tri_mesh(&surface.positions, &surface.triangles));
    let off = surface.positions.iter().map(|p| (p.length() - 0.6).abs()).fold(0.0, f64::max);
    assert!(off < lattice.spacing(), "{off}");

    let mut block = cube();
    block.positions.iter_mut().for_each(|p| *p = (*p - 0.5) * 1.0);
    let exact = |p: DVec3| {
        let q = p.abs() - 0.5;
        -(q.max(DVec3::ZERO).length() + q.max_element().min(0.0))
    };
    for (i, d) in init::from_mesh(lattice, &block).into_iter().enumerate() {
        assert!((d - exact(lattice.base(i))).abs() < 1e-7, "{} {d}", lattice.base(i));
    }
    // A curved one, with an overlapping copy of itself: still one solid.
    let mut two = sphere(24, 0.5);
    let (n, copy) = (two.positions.len() as u32, two.clone());
    two.positions.extend(copy.positions.iter().map(|p| *p * 0.9));
    two.triangles.extend(copy.triangles.iter().map(|t| t.map(|v| v + n)));
    let distances = init::from_mesh(lattice, &two);
    let wrong = |i: &usize| {
        let r = lattice.base(*i).length();
        !(0.4..=0.52).contains(&r) && (distances[*i] > 0.0) != (r < 0.45)
    };
    assert_eq!((0..lattice.len()).filter(wrong).count(), 0);
}

/// A block, turned so that its edges lie along no axis of the lattice.
fn turned_block(p: DVec3) -> (f64, DVec3) {
    let turn = glam::DMat3::from_euler(glam::EulerRot::XYZ, 0.5, 0.3, 0.7);
    let local = turn.transpose() * p;
    let q = local.abs() - 0.55;
    let sign = DVec3::from_array(local.to_array().map(f64::signum));
    if q.max_element() > 0.0 {
        let out = q.max(DVec3::ZERO);
        return (out.length(), turn * (sign * out.normalize()));
    }
    let axis = (0..3).fold(0, |a, b| if q[b] > q[a] { b } else { a });
    (q[axis], turn * (sign * DVec3::AXES[axis]))
}

/// Mean squared distance of points of the mesh from the block, its gradient by the vertices, and the
/// root mean square.
fn block_loss(positions: &[DVec3], triangles: &[[u32; 3]]) -> (Vec<DVec3>, f64) {
    const WEIGHTS: [[f64; 3]; 4] =
        [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6], [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]];
    let mut gradient = vec![DVec3::ZERO; positions.len()];
    let scale = 1.0 / (4 * triangles.len()) as f64;
    let mut sum = 0.0;
    for t in triangles {
        for w in WEIGHTS {
            let p: DVec3 = (0..3).map(|k| w[k] * positions[t[k] as usize]).sum();
            let (d, slope) = turned_block(p);
            sum += scale * d * d;
            for k in 0..3 {
                gradient[t[k] as usize] += scale * 2.0 * d * w[k] * slope;
            }
        }
    }
    (gradient, sum.sqrt())
}

/// How far the block's edges are from the mesh, at worst, in the mean over the twelve edges.
fn edge_gap(mesh: &TriMesh) -> f64 {
    let turn = glam::DMat3::from_euler(glam::EulerRot::XYZ, 0.5, 0.3, 0.7);
    let mut sum = 0.0;
    let points: Vec<DVec3> = (0..12)
        .flat_map(|e| {
            let (axis, k) = (e / 4, e % 4);
            (0..9).map(move |i| {
                let mut p = DVec3::ZERO;
                p[axis] = 0.55 * (f64::from(i) / 4.0 - 1.0);
                p[(axis + 1) % 3] = if k & 1 == 0 { -0.55 } else { 0.55 };
                p[(axis + 2) % 3] = if k & 2 == 0 { -0.55 } else { 0.55 };
                turn * p
            })
        })
        .collect();
    for p in &points {
        sum += init::distance(mesh, *p);
    }
    sum / points.len() as f64
}

/// Adam on a flat vector.
struct Adam {
    m: Vec<f64>,
    v: Vec<f64>,
    t: i32,
}

impl Adam {
    fn new(n: usize) -> Self {
        Self { m: vec![0.0; n], v: vec![0.0; n], t: 0 }
    }

    fn step<'a>(&mut self, params: impl Iterator<Item = &'a mut f64>, grads: &[f64], rate: f64) {
        self.t += 1;
        let (c1, c2) = (1.0 - 0.9f64.powi(self.t), 1.0 - 0.99f64.powi(self.t));
        for (i, (p, g)) in params.zip(grads).enumerate() {
            self.m[i] = 0.9 * self.m[i] + 0.1 * g;
            self.v[i] = 0.99 * self.v[i] + 0.01 * g * g;
            *p -= rate * (self.m[i] / c1) / ((self.v[i] / c2).sqrt() + 1e-12);
        }
    }
}

#[test]
fn flexicubes_recover_sharp_edges_better_than_tetrahedra_and_marching_cubes() {
    const STEPS: i32 = 150;
    let lattice = Lattice::new(10).unwrap();
    let start = values(lattice, |p| -turned_block(p).0);
    let none = vec![DVec3::ZERO; lattice.len()];
    // Marching cubes of the exact distances.
    let grid = crate::mesh::testing::grid_of(10, |p| -turned_block(p.as_dvec3()).0 as f32);
    let marched = edge_gap(&crate::mesh::iso::extract(&grid, 0.0));

    let rate = |step: i32| 0.02 * (1.0 - f64::from(step) / f64::from(STEPS)).max(0.05);
    let (mut sdf, mut deform) = (start.clone(), none);
    let mut adam = Adam::new(4 * lattice.len());
    for step in 0..STEPS {
        let s = tets::extract(lattice, &sdf, &deform).unwrap();
        let g = s.backward(lattice, &sdf, &deform, &block_loss(&s.positions, &s.triangles).0).unwrap();
        let flat = [g.sdf, g.deform.iter().flat_map(DVec3::to_array).collect()].concat();
        let all = sdf.iter_mut().chain(deform.iter_mut().flat_map(AsMut::<[f64; 3]>::as_mut));
        adam.step(all, &flat, rate(step));
    }
    let tetrahedra = edge_gap(&of_tets(lattice, &sdf, &deform));

    let mut p = Parameters::new(lattice, start);
    let all: Vec<u32> = (0..lattice.cells().pow(3) as u32).collect();
    p.weights.keep(&all);
    let mut adam = Adam::new(4 * p.sdf.len() + CellWeights::LEN * all.len());
    for step in 0..STEPS {
        let s = flexi::extract(lattice, &p, Split::Middle).unwrap();
        let g = s.backward(lattice, &p, &block_loss(&s.positions, &s.triangles).0).unwrap();
        let deform: Vec<f64> = g.deform.iter().flat_map(DVec3::to_array).collect();
        let mut rows = vec![0.0; CellWeights::LEN * all.len()];
        for (cell, row) in s.cells.iter().zip(&g.rows) {
            let at = CellWeights::LEN * *cell as usize;
            rows[at..at + CellWeights::LEN].copy_from_slice(&row.to_array());
        }
        let mut weights: Vec<f64> = p.weights.rows.iter().flat_map(CellWeights::to_array).collect();
        let all = (p.sdf.iter_mut())
            .chain(p.deform.iter_mut().flat_map(AsMut::<[f64; 3]>::as_mut))
            .chain(&mut weights);
        adam.step(all, &[&g.sdf[..], &deform, &rows].concat(), rate(step));
        for (row, x) in p.weights.rows.iter_mut().zip(weights.as_chunks().0) {
            *row = CellWeights::from_array(x);
        }
    }
    let mesh = of_flexi(lattice, &p, Split::Diagonal);
    closed(&mesh);
    let flexible = edge_gap(&mesh);
    eprintln!(
        "distance of the edges: marching {marched:.4}, tetrahedra {tetrahedra:.4}, flexi {flexible:.4}"
    );
    assert!(flexible < 0.5 * tetrahedra && flexible < 0.25 * marched, "{marched} {tetrahedra} {flexible}");
}
