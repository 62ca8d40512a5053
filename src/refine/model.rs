//! The numbers that make a surface, and their optimiser.

use std::collections::BTreeMap;

use bytemuck::cast_slice;
use glam::DVec3;

use super::adam::{Moments, Pace};
use super::settings::Extractor;
use crate::mesh::TriMesh;
use crate::mesh::implicit::flexi::{self, Gradient, Parameters, Split};
use crate::mesh::implicit::weights::CellWeights;
use crate::mesh::implicit::{Lattice, init, tets, to_tri_mesh};
use crate::{Error, Result};

/// Numbers of a cell's weights.
const ROW: usize = CellWeights::LEN;

/// A surface on a lattice over [−1, 1]³.
#[derive(Debug, Clone)]
pub struct SurfaceModel {
    pub(super) lattice: Lattice,
    pub(super) extractor: Extractor,
    /// Every number is one of single precision.
    pub(super) parameters: Parameters,
    sdf: Moments,
    deform: Moments,
    rows: Moments,
    steps: u32,
}

/// Triangles, and the way back to the numbers they came from.
#[derive(Debug, Clone)]
pub enum Extracted {
    /// By tetrahedra.
    Tets(tets::Surface),
    /// By FlexiCubes.
    Flexi(flexi::Surface),
}

impl Extracted {
    /// Vertices.
    pub fn positions(&self) -> &[DVec3] {
        match self {
            Self::Tets(s) => &s.positions,
            Self::Flexi(s) => &s.positions,
        }
    }

    /// Counter-clockwise seen from outside.
    pub fn triangles(&self) -> &[[u32; 3]] {
        match self {
            Self::Tets(s) => &s.triangles,
            Self::Flexi(s) => &s.triangles,
        }
    }
}

/// Learning rates of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of the signed distances.
    pub sdf: f32,
    /// Of the raw deformation.
    pub deform: f32,
    /// Of the raw weights.
    pub weights: f32,
}

impl SurfaceModel {
    /// A model that begins as `mesh`, closed and inside the box: distances to it, nothing deformed, neutral
    /// weights.
    ///
    /// Magic3D begins with the density above its threshold, clamped to ±1. A density is steep, and Adam moves
    /// every number equally far, so distances move a surface evenly and such values do not.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a resolution out of range, [`Error::Failed`] for a mesh between all points.
    pub fn from_mesh(resolution: usize, extractor: Extractor, mesh: &TriMesh) -> Result<Self> {
        let lattice = Lattice::new(resolution)?;
        Self::of(lattice, extractor, init::from_mesh(lattice, mesh))
    }

    /// A model that begins with given signed distances, positive inside.
    ///
    /// # Errors
    /// As [`SurfaceModel::from_mesh`].
    pub fn from_distances(
        resolution: usize,
        extractor: Extractor,
        distance: &dyn Fn(DVec3) -> f64,
    ) -> Result<Self> {
        let lattice = Lattice::new(resolution)?;
        Self::of(lattice, extractor, (0..lattice.len()).map(|i| distance(lattice.base(i))).collect())
    }

    fn of(lattice: Lattice, extractor: Extractor, mut sdf: Vec<f64>) -> Result<Self> {
        for (i, d) in sdf.iter_mut().enumerate() {
            let outside = init::on_hull(lattice, i) || !d.is_finite();
            *d = f64::from(if outside { -d.abs().clamp(1e-3, 4.0) } else { *d } as f32);
        }
        if !sdf.iter().any(|d| *d > 0.0) {
            let cells = lattice.cells();
            let text = format!("no point of a lattice of {cells} cells a side is inside of the surface");
            return Err(Error::Failed(text).hint("a higher refine.resolution resolves thinner things"));
        }
        Ok(Self {
            sdf: Moments::new(sdf.len()),
            deform: Moments::new(3 * sdf.len()),
            rows: Moments::default(),
            parameters: Parameters::new(lattice, sdf),
            lattice,
            extractor,
            steps: 0,
        })
    }

    /// Cells along a side.
    pub fn resolution(&self) -> usize {
        self.lattice.cells()
    }

    /// The surface as it is optimised.
    ///
    /// # Errors
    /// [`Error::Failed`] if nothing is left of it.
    pub fn extract(&self) -> Result<Extracted> {
        self.extract_as(Split::Middle)
    }

