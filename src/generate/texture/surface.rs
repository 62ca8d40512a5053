//! The surface that is painted: in the prior's box, and with vertices as dense as the prior sees pixels.

use std::collections::HashMap;

use glam::Vec3;

use crate::asset::Asset;
use crate::render::surface::Topology;
use crate::{Error, Result};

/// Largest side of the model in world units: what the prior's training pictures have.
pub(super) const LARGEST_SIDE: f32 = 1.2;
/// More vertices than this are not made: the edges stay longer.
const MOST: usize = 120_000;

/// From the model's own space into the box around the origin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    center: Vec3,
    scale: f32,
}

impl Placement {
    /// # Errors
    /// [`Error::Invalid`] if the model has no extent.
    pub(super) fn of(asset: &Asset) -> Result<Self> {
        let (low, high) = asset.bounds().unwrap_or_default();
        let extent = (high - low).max_element();
        if !(extent > 0.0 && extent.is_finite()) {
            return Err(Error::invalid("the model", "has no extent").hint("is there anything in it?"));
        }
        Ok(Self { center: 0.5 * (low + high), scale: LARGEST_SIDE / extent })
    }

    pub(super) fn place(&self, p: Vec3) -> Vec3 {
        (p - self.center) * self.scale
    }
}

/// Vertices to be coloured, and the closed surface they lie on.
pub(super) struct Surface {
    /// Of the vertices that are coloured; where normals differ there are several in one place.
    pub(super) positions: Vec<Vec3>,
    /// Unit.
    pub(super) normals: Vec<Vec3>,
    /// `[places, 3]`: each place once.
    pub(super) places: Vec<f32>,
    pub(super) topology: Topology,
}

impl Surface {
    /// The asset in the box, with edges of at most `edge` (as far as there are not too many).
    pub(super) fn new(asset: &Asset, placement: &Placement, edge: f32) -> Result<Self> {
        let mut fine = Refined::of(asset, placement);
        while fine.triangles.len() < 2 * MOST && fine.split(edge) {}
        let (mut numbers, mut places) = (HashMap::new(), Vec::new());
        let welded: Vec<u32> = fine
            .positions
            .iter()
            .map(|p| {
                // Zeros have two signs.
                let key = (*p + Vec3::ZERO).to_array().map(f32::to_bits);
                *numbers.entry(key).or_insert_with(|| {
                    places.extend(p.to_array());
                    (places.len() / 3 - 1) as u32
                })
            })
            .collect();
        let whole: Vec<[u32; 3]> = fine.triangles.iter().map(|t| t.map(|i| welded[i as usize])).collect();
        let topology = Topology::with_seams(places.len() / 3, &whole, fine.positions.len(), &fine.triangles)?;
        Ok(Self { positions: fine.positions, normals: fine.normals, places, topology })
    }
}

/// A mesh whose long edges are split. An edge is split (or not) by its length alone, the same on both
/// sides, so no gaps open.
struct Refined {
    positions: Vec<Vec3>,
    normals: Vec<Vec3>,
    triangles: Vec<[u32; 3]>,
}

impl Refined {
    fn of(asset: &Asset, placement: &Placement) -> Self {
        let mut all = Self { positions: Vec::new(), normals: Vec::new(), triangles: Vec::new() };
        for mesh in &asset.meshes {
            let first = all.positions.len() as u32;
            all.positions.extend(mesh.positions.iter().map(|p| placement.place(*p)));
            all.normals
                .extend((0..mesh.positions.len()).map(|i| mesh.normals.get(i).copied().unwrap_or(Vec3::Y)));
            all.triangles.extend(mesh.triangles.iter().map(|t| t.map(|i| i + first)));
        }
        all
    }

