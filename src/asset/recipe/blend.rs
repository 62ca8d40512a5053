//! Blended groups: smooth unions and differences of closed pieces, as one skin.
//!
//! Each piece's signed distance is splatted onto a grid in a band around its triangles; further away only
//! the sign is known, which is all that the skin needs. Pieces meet by the polynomial smooth minimum
//! `min(a, b) − h²k/4, h = max(k − |a − b|, 0)/k` (Quilez), and a surface net skins the result.

use fast_surface_nets::{SurfaceNetsBuffer, surface_nets};
use glam::{UVec3, Vec3};
use ndshape::{RuntimeShape, Shape as _};

use super::build::Piece;
use super::surface::{Shaded, shade};

/// Cells along the largest side at detail 1.
const CELLS: f32 = 40.0;
/// Cells beyond the bounds, so that the skin closes.
const MARGIN: f32 = 2.0;

/// A lattice of points over the group.
struct Grid {
    origin: Vec3,
    cell: f32,
    size: UVec3,
}

impl Grid {
    fn over(pieces: &[Piece], radius: f32, detail: f32) -> Self {
        let points = || pieces.iter().filter(|p| !p.cut).flat_map(|p| &p.mesh.positions);
        let low = points().fold(Vec3::INFINITY, |a, p| a.min(*p));
        let high = points().fold(Vec3::NEG_INFINITY, |a, p| a.max(*p));
        let cell = ((high - low).max_element() / (CELLS * detail)).max(1e-6);
        let margin = MARGIN * cell + 0.25 * radius;
        let size = ((high - low + 2.0 * margin) / cell).ceil().as_uvec3() + 1;
        Self { origin: low - margin, cell, size }
    }

    fn len(&self) -> usize {
        self.size.as_usizevec3().element_product()
    }

    fn index(&self, at: UVec3) -> usize {
        (at.x + self.size.x * (at.y + self.size.y * at.z)) as usize
    }

    fn point(&self, at: UVec3) -> Vec3 {
        self.origin + at.as_vec3() * self.cell
    }

    /// The lattice points within `band` of the box.
    fn around(&self, low: Vec3, high: Vec3, band: f32) -> impl Iterator<Item = UVec3> {
        let last = (self.size - 1).as_vec3();
        let clamped = |p: Vec3| ((p - self.origin) / self.cell).clamp(Vec3::ZERO, last);
        let (a, b) = (clamped(low - band).ceil().as_uvec3(), clamped(high + band).floor().as_uvec3());
        (a.z..=b.z)
            .flat_map(move |z| (a.y..=b.y).flat_map(move |y| (a.x..=b.x).map(move |x| UVec3::new(x, y, z))))
    }
}

/// A piece on the grid.
struct Field {
    /// Negative inside; ±`band` where no triangle is near.
    distance: Vec<f32>,
    /// Colour of the nearest point of the piece, where one is near.
    color: Vec<Vec3>,
}

/// One piece of all `pieces`; those that cut are taken away. It looks as the first of them.
pub(super) fn skin(path: &str, pieces: &[Piece], radius: f32, detail: f32) -> Result<Piece, String> {
    if !(0.0..=100.0).contains(&radius) || !(0.2..=3.0).contains(&detail) {
        return Err(format!("`blend` {radius} is not in 0..100, or `detail` {detail} not in 0.2..3"));
    }
    let Some(first) = pieces.iter().find(|p| !p.cut) else {
        return Err("a blended group needs a part that is not cut".into());
    };
    let grid = Grid::over(pieces, radius, detail);
    let band = radius + 2.0 * grid.cell;
    let (mut distance, mut color) = (vec![band; grid.len()], vec![Vec3::ZERO; grid.len()]);
    // What is cut comes last, whatever the order in the file.
    for piece in pieces.iter().filter(|p| !p.cut).chain(pieces.iter().filter(|p| p.cut)) {
        let field = field(piece, &grid, band)?;
        for (i, (b, of_b)) in field.distance.into_iter().zip(field.color).enumerate() {
            let (a, b) = if piece.cut { (-distance[i], b) } else { (distance[i], b) };
            let share =
                if radius > 0.0 { (0.5 + 0.5 * (a - b) / radius).clamp(0.0, 1.0) } else { f32::from(b < a) };
            let (met, share) = (smooth_min(a, b, radius), if of_b == Vec3::ZERO { 0.0 } else { share });
            distance[i] = if piece.cut { -met } else { met };
            color[i] = if color[i] == Vec3::ZERO { of_b } else { color[i].lerp(of_b, share) };
        }
    }
    let (mesh, colors) = netted(&grid, &distance, &color);
    if mesh.triangles.is_empty() {
        return Err("nothing is left of a blended group".into());
    }
    Ok(Piece { name: path.to_owned(), mesh, colors, look: first.look, cut: false })
}