    fn extract_as(&self, split: Split) -> Result<Extracted> {
        let p = &self.parameters;
        let found = match self.extractor {
            Extractor::Dmtet => Extracted::Tets(tets::extract(self.lattice, &p.sdf, &p.deform)?),
            Extractor::Flexicubes => Extracted::Flexi(flexi::extract(self.lattice, p, split)?),
        };
        if found.triangles().is_empty() {
            return Err(Error::Failed("nothing is left of the surface".into())
                .hint("lower refine.lr_sdf or refine.regularize.sign_changes, or another --seed"));
        }
        Ok(found)
    }

    /// The surface as a product: no more triangles than it needs.
    ///
    /// # Errors
    /// As [`SurfaceModel::extract`].
    pub fn mesh(&self) -> Result<TriMesh> {
        let found = self.extract_as(Split::Diagonal)?;
        Ok(to_tri_mesh(found.positions(), found.triangles()))
    }

    /// The gradient by the numbers from the one by the vertices of `surface`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if lengths do not fit.
    pub fn backward(&self, surface: &Extracted, by_positions: &[DVec3]) -> Result<Gradient> {
        let p = &self.parameters;
        match surface {
            Extracted::Flexi(s) => s.backward(self.lattice, p, by_positions),
            Extracted::Tets(s) => {
                let tets::Gradient { sdf, deform } =
                    s.backward(self.lattice, &p.sdf, &p.deform, by_positions)?;
                Ok(Gradient { sdf, deform, rows: Vec::new() })
            }
        }
    }

    /// One step of Adam along `gradient` of `surface`. The lattice's hull stays outside, so the surface stays
    /// closed.
    pub fn step(&mut self, surface: &Extracted, gradient: &mut Gradient, rates: Rates) {
        self.steps += 1;
        let p = &mut self.parameters;
        hull(self.lattice).for_each(|i| gradient.sdf[i] = 0.0);
        let pace = Pace::new(rates.sdf, self.steps, &gradient.sdf, &mut self.sdf);
        pace.apply(&mut p.sdf, &gradient.sdf, &mut self.sdf);
        let (deform, by) = (flat_mut(&mut p.deform), flat(&gradient.deform));
        Pace::new(rates.deform, self.steps, by, &mut self.deform).apply(deform, by, &mut self.deform);
        let Extracted::Flexi(surface) = surface else { return };
        let rows: Vec<f64> = gradient.rows.iter().flat_map(CellWeights::to_array).collect();
        let pace = Pace::new(rates.weights, self.steps, &rows, &mut self.rows);
        let places = p.weights.keep(&surface.cells);
        self.rows.grow(ROW * p.weights.rows.len());
        for (place, g) in places.into_iter().zip(&gradient.rows) {
            let row = &mut p.weights.rows[place as usize];
            let (mut x, g, at) = (row.to_array(), g.to_array(), ROW * place as usize);
            for (i, (x, g)) in x.iter_mut().zip(g).enumerate() {
                pace.update(x, g, &mut self.rows.m[at + i], &mut self.rows.v[at + i]);
            }
            *row = CellWeights::from_array(&x);
        }
    }

    /// Everything of the model as named tensors; all numbers are exact in single precision.
    pub fn state(&self) -> BTreeMap<String, Vec<f32>> {
        let p = &self.parameters;
        let rows = p.weights.rows.iter().flat_map(CellWeights::to_array);
        let mut out = BTreeMap::from([
            ("sdf".to_owned(), narrow(p.sdf.iter().copied())),
            ("deform".to_owned(), narrow(flat(&p.deform).iter().copied())),
            ("weights".to_owned(), narrow(rows)),
            // Exact: there are fewer than 2²⁴ cells.
            ("cells".to_owned(), p.weights.cells().iter().map(|c| *c as f32).collect()),
            ("progress".to_owned(), vec![self.lattice.cells() as f32, self.steps as f32]),
            ("adam_all".to_owned(), vec![self.sdf.all, self.deform.all, self.rows.all]),
        ]);
        for (name, moments) in [("sdf", &self.sdf), ("deform", &self.deform), ("weights", &self.rows)] {
            out.insert(format!("{name}.adam_m"), moments.m.clone());
            out.insert(format!("{name}.adam_v"), moments.v.clone());
        }
        out
    }

