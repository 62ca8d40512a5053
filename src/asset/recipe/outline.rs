//! Extruded outlines: stars, hearts, gears of leaves, wings, signs.

use std::f32::consts::{PI, TAU};

use glam::{Vec2, Vec3};

use super::shape::catmull_rom;
use super::surface::Surface;

/// The outline called `name` within the square -0.5 … 0.5, or `None`.
///
/// `star4`…`star9`, `polygon3`…`polygon9`, `circle`, `heart`, `drop`, `crescent`, `shield`, `gear8`…
pub(super) fn named(name: &str) -> Option<Vec<Vec2>> {
    let polar = |n: usize, r: &dyn Fn(usize, f32) -> f32| -> Vec<Vec2> {
        (0..n)
            .map(|i| {
                let a = TAU * i as f32 / n as f32;
                Vec2::new(-a.sin(), a.cos()) * r(i, a)
            })
            .collect()
    };
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let kind = &name[..name.len() - digits.len()];
    let count: Option<usize> = digits.parse().ok().filter(|n| (3..=24).contains(n));
    Some(match (kind, count) {
        ("star", Some(n)) => polar(2 * n, &|i, _| if i % 2 == 0 { 0.5 } else { 0.22 }),
        ("flower", Some(n)) => polar(10 * n, &|_, a| 0.38 + 0.12 * (a * n as f32).cos()),
        ("polygon", Some(n)) => polar(n, &|_, _| 0.5),
        ("gear", Some(n)) => polar(4 * n, &|i, _| if i % 4 < 2 { 0.5 } else { 0.4 }),
        ("circle", None) => polar(32, &|_, _| 0.5),
        ("heart", None) => (0..40)
            .map(|i| {
                let t = TAU * i as f32 / 40.0;
                let y = 13.0 * t.cos() - 5.0 * (2.0 * t).cos() - 2.0 * (3.0 * t).cos() - (4.0 * t).cos();
                Vec2::new(-16.0 * t.sin().powi(3), y + 2.5) / 32.0
            })
            .collect(),
        ("drop", None) => (0..32)
            .map(|i| {
                let t = TAU * i as f32 / 32.0;
                Vec2::new(-0.5 * t.sin() * (0.5 * t).sin().powi(2), 0.5 * t.cos())
            })
            .collect(),
        ("crescent", None) => {
            let outer =
                (0..=16).map(|i| PI * (0.5 + i as f32 / 16.0)).map(|a| Vec2::new(a.cos(), a.sin()) * 0.5);
            let inner = (1..16)
                .map(|i| PI * (1.5 - i as f32 / 16.0))
                .map(|a| Vec2::new(a.cos() * 0.22, a.sin() * 0.5));
            outer.chain(inner).map(|p| p + Vec2::new(0.2, 0.0)).collect()
        }
        ("shield", None) => {
            let right =
                [[0.0, 0.46], [0.25, 0.44], [0.46, 0.5], [0.5, 0.1], [0.4, -0.2], [0.22, -0.4], [0.0, -0.5]];
            let left = right[1..6].iter().rev().map(|p| Vec2::new(-p[0], p[1]));
            right.map(Vec2::from).into_iter().chain(left).collect()
        }
        _ => return None,
    })
}

/// The closed Catmull–Rom curve through `points`, four pieces a span.
pub(super) fn smooth(points: &[Vec2]) -> Vec<Vec2> {
    let n = points.len();
    let mut out = Vec::with_capacity(4 * n);
    for s in 0..n {
        let p = [points[(s + n - 1) % n], points[s], points[(s + 1) % n], points[(s + 2) % n]];
        for i in 0..4 {
            let w = catmull_rom(i as f32 / 4.0);
            out.push((0..4).map(|k| p[k] * w[k]).sum());
        }
    }
    out
}

fn cross(a: Vec2, b: Vec2) -> f32 {
    a.x * b.y - a.y * b.x
}

/// Twice the signed area, positive when counter-clockwise.
fn area2(points: &[Vec2]) -> f32 {
    (0..points.len()).map(|i| cross(points[i], points[(i + 1) % points.len()])).sum()
}

/// True if two edges that are not neighbours meet.
fn crosses_itself(points: &[Vec2]) -> bool {
    let n = points.len();
    let edge = |i: usize| (points[i], points[(i + 1) % n]);
    let apart = |(a, b): (Vec2, Vec2), c: Vec2, d: Vec2| cross(b - a, c - a) * cross(b - a, d - a) >= 0.0;
    (0..n).any(|i| {
        (i + 2..n).filter(|j| (j + 1) % n != i).any(|j| {
            let ((a, b), (c, d)) = (edge(i), edge(j));
            !apart((a, b), c, d) && !apart((c, d), a, b)
        })
    })
}

