//! Baking the field's colour into a base-colour texture.

use glam::{Vec2, Vec3};
use image::{Rgba, RgbaImage};

use super::{CHUNK, ColorFn, DensityFn, fill};
use crate::Result;
use crate::render::color::linear_to_srgb8;

/// An unwrapped surface in the field's space.
#[derive(Debug, Clone, Copy)]
pub struct Surface<'a> {
    /// Vertices, world units of the field.
    pub positions: &'a [Vec3],
    /// Unit normals.
    pub normals: &'a [Vec3],
    /// Texture coordinates, origin top left.
    pub uvs: &'a [Vec2],
    /// Triangles over the three lists.
    pub triangles: &'a [[u32; 3]],
}

/// How to look up the colour of a surface point.
#[derive(Debug, Clone, Copy)]
pub struct BakeOptions {
    /// Texture side in texels.
    pub size: u32,
    /// 1: the colour at the point itself. More: that many samples along the normal, composited
    /// like a volume rendering from outside, which is what the optimisation has seen.
    pub samples: usize,
    /// How far outside the surface the samples start, world units.
    pub outside: f32,
    /// How far inside they end.
    pub inside: f32,
    /// Texels around each chart that take colours from it before the rest is filled in.
    pub rings: usize,
}

/// Texels whose centre is at most this far (in texels) from a triangle get their own colour, from
/// the nearest point of the surface: bilinear filtering reads them at the seams.
pub(super) const SKIRT: f32 = 1.5;

/// Where a texel lies on the surface.
#[derive(Clone, Copy)]
pub(super) struct Hit {
    pub(super) distance: f32,
    pub(super) triangle: u32,
    /// Barycentric coordinates of the second and third corner.
    pub(super) weights: Vec2,
}

/// The opaque sRGB base-colour texture; texels outside the charts are filled (see [`fill`]).
/// `progress` hears the finished fraction and may stop the work with an error.
///
/// # Errors
/// Only those of `progress`.
pub fn base_color(
    surface: Surface<'_>,
    density: DensityFn<'_>,
    color: ColorFn<'_>,
    options: &BakeOptions,
    mut progress: impl FnMut(f32) -> Result<()>,
) -> Result<RgbaImage> {
    let size = options.size as usize;
    let hits = rasterize(surface, size);
    let mut known: Vec<bool> = hits.iter().map(|h| h.distance <= SKIRT).collect();
    let mut colors = vec![Vec3::ZERO; hits.len()];
    let covered: Vec<usize> = (0..hits.len()).filter(|&i| known[i]).collect();
    let batch = (CHUNK / options.samples.max(1)).max(1);
    for (done, texels) in covered.chunks(batch).enumerate() {
        let points: Vec<(Vec3, Vec3)> = texels.iter().map(|&i| locate(surface, hits[i])).collect();
        for (&i, color) in texels.iter().zip(look_up(&points, density, color, options)) {
            colors[i] = if color.is_finite() { color } else { Vec3::splat(0.5) };
        }
        progress((((done + 1) * batch) as f32 / covered.len() as f32).min(1.0))?;
    }
    fill::fill(size, &mut colors, &mut known, options.rings);
    Ok(RgbaImage::from_fn(options.size, options.size, |x, y| {
        let [r, g, b] = colors[y as usize * size + x as usize].to_array().map(linear_to_srgb8);
        Rgba([r, g, b, 255])
    }))
}

/// The texels of a `size`-wide square texture that show the surface (or lie within a texel and a half of one
/// that does), and the nearest point of it for each.
pub fn places(surface: Surface<'_>, size: usize) -> Vec<(usize, Vec3)> {
    let hits = rasterize(surface, size);
    let near =
        |(texel, hit): (usize, &Hit)| (hit.distance <= SKIRT).then(|| (texel, locate(surface, *hit).0));
    hits.iter().enumerate().filter_map(near).collect()
}

/// The triangle nearest to each texel centre, up to the skirt. Ties go to the first triangle.
pub(super) fn rasterize(surface: Surface<'_>, size: usize) -> Vec<Hit> {
    let nothing = Hit { distance: f32::INFINITY, triangle: 0, weights: Vec2::ZERO };
    let mut hits = vec![nothing; size * size];
    let last = Vec2::splat(size as f32 - 1.0);
    for (t, triangle) in surface.triangles.iter().enumerate() {
        // In texels, with integer coordinates at the texel centres.
        let p = triangle.map(|v| surface.uvs[v as usize] * size as f32 - 0.5);
        let low = (p[0].min(p[1]).min(p[2]) - SKIRT).ceil().clamp(Vec2::ZERO, last).as_usizevec2();
        let high = (p[0].max(p[1]).max(p[2]) + SKIRT).floor().clamp(Vec2::ZERO, last).as_usizevec2();
        for y in low.y..=high.y {
            for x in low.x..=high.x {
                let (distance, weights) = nearest(p, Vec2::new(x as f32, y as f32));
                let hit = &mut hits[y * size + x];
                if distance < hit.distance {
                    *hit = Hit { distance, triangle: t as u32, weights };
                }
            }
        }
    }
    hits
}

