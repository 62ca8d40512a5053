//! UV charts: segmentation, flattening and packing (crate `uvunwrap`), brought to one square page.

use glam::Vec2;

use super::TriMesh;
use crate::{Error, Result};

/// The unwrapped surface: vertices on chart seams appear once per chart.
#[derive(Debug, Clone)]
pub struct Unwrapped {
    /// Vertex of the unwrapped mesh → vertex of the input mesh.
    pub source: Vec<u32>,
    /// Texture coordinates in [0, 1]², origin at the picture's top left.
    pub uvs: Vec<Vec2>,
    /// The input's triangles, in the input's order, over the new vertices.
    pub triangles: Vec<[u32; 3]>,
    /// Chart of each vertex.
    pub charts: Vec<u32>,
    /// Number of charts.
    pub chart_count: u32,
    /// Share of the page that is covered by charts.
    pub utilization: f32,
}

/// Unwraps `mesh` for a square texture of `size` texels. Charts stay `2·padding` texels apart and
/// `padding` texels from the picture's border.
///
/// # Errors
/// [`Error::Failed`] when the charts do not fit one page even with a single texel of padding.
pub fn unwrap(mesh: &TriMesh, size: u32, padding: u32) -> Result<Unwrapped> {
    let positions: Vec<[f32; 3]> = mesh.positions.iter().map(|p| p.to_array()).collect();
    let input = uvunwrap::MeshInput::new(&positions, mesh.triangles.as_flattened());
    let mut padding = padding;
    loop {
        let options = uvunwrap::Options {
            density: uvunwrap::Density::Auto { page_size: size },
            padding,
            ..Default::default()
        };
        let atlas = uvunwrap::generate(&[input], &options)
            .map_err(|e| Error::Failed(format!("the surface cannot be unwrapped: {e}")))?;
        if atlas.page_count == 1 {
            return Ok(single_page(&atlas, size));
        }
        if padding <= 1 {
            let charts = atlas.chart_count;
            return Err(Error::Failed(format!("{charts} charts do not fit a texture of {size} texels"))
                .hint("use a larger texture or fewer triangles"));
        }
        padding /= 2;
    }
}

/// The unwrapper crops the page to the rows in use; a square texture keeps them all.
fn single_page(atlas: &uvunwrap::Atlas, size: u32) -> Unwrapped {
    let page = &atlas.meshes[0];
    let stretch = Vec2::new(atlas.width as f32, atlas.height as f32) / size as f32;
    Unwrapped {
        source: page.vertices.iter().map(|v| v.xref).collect(),
        uvs: page
            .vertices
            .iter()
            .map(|v| (Vec2::from(v.uv) * stretch).clamp(Vec2::ZERO, Vec2::ONE))
            .collect(),
        triangles: page.indices.as_chunks::<3>().0.to_vec(),
        charts: page.vertices.iter().map(|v| v.chart.unwrap_or(0)).collect(),
        chart_count: atlas.chart_count,
        utilization: atlas.utilization * stretch.x * stretch.y,
    }
}

impl Unwrapped {
    /// Renumbers triangles and vertices for the GPU's vertex cache and fetch order. The
    /// surface is the same.
    pub fn optimize_order(&mut self) {
        let indices = meshopt::optimize_vertex_cache(self.triangles.as_flattened(), self.source.len());
        let remap = meshopt::optimize_vertex_fetch_remap(&indices, self.source.len());
        let used = remap.iter().filter(|r| **r != u32::MAX).count();
        self.triangles = indices.as_chunks::<3>().0.iter().map(|t| t.map(|v| remap[v as usize])).collect();
        self.source = permuted(&self.source, &remap, used);
        self.uvs = permuted(&self.uvs, &remap, used);
        self.charts = permuted(&self.charts, &remap, used);
    }
}

