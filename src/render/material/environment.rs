//! Light from all around, prepared for the split sum: blurred for each roughness, and for matte surfaces.

use glam::DVec3;

use super::cube::Cube;
use super::scalar::{Scalar, V3};

/// Texels along a side of the sharpest cube.
const SIDE: usize = 128;
/// Roughness of each blurred cube, its side, and how often the sharp one is halved before it is summed.
const LEVELS: [(f64, usize, u32); 5] = [(0.2, 40, 1), (0.4, 32, 2), (0.6, 16, 2), (0.8, 16, 2), (1.0, 16, 3)];

/// An environment at infinity. Radiances are linear and relative: a white matte surface under constant
/// light of 1 comes out as 1.
#[derive(Debug, Clone)]
pub struct Environment {
    sharp: Cube,
    /// By roughness, from 0.2 on.
    blurred: Vec<(f64, Cube)>,
    /// Irradiance over π.
    matte: Cube,
}

impl Environment {
    /// Prepares light given as radiance by unit direction (y up).
    pub fn new(radiance: impl Fn(DVec3) -> DVec3 + Sync) -> Self {
        let sharp = Cube::new(SIDE, |d| radiance(d).to_array());
        let mut coarser = vec![sharp.clone()];
        while coarser.len() < 4 {
            coarser.extend(coarser.last().map(Cube::halved));
        }
        let blurred = LEVELS
            .iter()
            .map(|&(roughness, side, source)| {
                (roughness, Cube::blurred(&coarser[source as usize], side, lobe(roughness)))
            })
            .collect();
        let matte = Cube::blurred(&coarser[2], 16, |cosine| cosine);
        Self { sharp, blurred, matte }
    }

    /// Even light from everywhere.
    pub fn constant(light: DVec3) -> Self {
        let cube = |side| Cube::new(side, |_| light.to_array());
        let blurred = LEVELS.iter().map(|l| (l.0, cube(2))).collect();
        Self { sharp: cube(2), blurred, matte: cube(2) }
    }

    /// Radiance in a direction, as a mirror shows it.
    pub fn radiance(&self, d: DVec3) -> DVec3 {
        DVec3::from_array(self.sharp.sample(d.to_array()))
    }

    /// Light around `r` as microfacets of this roughness gather it (weights D(h) (n·l) with
    /// n = v = r), linear between the levels.
    pub(super) fn specular<T: Scalar>(&self, r: V3<T>, roughness: T) -> V3<T> {
        let roughness = roughness.at_least(0.0).at_most(1.0);
        let above = self.blurred.iter().position(|l| l.0 >= roughness.value()).unwrap_or(0);
        let (low, sharper) = match above.checked_sub(1) {
            None => (0.0, &self.sharp),
            Some(below) => (self.blurred[below].0, &self.blurred[below].1),
        };
        let (high, rougher) = &self.blurred[above];
        let share = (roughness - low) * (1.0 / (high - low));
        let (a, b) = (sharper.sample(r), rougher.sample(r));
        std::array::from_fn(|c| a[c].lerp(b[c], share))
    }

    /// Irradiance over π of a surface with normal `n`.
    pub(super) fn irradiance<T: Scalar>(&self, n: V3<T>) -> V3<T> {
        self.matte.sample(n)
    }
}

/// D(h) (n·l) as a function of n·l for n = v: cos²θ_h = (1 + n·l) / 2.
fn lobe(roughness: f64) -> impl Fn(f64) -> f64 + Sync {
    let a2 = (roughness * roughness).powi(2);
    move |cosine: f64| {
        let t = 0.5 * (1.0 + cosine) * (a2 - 1.0) + 1.0;
        cosine * a2 / (t * t)
    }
}