fn smooth_min(a: f32, b: f32, k: f32) -> f32 {
    let h = if k > 0.0 { ((k - (a - b).abs()) / k).max(0.0) } else { 0.0 };
    a.min(b) - h * h * k * 0.25
}

/// The skin of `distance`, coloured from the nearest lattice points.
fn netted(grid: &Grid, distance: &[f32], color: &[Vec3]) -> (Shaded, Vec<Vec3>) {
    let mut net = SurfaceNetsBuffer::default();
    let shape = RuntimeShape::<u32, 3>::new(grid.size.to_array());
    debug_assert_eq!(shape.usize(), distance.len());
    surface_nets(distance, &shape, [0; 3], (grid.size - 1).to_array(), &mut net);
    let places: Vec<Vec3> = net.positions.iter().map(|p| Vec3::from_array(*p)).collect();
    let at_vertex = |p: &Vec3| {
        // Those of the eight corners that know a colour, by nearness.
        let (base, f) = (p.floor().as_uvec3(), p.fract());
        let (mut sum, mut total) = (Vec3::ZERO, 0.0);
        for k in 0..8u32 {
            let d = UVec3::new(k & 1, k >> 1 & 1, k >> 2);
            let w = (Vec3::ONE - (d.as_vec3() - f).abs()).element_product();
            let c = color[grid.index((base + d).min(grid.size - 1))];
            if c != Vec3::ZERO {
                (sum, total) = (sum + w * c, total + w);
            }
        }
        sum / f32::max(total, 1e-6)
    };
    let of_place: Vec<Vec3> = places.iter().map(at_vertex).collect();
    let positions: Vec<Vec3> = places.iter().map(|p| grid.origin + *p * grid.cell).collect();
    let triangles: Vec<[u32; 3]> = net.indices.chunks_exact(3).map(|t| [t[0], t[1], t[2]]).collect();
    let extent = grid.size.max_element() as f32 * grid.cell;
    let mesh = shade(&positions, &triangles, extent);
    let colors = mesh.source.iter().map(|i| of_place[*i as usize]).collect();
    (mesh, colors)
}

/// Distance and colour of a closed piece.
fn field(piece: &Piece, grid: &Grid, band: f32) -> Result<Field, String> {
    let corner = |t: &[u32; 3]| t.map(|i| piece.mesh.positions[i as usize]);
    let mut out = Field { distance: vec![band; grid.len()], color: vec![Vec3::ZERO; grid.len()] };
    for triangle in &piece.mesh.triangles {
        let [a, b, c] = corner(triangle);
        let colors = triangle.map(|i| piece.colors[i as usize]);
        for at in grid.around(a.min(b).min(c), a.max(b).max(c), band) {
            let (p, i) = (grid.point(at), grid.index(at));
            let weights = nearest(p, [a, b, c]);
            let d = p.distance(weights.x * a + weights.y * b + weights.z * c);
            if d < out.distance[i] {
                out.distance[i] = d;
                out.color[i] = weights.x * colors[0] + weights.y * colors[1] + weights.z * colors[2];
                // Black would read as unknown.
                out.color[i] = out.color[i].max(Vec3::splat(1e-5));
            }
        }
    }
    for (i, inside) in inside(piece, grid)?.into_iter().enumerate() {
        if inside {
            out.distance[i] = -out.distance[i];
        }
    }
    Ok(out)
}