/// `values[i]` at place `remap[i]`; values mapped to `u32::MAX` go.
fn permuted<T: Copy + Default>(values: &[T], remap: &[u32], used: usize) -> Vec<T> {
    let mut out = vec![T::default(); used];
    for (value, &to) in values.iter().zip(remap) {
        if to != u32::MAX {
            out[to as usize] = *value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use glam::Vec3;

    use super::*;
    use crate::mesh::clean::{keep_solids, remove_slivers};
    use crate::mesh::iso::extract;
    use crate::mesh::simplify::simplify;
    use crate::mesh::testing::{grid_of, sphere};

    /// A body with limbs, grooves and bumps: 20,000 triangles.
    fn creature() -> TriMesh {
        let grid = grid_of(96, |p| {
            let body = 0.45 - (p * Vec3::new(1.0, 1.3, 0.8)).length();
            let head = 0.25 - (p - Vec3::new(0.0, 0.45, 0.3)).length();
            let leg = |x: f32| 0.06 - (p - Vec3::new(x, p.y.clamp(-0.8, 0.0), 0.1)).length();
            let bumps = 0.015 * (25.0 * p.x).sin() * (25.0 * p.y).sin() * (25.0 * p.z).cos();
            body.max(head).max(leg(0.2)).max(leg(-0.2)) + bumps
        });
        let mut mesh = extract(&grid, 0.0);
        keep_solids(&mut mesh, 0.02);
        remove_slivers(&mut mesh, 0.1 * grid.spacing);
        simplify(&mesh, 20_000)
    }

    fn contains([a, b, c]: [Vec2; 3], p: Vec2) -> bool {
        let side = |a: Vec2, b: Vec2| (b - a).perp_dot(p - a);
        side(a, b) > 1e-7 && side(b, c) > 1e-7 && side(c, a) > 1e-7
    }

    /// Per texel: how many triangles contain its centre (strictly), and the chart of one.
    fn coverage(u: &Unwrapped, size: usize) -> Vec<(u32, u32)> {
        let mut cover = vec![(0, u32::MAX); size * size];
        for t in &u.triangles {
            let uv = t.map(|v| u.uvs[v as usize]);
            let (low, high) = (uv[0].min(uv[1]).min(uv[2]), uv[0].max(uv[1]).max(uv[2]));
            let (low, high) = ((low * size as f32).as_ivec2(), (high * size as f32).as_ivec2());
            for y in low.y..=high.y.min(size as i32 - 1) {
                for x in low.x..=high.x.min(size as i32 - 1) {
                    if contains(uv, (Vec2::new(x as f32, y as f32) + 0.5) / size as f32) {
                        let texel = &mut cover[y as usize * size + x as usize];
                        *texel = (texel.0 + 1, u.charts[t[0] as usize]);
                    }
                }
            }
        }
        cover
    }

    /// The smallest distance (in texels, Chebyshev) between texels of different charts, up to `reach`.
    fn gap(cover: &[(u32, u32)], size: usize, reach: i32) -> i32 {
        let at = |x: i32, y: i32| {
            let inside = (0..size as i32).contains(&x) && (0..size as i32).contains(&y);
            if inside { cover[y as usize * size + x as usize].1 } else { u32::MAX }
        };
        let mut smallest = reach + 1;
        for y in 0..size as i32 {
            for x in 0..size as i32 {
                let own = at(x, y);
                if own == u32::MAX {
                    continue;
                }
                for dy in -reach..=reach {
                    for dx in -reach..=reach {
                        let other = at(x + dx, y + dy);
                        if other != own && other != u32::MAX {
                            smallest = smallest.min(dx.abs().max(dy.abs()));
                        }
                    }
                }
            }
        }
        smallest
    }

    #[test]
    fn twenty_thousand_triangles_without_overlap_in_seconds() {
        let mesh = creature();
        let start = Instant::now();
        let mut u = unwrap(&mesh, 1024, 4).unwrap();
        assert!(start.elapsed().as_secs_f32() < 10.0, "{:?}", start.elapsed());
        assert_eq!(u.triangles.len(), mesh.triangles.len());
        // Order and corners as in the input.
        for (a, b) in mesh.triangles.iter().zip(&u.triangles) {
            assert_eq!(*a, b.map(|v| u.source[v as usize]));
        }
        u.optimize_order();
        assert!(u.uvs.iter().all(|p| p.cmpge(Vec2::ZERO).all() && p.cmple(Vec2::ONE).all()));
        let cover = coverage(&u, 2048);
        assert_eq!(cover.iter().filter(|c| c.0 > 1).count(), 0);
        let share = cover.iter().filter(|c| c.0 == 1).count() as f32 / cover.len() as f32;
        assert!((share - u.utilization).abs() < 0.03, "{share} {}", u.utilization);
        assert!(share > 0.4, "{share}");
        // Padding 4 keeps texels of different charts at least eight apart: four for each.
        assert!(gap(&coverage(&u, 1024), 1024, 7) > 7);
    }

    #[test]
    fn a_page_that_is_too_small_for_its_padding_still_gets_a_single_page_or_a_hint() {
        let mesh = simplify(&sphere(24, 0.7), 500);
        let u = unwrap(&mesh, 64, 4).unwrap();
        assert!(u.uvs.iter().all(|p| p.max_element() <= 1.0));
        let error = unwrap(&mesh, 6, 2).unwrap_err();
        assert!(error.to_string().contains("texture") || error.to_string().contains("unwrapped"), "{error}");
    }

    #[test]
    fn the_same_bytes_at_one_and_two_threads() {
        let mesh = simplify(&sphere(48, 0.7), 4_000);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| unwrap(&mesh, 512, 4).unwrap())
        };
        let (one, two) = (with(1), with(2));
        assert_eq!(one.uvs, two.uvs);
        assert_eq!(one.triangles, two.triangles);
    }
}