/// Ear clipping of a simple counter-clockwise polygon. Fails on a degenerate one.
fn triangulate(points: &[Vec2]) -> Result<Vec<[u32; 3]>, String> {
    let mut left: Vec<usize> = (0..points.len()).collect();
    let mut triangles = Vec::with_capacity(points.len() - 2);
    while left.len() > 3 {
        let n = left.len();
        let ear = (0..n).find(|&i| {
            let [a, b, c] = [left[(i + n - 1) % n], left[i], left[(i + 1) % n]].map(|k| points[k]);
            let inside = |p: Vec2| {
                cross(b - a, p - a) > -1e-9 && cross(c - b, p - b) > -1e-9 && cross(a - c, p - c) > -1e-9
            };
            cross(b - a, c - b) > 1e-9
                && left
                    .iter()
                    .map(|k| points[*k])
                    .filter(|p| *p != a && *p != b && *p != c)
                    .all(|p| !inside(p))
        });
        // A straight corner has no ear but also no area.
        let flat = || {
            (0..n).find(|&i| {
                let [a, b, c] = [left[(i + n - 1) % n], left[i], left[(i + 1) % n]].map(|k| points[k]);
                cross(b - a, c - b).abs() <= 1e-7
            })
        };
        let i = ear.or_else(flat).ok_or("the outline is degenerate")?;
        triangles.push([left[(i + n - 1) % n] as u32, left[i] as u32, left[(i + 1) % n] as u32]);
        left.remove(i);
    }
    triangles.push([left[0] as u32, left[1] as u32, left[2] as u32]);
    Ok(triangles)
}

/// Extrudes `points` from z = -thick/2 to thick/2, edges bevelled by `round`.
pub(super) fn blade(points: &[Vec2], thick: f32, round: f32) -> Result<Surface, String> {
    let mut points = points.to_vec();
    if area2(&points) < 0.0 {
        points.reverse();
    }
    if crosses_itself(&points) {
        return Err("the outline crosses itself".into());
    }
    let n = points.len();
    let caps = triangulate(&points)?;
    let bevel = round.clamp(0.0, thick * 0.5);
    let inset: Vec<Vec2> = (0..n)
        .map(|i| {
            let (a, b, c) = (points[(i + n - 1) % n], points[i], points[(i + 1) % n]);
            let normal = |d: Vec2| Vec2::new(-d.y, d.x).normalize_or_zero();
            b + (normal(b - a) + normal(c - b)).normalize_or_zero() * bevel
        })
        .collect();
    let mut surface = Surface::default();
    let h = thick * 0.5;
    let layers: &[(bool, f32)] = if bevel > 1e-6 {
        &[(true, -h), (false, -h + bevel), (false, h - bevel), (true, h)]
    } else {
        &[(false, -h), (false, h)]
    };
    let rings: Vec<Vec<u32>> = layers
        .iter()
        .map(|(inner, z)| {
            let ring = if *inner { &inset } else { &points };
            ring.iter()
                .enumerate()
                .map(|(i, p)| surface.vertex(p.extend(*z), Vec2::new(i as f32 / n as f32, z / thick + 0.5)))
                .collect()
        })
        .collect();
    surface.connect(&rings);
    let top = rings[rings.len() - 1][0];
    for t in caps {
        surface.triangles.push(t.map(|i| i + top));
        surface.triangles.push([t[0], t[2], t[1]]);
    }
    Ok(surface)
}

/// A leaf from the origin along +Y: `size` = width, length, thickness; bends `curl` degrees to +Z.
pub(super) fn leaf(size: Vec3, curl: f32, segments: usize) -> Surface {
    let rows = segments.clamp(8, 16);
    let sides = 8;
    let mut surface = Surface::default();
    let curl = curl.to_radians();
    let rings: Vec<Vec<u32>> = (0..=rows)
        .map(|k| {
            let t = k as f32 / rows as f32;
            let a = curl * t;
            // Arc of constant curvature and length size.y.
            let (y, z) = if curl.abs() < 1e-3 {
                (size.y * t, 0.0)
            } else {
                (size.y * a.sin() / curl, size.y * (1.0 - a.cos()) / curl)
            };
            let w = (PI * t.powf(0.8)).sin().max(0.0).powf(0.75) * 0.5;
            let n = if k == 0 || k == rows { 1 } else { sides };
            (0..n)
                .map(|i| {
                    let u = i as f32 / n as f32;
                    let (s, c) = (u * TAU).sin_cos();
                    let (x, d) = if n == 1 { (0.0, 0.0) } else { (w * c * size.x, w * s * size.z) };
                    surface.vertex(Vec3::new(x, y - d * a.sin(), z + d * a.cos()), Vec2::new(u, t))
                })
                .collect()
        })
        .collect();
    surface.connect(&rings);
    if surface.volume6() < 0.0 {
        surface.flip();
    }
    surface
}