/// Distance from `at` to the triangle, and the barycentrics of its nearest point.
fn nearest([a, b, c]: [Vec2; 3], at: Vec2) -> (f32, Vec2) {
    let (ab, ac, ap) = (b - a, c - a, at - a);
    let area = ab.perp_dot(ac);
    let inside = Vec2::new(ap.perp_dot(ac), ab.perp_dot(ap)) / area;
    if inside.cmpge(Vec2::ZERO).all() && inside.element_sum() <= 1.0 {
        return (0.0, inside);
    }
    let along = |from: Vec2, to: Vec2| {
        let edge = to - from;
        let t = ((at - from).dot(edge) / edge.length_squared().max(f32::MIN_POSITIVE)).clamp(0.0, 1.0);
        ((from + t * edge).distance(at), t)
    };
    let (on_ab, on_bc, on_ca) = (along(a, b), along(b, c), along(c, a));
    if on_ab.0 <= on_bc.0 && on_ab.0 <= on_ca.0 {
        (on_ab.0, Vec2::new(on_ab.1, 0.0))
    } else if on_bc.0 <= on_ca.0 {
        (on_bc.0, Vec2::new(1.0 - on_bc.1, on_bc.1))
    } else {
        (on_ca.0, Vec2::new(0.0, 1.0 - on_ca.1))
    }
}

/// Position and unit normal of a hit.
fn locate(surface: Surface<'_>, hit: Hit) -> (Vec3, Vec3) {
    let [a, b, c] = surface.triangles[hit.triangle as usize].map(|v| v as usize);
    let mix = |v: &[Vec3]| v[a] + hit.weights.x * (v[b] - v[a]) + hit.weights.y * (v[c] - v[a]);
    (mix(surface.positions), mix(surface.normals).normalize_or(Vec3::Y))
}

/// Linear colours at surface points with normals.
fn look_up(
    points: &[(Vec3, Vec3)],
    density: DensityFn<'_>,
    color: ColorFn<'_>,
    options: &BakeOptions,
) -> Vec<Vec3> {
    let n = options.samples;
    if n <= 1 {
        return color(&points.iter().map(|p| p.0).collect::<Vec<_>>());
    }
    let step = (options.outside + options.inside) / (n - 1) as f32;
    let samples: Vec<Vec3> = points
        .iter()
        .flat_map(|&(p, normal)| (0..n).map(move |i| p + (options.outside - step * i as f32) * normal))
        .map(|p| p.clamp(Vec3::NEG_ONE, Vec3::ONE))
        .collect();
    let weights: Vec<f32> = density(&samples).chunks(n).flat_map(|d| shares(d, step)).collect();
    // Most samples lie outside or behind: only the few that are seen cost a colour.
    let seen: Vec<Vec3> = samples.iter().zip(&weights).filter(|(_, w)| **w > 0.0).map(|(p, _)| *p).collect();
    let mut colors = color(&seen).into_iter();
    let mix = |w: &[f32]| w.iter().filter(|w| **w > 0.0).filter_map(|w| Some(*w * colors.next()?)).sum();
    weights.chunks(n).map(mix).collect()
}

/// A sample that contributes less than this share is left out.
const UNSEEN: f32 = 0.02;