    /// A model from [`SurfaceModel::state`]; it goes on bit for bit.
    ///
    /// # Errors
    /// [`Error::Invalid`] if something is missing, has the wrong length or is not finite.
    pub fn from_state(extractor: Extractor, state: &BTreeMap<String, Vec<f32>>) -> Result<Self> {
        let damaged = |reason: String| Error::invalid("checkpoint", format!("the surface: {reason}"));
        let take = |name: &str, len: Option<usize>| -> Result<Vec<f32>> {
            let x = state.get(name).ok_or_else(|| damaged(format!("there is no {name}")))?;
            if len.is_some_and(|len| x.len() != len) || !x.iter().all(|x| x.is_finite()) {
                return Err(damaged(format!("{name} has a wrong length or is not finite")));
            }
            Ok(x.clone())
        };
        let wide = |x: Vec<f32>| x.into_iter().map(f64::from).collect::<Vec<f64>>();
        let progress = take("progress", Some(2))?;
        let lattice = Lattice::new(progress[0] as usize)?;
        let cells: Vec<u32> = take("cells", None)?.into_iter().map(|c| c as u32).collect();
        let all = take("adam_all", Some(3))?;
        let moments = |name: &str, len: usize, all: f32| -> Result<Moments> {
            let part = |which: &str| take(&format!("{name}.adam_{which}"), Some(len));
            Ok(Moments { m: part("m")?, v: part("v")?, all })
        };
        let mut parameters = Parameters::new(lattice, wide(take("sdf", Some(lattice.len()))?));
        let deform = wide(take("deform", Some(3 * lattice.len()))?);
        parameters.deform = deform.as_chunks::<3>().0.iter().map(|d| DVec3::from_array(*d)).collect();
        let rows = wide(take("weights", Some(ROW * cells.len()))?);
        if parameters.weights.keep(&cells) != (0..cells.len() as u32).collect::<Vec<_>>() {
            return Err(damaged("its cells are not those of the lattice".into()));
        }
        parameters.weights.rows = rows.as_chunks::<ROW>().0.iter().map(CellWeights::from_array).collect();
        Ok(Self {
            sdf: moments("sdf", lattice.len(), all[0])?,
            deform: moments("deform", 3 * lattice.len(), all[1])?,
            rows: moments("weights", ROW * cells.len(), all[2])?,
            parameters,
            lattice,
            extractor,
            steps: progress[1] as u32,
        })
    }

    /// Bytes of a model and one step's gradient, before anything is allocated.
    pub fn memory(resolution: usize) -> u64 {
        let points = (resolution as u64 + 1).pow(3);
        // Values and gradients in double precision, moments; seven edges a point; six faces' cells, rows of 21.
        let surface = 12 * (resolution as u64).pow(2);
        points * (4 * 8 * 2 + 4 * 4 * 2 + 7 * 4 + 4) + surface * (21 * 8 * 4 + 600)
    }
}

fn flat(x: &[DVec3]) -> &[f64] {
    cast_slice(x)
}

fn flat_mut(x: &mut [DVec3]) -> &mut [f64] {
    bytemuck::cast_slice_mut(x)
}

fn narrow(x: impl Iterator<Item = f64>) -> Vec<f32> {
    x.map(|x| x as f32).collect()
}

/// The points of the lattice's six sides.
fn hull(lattice: Lattice) -> impl Iterator<Item = usize> {
    let n = lattice.cells();
    let sides = [0, n];
    let (rows, all) = (1..n, 0..=n);
    let ends = all.clone().flat_map(move |a| {
        all.clone().flat_map(move |b| sides.into_iter().flat_map(move |s| [[a, b, s], [a, s, b]]))
    });
    let fronts = rows.clone().flat_map(move |a| rows.clone().flat_map(move |b| sides.map(|s| [s, a, b])));
    ends.chain(fronts).map(move |at| lattice.index(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hull_is_all_that_is_on_it() {
        let lattice = Lattice::new(5).unwrap();
        let mut on = vec![false; lattice.len()];
        hull(lattice).for_each(|i| on[i] = true);
        assert!((0..lattice.len()).all(|i| on[i] == init::on_hull(lattice, i)));
    }
}