    /// Splits every edge longer than `edge` in the middle; false if there was none.
    fn split(&mut self, edge: f32) -> bool {
        let mut middles: HashMap<(u32, u32), u32> = HashMap::new();
        let old = std::mem::take(&mut self.triangles);
        let mut changed = false;
        for [a, b, c] in old {
            let [ab, bc, ca] = [(a, b), (b, c), (c, a)].map(|(i, j)| self.middle(i, j, edge, &mut middles));
            changed |= ab.is_some() || bc.is_some() || ca.is_some();
            match [ab, bc, ca] {
                [None, None, None] => self.triangles.push([a, b, c]),
                [Some(m), None, None] => self.triangles.extend([[a, m, c], [m, b, c]]),
                [None, Some(m), None] => self.triangles.extend([[a, b, m], [a, m, c]]),
                [None, None, Some(m)] => self.triangles.extend([[a, b, m], [m, b, c]]),
                [Some(m), Some(n), None] => self.triangles.extend([[m, b, n], [a, m, n], [a, n, c]]),
                [None, Some(m), Some(n)] => self.triangles.extend([[m, c, n], [b, m, n], [b, n, a]]),
                [Some(m), None, Some(n)] => self.triangles.extend([[n, a, m], [c, n, m], [c, m, b]]),
                [Some(m), Some(n), Some(o)] => {
                    self.triangles.extend([[a, m, o], [m, b, n], [o, n, c], [m, n, o]]);
                }
            }
        }
        changed
    }

    fn middle(&mut self, i: u32, j: u32, edge: f32, known: &mut HashMap<(u32, u32), u32>) -> Option<u32> {
        let (p, q) = (self.positions[i as usize], self.positions[j as usize]);
        if p.distance(q) <= edge {
            return None;
        }
        Some(*known.entry((i.min(j), i.max(j))).or_insert_with(|| {
            self.positions.push(0.5 * (p + q));
            let normal = self.normals[i as usize] + self.normals[j as usize];
            self.normals.push(normal.normalize_or(self.normals[i as usize]));
            self.positions.len() as u32 - 1
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asset::Mesh;

    /// A box with a normal a side: each corner is there three times.
    fn cuboid() -> Asset {
        let mut mesh = Mesh::default();
        for axis in [Vec3::X, Vec3::Y, Vec3::Z] {
            for normal in [axis, -axis] {
                let right = Vec3::new(normal.z, normal.x, normal.y).abs();
                let up = normal.cross(right);
                let first = mesh.positions.len() as u32;
                for (x, y) in [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)] {
                    mesh.positions.push(5.0 + normal + right * x + up * y);
                    mesh.normals.push(normal);
                }
                mesh.triangles.extend([[first, first + 1, first + 2], [first, first + 2, first + 3]]);
            }
        }
        Asset { meshes: vec![mesh], ..Asset::default() }
    }

    #[test]
    fn a_box_is_refined_without_gaps_and_keeps_its_creases() {
        let asset = cuboid();
        let placement = Placement::of(&asset).unwrap();
        let surface = Surface::new(&asset, &placement, 0.13).unwrap();
        let (low, high) =
            surface.positions.iter().fold((Vec3::MAX, Vec3::MIN), |(l, h), p| (l.min(*p), h.max(*p)));
        assert!((high - low - LARGEST_SIDE).length() < 1e-5 && (high + low).length() < 1e-5);
        // Closed: every edge has a neighbour; one piece: V − E + F = 2.
        let triangles = surface.topology.triangles();
        let none = crate::gpu::kernels::NO_VERTEX;
        assert!(surface.topology.opposite().iter().flatten().all(|v| *v != none));
        let (v, f) = (surface.topology.vertices() as i64, triangles.len() as i64);
        assert_eq!(v - 3 * f / 2 + f, 2);
        assert!(surface.topology.attributes() > surface.topology.vertices());
        for normal in &surface.normals {
            assert!((normal.abs().max_element() - 1.0).abs() < 1e-6, "{normal} is between two sides");
        }
        for t in triangles {
            let [a, b, c] = t.map(|i| Vec3::from_slice(&surface.places[3 * i as usize..]));
            assert!(a.distance(b).max(b.distance(c)).max(c.distance(a)) <= 0.13);
            // Still seen from outside.
            assert!((b - a).cross(c - a).dot(a + b + c) > 0.0);
        }
    }

    #[test]
    fn a_point_cannot_be_painted() {
        let mesh = Mesh { positions: vec![Vec3::ONE; 3], triangles: vec![[0, 1, 2]], ..Mesh::default() };
        assert!(Placement::of(&Asset { meshes: vec![mesh], ..Asset::default() }).is_err());
    }
}