/// Each sample's share in the composited colour, wᵢ / Σ wⱼ with wᵢ = αᵢ Π (1 − αⱼ) and
/// αᵢ = 1 − exp(−σᵢ δ).
fn shares(densities: &[f32], step: f32) -> Vec<f32> {
    let mut left = 1.0f32;
    let mut weights: Vec<f32> = densities
        .iter()
        .map(|density| {
            // max() also turns NaN into an empty sample.
            let before = left;
            left *= (-density.max(0.0) * step).exp();
            before - left
        })
        .collect();
    if 1.0 - left < 1e-3 {
        // Nothing dense on the way: the innermost sample is as good as any.
        weights.fill(0.0);
        weights.last_mut().into_iter().for_each(|w| *w = 1.0);
    }
    let most = weights.iter().copied().fold(0.0, f32::max);
    weights.iter_mut().filter(|w| **w < UNSEEN * most).for_each(|w| *w = 0.0);
    let total: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= total);
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::normals::angle_weighted;
    use crate::mesh::simplify::simplify;
    use crate::mesh::testing::sphere;
    use crate::mesh::unwrap::unwrap;
    use crate::render::color::srgb_to_linear;

    fn smooth(p: Vec3) -> Vec3 {
        0.5 + 0.4 * Vec3::new((3.0 * p.x).sin(), (3.0 * p.y).cos(), (2.0 * p.z).sin())
    }

    /// Bilinear look-up as a GPU does it.
    fn texture(picture: &RgbaImage, uv: Vec2) -> Vec3 {
        let p = uv * picture.width() as f32 - 0.5;
        let (base, t) = (p.floor(), p - p.floor());
        let at = |dx: f32, dy: f32| {
            let q = (base + Vec2::new(dx, dy)).clamp(Vec2::ZERO, Vec2::splat(picture.width() as f32 - 1.0));
            let [r, g, b, _] = picture.get_pixel(q.x as u32, q.y as u32).0;
            Vec3::from([r, g, b].map(|c| srgb_to_linear(f32::from(c) / 255.0)))
        };
        at(0., 0.).lerp(at(1., 0.), t.x).lerp(at(0., 1.).lerp(at(1., 1.), t.x), t.y)
    }

    #[test]
    fn the_texture_reproduces_the_colour_everywhere_on_the_surface_seams_included() {
        let mesh = simplify(&sphere(48, 0.6), 3_000);
        let u = unwrap(&mesh, 512, 4).unwrap();
        let normals = angle_weighted(&mesh);
        let positions: Vec<Vec3> = u.source.iter().map(|&v| mesh.positions[v as usize]).collect();
        let normals: Vec<Vec3> = u.source.iter().map(|&v| normals[v as usize]).collect();
        let surface =
            Surface { positions: &positions, normals: &normals, uvs: &u.uvs, triangles: &u.triangles };
        let density = |p: &[Vec3]| p.iter().map(|p| if p.length() < 0.6 { 1e3 } else { 0.0 }).collect();
        // Garbage outside the object, as a trained field has it: only the compositing copes.
        let color = |p: &[Vec3]| {
            p.iter().map(|p| if p.length() < 0.6 { smooth(p.normalize()) } else { Vec3::X * 5.0 }).collect()
        };
        let options = BakeOptions { size: 512, samples: 8, outside: 0.02, inside: 0.04, rings: 4 };
        let picture = base_color(surface, &density, &color, &options, |_| Ok(())).unwrap();
        let mut worst = 0f32;
        for t in &u.triangles {
            for w in [Vec3::X, Vec3::Y, Vec3::Z, Vec3::splat(1.0 / 3.0), Vec3::new(0.5, 0.5, 0.0)] {
                let at = |i: usize| t[i] as usize;
                let uv = w.x * u.uvs[at(0)] + w.y * u.uvs[at(1)] + w.z * u.uvs[at(2)];
                let p = w.x * positions[at(0)] + w.y * positions[at(1)] + w.z * positions[at(2)];
                worst = worst.max((texture(&picture, uv) - smooth(p.normalize())).abs().max_element());
            }
        }
        // Half an 8-bit step (0.004 at the bright end), and a texel (0.006 units) of slope 1.2.
        assert!(worst < 0.015, "{worst}");
    }

    #[test]
    fn compositing_agrees_with_the_closed_form() {
        // Two samples of optical depth 1: weights (1 − e⁻¹) and e⁻¹ (1 − e⁻¹).
        let (w, e) = (shares(&[10.0, 10.0], 0.1), (-1f32).exp());
        assert!((w[0] - 1.0 / (1.0 + e)).abs() < 1e-6 && (w[1] - e / (1.0 + e)).abs() < 1e-6);
        assert_eq!(shares(&[0.0, 0.0], 0.1), [0.0, 1.0]);
        assert_eq!(shares(&[f32::NAN, 1e9, 1e9], 0.1), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn nearest_points_of_a_triangle() {
        let t = [Vec2::ZERO, Vec2::new(4.0, 0.0), Vec2::new(0.0, 4.0)];
        assert_eq!(nearest(t, Vec2::new(1.0, 1.0)), (0.0, Vec2::splat(0.25)));
        assert_eq!(nearest(t, Vec2::new(1.0, -2.0)), (2.0, Vec2::new(0.25, 0.0)));
        assert_eq!(nearest(t, Vec2::new(-3.0, 2.0)), (3.0, Vec2::new(0.0, 0.5)));
        assert_eq!(nearest(t, Vec2::new(4.0, 4.0)).1, Vec2::splat(0.5));
        assert_eq!(nearest(t, Vec2::new(3.0, 4.0)).1, Vec2::new(0.375, 0.625));
        assert_eq!(nearest(t, Vec2::new(7.0, -4.0)), (5.0, Vec2::new(1.0, 0.0)));
    }
}