/// Which lattice points lie inside, by counting what lines along X cross: signed, so that pieces whose
/// surfaces overlap themselves count, too.
fn inside(piece: &Piece, grid: &Grid) -> Result<Vec<bool>, String> {
    let lines = (grid.size.y * grid.size.z) as usize;
    let mut crossings: Vec<Vec<(f32, i32)>> = vec![Vec::new(); lines];
    // A little off the lattice, or lines would run along the edges of upright boxes.
    let nudge = Vec3::new(0.0, 0.000_371, 0.000_593) * grid.cell;
    for triangle in &piece.mesh.triangles {
        let [a, b, c] = triangle.map(|i| piece.mesh.positions[i as usize] - nudge);
        let (low, high) = (a.min(b).min(c), a.max(b).max(c));
        for at in grid.around(low.with_x(grid.origin.x), high.with_x(grid.origin.x), 0.0) {
            let p = grid.point(at);
            let area = |a: Vec3, b: Vec3| (b.y - a.y) * (p.z - a.z) - (b.z - a.z) * (p.y - a.y);
            let [u, v, w] = [area(b, c), area(c, a), area(a, b)];
            let same = (u > 0.0) == (v > 0.0) && (v > 0.0) == (w > 0.0);
            let total = u + v + w;
            if same && total != 0.0 {
                let x = (u * a.x + v * b.x + w * c.x) / total;
                crossings[(at.y + grid.size.y * at.z) as usize].push((x, if total > 0.0 { 1 } else { -1 }));
            }
        }
    }
    let mut out = vec![false; grid.len()];
    for (line, crossed) in crossings.iter_mut().enumerate() {
        crossed.sort_by(|a, b| a.0.total_cmp(&b.0));
        if crossed.iter().map(|c| c.1).sum::<i32>() != 0 {
            return Err(format!("{}: only closed parts can be blended", piece.name));
        }
        let (mut k, mut winding) = (0, 0);
        for x in 0..grid.size.x {
            let at = UVec3::new(x, line as u32 % grid.size.y, line as u32 / grid.size.y);
            while k < crossed.len() && crossed[k].0 < grid.point(at).x {
                winding += crossed[k].1;
                k += 1;
            }
            out[grid.index(at)] = winding != 0;
        }
    }
    Ok(out)
}

/// Barycentric weights of the triangle's point nearest to `p` (Ericson, "Real-Time Collision Detection", 5.1.5).
fn nearest(p: Vec3, [a, b, c]: [Vec3; 3]) -> Vec3 {
    let (ab, ac) = (b - a, c - a);
    let (d1, d2) = (ab.dot(p - a), ac.dot(p - a));
    if d1 <= 0.0 && d2 <= 0.0 {
        return Vec3::X;
    }
    let (d3, d4) = (ab.dot(p - b), ac.dot(p - b));
    if d3 >= 0.0 && d4 <= d3 {
        return Vec3::Y;
    }
    let vc = d1 * d4 - d3 * d2;
    if vc <= 0.0 && d1 >= 0.0 && d3 <= 0.0 {
        let v = d1 / (d1 - d3);
        return Vec3::new(1.0 - v, v, 0.0);
    }
    let (d5, d6) = (ab.dot(p - c), ac.dot(p - c));
    if d6 >= 0.0 && d5 <= d6 {
        return Vec3::Z;
    }
    let vb = d5 * d2 - d1 * d6;
    if vb <= 0.0 && d2 >= 0.0 && d6 <= 0.0 {
        let w = d2 / (d2 - d6);
        return Vec3::new(1.0 - w, 0.0, w);
    }
    let va = d3 * d6 - d5 * d4;
    if va <= 0.0 && d4 - d3 >= 0.0 && d5 - d6 >= 0.0 {
        let w = (d4 - d3) / ((d4 - d3) + (d5 - d6));
        return Vec3::new(0.0, 1.0 - w, w);
    }
    let sum = va + vb + vc;
    Vec3::new(va, vb, vc) / sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asset::recipe::Recipe;
    use crate::asset::recipe::surface::signed_volume6;

    fn build(group: &str) -> Result<crate::asset::Asset, String> {
        let text = format!("names = [\"x\"]\ncategory = \"test\"\n{group}");
        Recipe::parse(&text).and_then(|r| r.build(0)).map_err(|e| e.to_string())
    }

    fn group(blend: f32, children: &str) -> String {
        format!("[[parts]]\nblend = {blend}\ngroup = [{children}]\n")
    }

    const BALL: &str = "{ shape = \"ellipsoid\", size = 1, color = \"red\", detail = 3 }";

    fn volume(asset: &crate::asset::Asset) -> f32 {
        asset.meshes.iter().map(|m| signed_volume6(&m.positions, &m.triangles) / 6.0).sum()
    }

    fn closed(asset: &crate::asset::Asset) {
        let mut edges = std::collections::HashMap::new();
        let mesh = &asset.meshes[0];
        let key = |i: u32| mesh.positions[i as usize].to_array().map(f32::to_bits);
        for t in &mesh.triangles {
            for k in 0..3 {
                *edges.entry((key(t[k]), key(t[(k + 1) % 3]))).or_insert(0) += 1;
            }
        }
        assert!(edges.iter().all(|((a, b), n)| edges.get(&(*b, *a)) == Some(n)), "the skin has a hole");
    }

    #[test]
    fn nearest_points_are_nearest() {
        let rng = crate::rng::Rng::new(5, crate::rng::Stream::Probe, 0);
        let v = |k: u64| Vec3::new(rng.uniform(3 * k), rng.uniform(3 * k + 1), rng.uniform(3 * k + 2));
        for i in 0..60 {
            let [a, b, c] = [v(10 * i), v(10 * i + 1), v(10 * i + 2)];
            let p = 2.0 * v(10 * i + 3) - 0.5;
            let w = nearest(p, [a, b, c]);
            assert!(w.min_element() >= 0.0 && (w.element_sum() - 1.0).abs() < 1e-4, "{w}");
            let found = p.distance(w.x * a + w.y * b + w.z * c);
            let mut best = f32::MAX;
            for s in 0..=40 {
                for t in 0..=40 - s {
                    let (s, t) = (s as f32 / 40.0, t as f32 / 40.0);
                    best = best.min(p.distance(a + s * (b - a) + t * (c - a)));
                }
            }
            assert!(found <= best + 1e-5 && found > best - 0.04, "{found} {best}");
        }
    }

    #[test]
    fn a_ball_keeps_its_volume_and_colour() {
        let asset = build(&group(0.0, BALL)).unwrap();
        closed(&asset);
        let exact = std::f32::consts::PI / 6.0;
        assert!((volume(&asset) / exact - 1.0).abs() < 0.03, "{} {exact}", volume(&asset));
        assert!(asset.meshes[0].colors.iter().all(|c| c.x > 3.0 * c.y), "red");
    }

    /// Union and difference of a ball and a box over one of its halves, by volume; a smooth union is larger.
    #[test]
    fn unions_and_differences_have_their_volumes() {
        let ball = std::f32::consts::PI / 6.0;
        let half = |cut: bool| {
            format!(
                "{BALL}, {{ shape = \"box\", size = [1.2, 1.2, 1.2], at = [0.6, 0, 0], cut = {cut}, color = \"blue\" }}"
            )
        };
        let off = |asset: &crate::asset::Asset, exact: f32| (volume(asset) / exact - 1.0).abs();
        let (union, rest) =
            (build(&group(0.0, &half(false))).unwrap(), build(&group(0.0, &half(true))).unwrap());
        assert!(off(&union, 1.728 + 0.5 * ball) < 0.03, "{}", volume(&union));
        assert!(off(&rest, 0.5 * ball) < 0.06, "{} {}", volume(&rest), 0.5 * ball);
        closed(&union);
        closed(&rest);
        let smooth = build(&group(0.3, &half(false))).unwrap();
        assert!(volume(&smooth) > volume(&union) * 1.005, "{} {}", volume(&smooth), volume(&union));
        // The cut face has the knife's colour.
        let blue = rest.meshes[0].colors.iter().filter(|c| c.z > 3.0 * c.x).count();
        assert!(blue > 20, "{blue}");
    }

    #[test]
    fn misuse_is_named() {
        let fails = |text: &str, why: &str| {
            let message = build(text).map(drop).unwrap_err();
            assert!(message.contains(why), "{message}");
        };
        fails(
            &format!("[[parts]]\ngroup = [{}]\n", BALL.replace('}', ", cut = true }")),
            "with `blend` around it",
        );
        fails(&group(0.1, &BALL.replace('}', ", cut = true }")), "not cut");
        fails(&group(-1.0, BALL), "not in 0..100");
        fails(
            "[[parts]]\nshape = \"ellipsoid\"\nsize = 1\ncolor = \"red\"\nblend = 0.1\n",
            "belongs to a group",
        );
        let all = "{ shape = \"box\", size = 2, color = \"blue\", cut = true }";
        fails(&group(0.0, &format!("{BALL}, {all}")), "nothing is left");
    }
}
