//! Primitives: surfaces of revolution, tubes, rounded boxes, superellipsoids.

use std::f32::consts::{FRAC_PI_2, PI, TAU};

use glam::{Vec2, Vec3};

use super::surface::Surface;

/// Revolves `profile` (radius, height), given bottom to top on the outside, around Y.
///
/// Ends off the axis are closed by discs. `flute` = (count, depth) makes the radius wavy.
pub(super) fn lathe(profile: &[Vec2], segments: usize, flute: (f32, f32)) -> Surface {
    let mut points = profile.to_vec();
    if points[0].x > 1e-6 {
        points.insert(0, Vec2::new(0.0, points[0].y));
    }
    if let Some(last) = points.last().copied().filter(|p| p.x > 1e-6) {
        points.push(Vec2::new(0.0, last.y));
    }
    let total: f32 = points.windows(2).map(|w| w[0].distance(w[1])).sum::<f32>().max(1e-9);
    let mut surface = Surface::default();
    let mut rings = Vec::with_capacity(points.len());
    let mut run = 0.0;
    for (k, p) in points.iter().enumerate() {
        if k > 0 {
            run += points[k - 1].distance(*p);
        }
        let n = if p.x > 1e-6 { segments } else { 1 };
        let ring = (0..n).map(|i| {
            let u = i as f32 / n as f32;
            let (s, c) = (u * TAU).sin_cos();
            let r = p.x * (1.0 + flute.1 * (0.5 * (u * TAU * flute.0).cos() - 0.5));
            surface.vertex(Vec3::new(r * s, p.y, r * c), Vec2::new(u, run / total))
        });
        rings.push(ring.collect());
    }
    surface.connect(&rings);
    if surface.volume6() < 0.0 {
        surface.flip();
    }
    surface
}

/// Profile of a frustum with rim radius `round`: bottom radius `r0`, top `r1`, half height `h`.
pub(super) fn frustum_profile(r0: f32, r1: f32, h: f32, round: f32) -> Vec<Vec2> {
    let bevel = round.min(h).max(0.0);
    let mut profile = vec![];
    for (r, y, sign) in [(r0, -h, -1.0f32), (r1, h, 1.0)] {
        let b = bevel.min(r);
        if b <= 1e-6 {
            profile.push(Vec2::new(r, y));
            continue;
        }
        let arc = (0..=3).map(|k| {
            let a = FRAC_PI_2 * k as f32 / 3.0;
            Vec2::new(r - b + b * a.sin(), y - sign * b * (1.0 - a.cos()))
        });
        if sign < 0.0 { profile.extend(arc) } else { profile.extend(arc.rev()) }
    }
    profile
}

/// Profile of a capsule of radius `r` and half height `h` (caps included).
pub(super) fn capsule_profile(r: f32, h: f32) -> Vec<Vec2> {
    let straight = (h - r).max(0.0);
    let cap = |sign: f32| {
        (0..=6).map(move |k| {
            let a = FRAC_PI_2 * k as f32 / 6.0;
            Vec2::new(r * a.cos(), sign * (straight + (h - straight) * a.sin()))
        })
    };
    let bottom: Vec<_> = cap(-1.0).collect();
    bottom
        .into_iter()
        .rev()
        .chain(cap(1.0))
        .map(|p| if p.x < 1e-6 { Vec2::new(0.0, p.y) } else { p })
        .collect()
}

/// Superellipsoid `|x|^p + |y|^p + |z|^p = 1` scaled to half extents; `p = 2` is the ellipsoid.
pub(super) fn superellipsoid(half: Vec3, power: f32, segments: usize) -> Surface {
    let rows = (segments / 2).max(4);
    let mut surface = Surface::default();
    let mut rings = Vec::new();
    for j in 0..=rows {
        let v = j as f32 / rows as f32;
        let (sv, cv) = (PI * (v - 0.5)).sin_cos();
        let n = if j == 0 || j == rows { 1 } else { segments };
        let ring = (0..n).map(|i| {
            let u = i as f32 / n as f32;
            let (s, c) = (u * TAU).sin_cos();
            let cv = if n == 1 { 0.0 } else { cv };
            let d = Vec3::new(s * cv, sv, c * cv);
            let norm = d.abs().powf(power).element_sum().powf(1.0 / power);
            surface.vertex(d / norm * half, Vec2::new(u, v))
        });
        rings.push(ring.collect());
    }
    surface.connect(&rings);
    surface
}

/// Box with rounded edges; `top` scales x and z at the top; `cuts` extra vertices across each face.
pub(super) fn rounded_box(half: Vec3, round: f32, top: f32, cuts: usize) -> Surface {
    let r = round.clamp(0.0, half.min_element());
    let steps: &[f32] = if r > 1e-6 { &[FRAC_PI_2 * 0.5, FRAC_PI_2 * 0.25, 0.0] } else { &[0.0] };
    let inner = half - r;
    let ticks = |axis: usize| -> Vec<f32> {
        let mut t: Vec<f32> = steps.iter().map(|a| -inner[axis] - r * a.tan()).collect();
        t.extend((1..=cuts).map(|k| inner[axis] * (2.0 * k as f32 / (cuts + 1) as f32 - 1.0)));
        t.extend(steps.iter().rev().map(|a| inner[axis] + r * a.tan()));
        t.dedup_by(|a, b| (*a - *b).abs() < 1e-7);
        t
    };
    let mut surface = Surface::default();
    for axis in 0..3 {
        for sign in [-1.0f32, 1.0] {
            let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
            let (ta, tb) = (ticks(a), ticks(b));
            let base = surface.positions.len() as u32;
            for (i, x) in ta.iter().enumerate() {
                for (j, y) in tb.iter().enumerate() {
                    let mut p = Vec3::ZERO;
                    (p[axis], p[a], p[b]) = (sign * half[axis], *x, *y);
                    let core = p.clamp(-inner, inner);
                    p = core + (p - core).normalize_or_zero() * r;
                    let narrow = 1.0 + (top - 1.0) * (p.y / (2.0 * half.y) + 0.5);
                    p = Vec3::new(p.x * narrow, p.y, p.z * narrow);
                    let uv = Vec2::new(i as f32 / ta.len() as f32, j as f32 / tb.len() as f32);
                    surface.vertex(p, uv);
                }
            }
            let n = tb.len() as u32;
            for i in 0..ta.len() as u32 - 1 {
                for j in 0..n - 1 {
                    let q = [
                        base + i * n + j,
                        base + (i + 1) * n + j,
                        base + (i + 1) * n + j + 1,
                        base + i * n + j + 1,
                    ];
                    if sign > 0.0 {
                        surface.quad(q[0], q[1], q[2], q[3])
                    } else {
                        surface.quad(q[3], q[2], q[1], q[0])
                    }
                }
            }
        }
    }
    surface
}

/// A tube's course: centres with their radii.
pub(super) struct Course {
    pub(super) points: Vec<Vec3>,
    pub(super) radii: Vec<f32>,
    pub(super) closed: bool,
}

impl Course {
    /// The Catmull–Rom curve through the points, `steps` pieces between neighbours.
    pub(super) fn smooth(&self, steps: usize) -> Self {
        let n = self.points.len();
        let spans = if self.closed { n } else { n - 1 };
        let pick = |k: isize| -> usize {
            let n = n as isize;
            if self.closed { k.rem_euclid(n) as usize } else { k.clamp(0, n - 1) as usize }
        };
        let mut out = Self { points: vec![], radii: vec![], closed: self.closed };
        for s in 0..spans as isize {
            let k = [pick(s - 1), pick(s), pick(s + 1), pick(s + 2)];
            let p = k.map(|k| self.points[k]);
            let r = k.map(|k| self.radii[k]);
            for i in 0..steps {
                let t = i as f32 / steps as f32;
                let w = catmull_rom(t);
                out.points.push((0..4).map(|i| p[i] * w[i]).sum());
                out.radii.push((0..4).map(|i| r[i] * w[i]).sum::<f32>().max(0.0));
            }
        }
        if !self.closed {
            out.points.push(self.points[n - 1]);
            out.radii.push(self.radii[n - 1]);
        }
        out
    }
}

/// Weights of four neighbouring points at `t` between the middle two.
pub(super) fn catmull_rom(t: f32) -> [f32; 4] {
    let (t2, t3) = (t * t, t * t * t);
    [
        0.5 * (-t3 + 2.0 * t2 - t),
        0.5 * (3.0 * t3 - 5.0 * t2 + 2.0),
        0.5 * (-3.0 * t3 + 4.0 * t2 + t),
        0.5 * (t3 - t2),
    ]
}

/// Tube along `course` with elliptic cross-section: width = diameter along the first frame axis (X at
/// the start), height = `flat` times that. Frames are carried along by parallel transport. `cap` adds
/// round ends; otherwise they are flat.
pub(super) fn tube(course: &Course, segments: usize, flat: f32, cap: bool) -> Surface {
    let n = course.points.len();
    let tangent = |k: usize| {
        let (a, b) = if course.closed {
            (course.points[(k + n - 1) % n], course.points[(k + 1) % n])
        } else {
            (course.points[k.saturating_sub(1)], course.points[(k + 1).min(n - 1)])
        };
        (b - a).try_normalize().unwrap_or(Vec3::Y)
    };
    let mut surface = Surface::default();
    let mut rings: Vec<Vec<u32>> = Vec::new();
    let mut side = tangent(0);
    side = (Vec3::X - side * side.x).try_normalize().unwrap_or(Vec3::NEG_Z);
    let ring = |surface: &mut Surface, p: Vec3, t: Vec3, side: Vec3, r: f32, v: f32| -> Vec<u32> {
        let count = if r > 1e-6 { segments } else { 1 };
        let up = t.cross(side);
        (0..count)
            .map(|i| {
                let u = i as f32 / count as f32;
                let (s, c) = (u * TAU).sin_cos();
                surface.vertex(p + (side * c + up * (s * flat)) * r, Vec2::new(u, v))
            })
            .collect()
    };
    for k in 0..n {
        let t = tangent(k);
        side = (side - t * t.dot(side)).try_normalize().unwrap_or_else(|| t.any_orthonormal_vector());
        let (p, r, v) = (course.points[k], course.radii[k], k as f32 / n as f32);
        let end = if k == 0 { -1.0 } else { 1.0 };
        let dome = !course.closed && (k == 0 || k == n - 1);
        let mut end_rings: Vec<(f32, f32)> = vec![(0.0, r)];
        if dome && r > 1e-6 {
            let bulge = if cap { r * flat.min(1.0) } else { 0.0 };
            let steps: &[f32] = if cap { &[0.5, 0.85, 1.0] } else { &[1.0] };
            end_rings.extend(steps.iter().map(|a| {
                let (s, c) = (a * FRAC_PI_2).sin_cos();
                (bulge * s, if *a == 1.0 { 0.0 } else { r * c })
            }));
        }
        if k == 0 {
            end_rings.reverse();
        }
        rings
            .extend(end_rings.iter().map(|(out, r)| ring(&mut surface, p + t * (end * out), t, side, *r, v)));
    }
    if course.closed {
        rings.push(rings[0].clone());
    }
    surface.connect(&rings);
    if surface.volume6() < 0.0 {
        surface.flip();
    }
    surface
}

/// Ring in the XZ plane with outer half extents `half.x`, `half.z` and tube radius `tube` (height by
/// `half.y` if that is positive).
pub(super) fn torus(half: Vec3, tube_radius: f32, segments: usize) -> Surface {
    let sides = (segments / 2).max(6);
    let mut surface = Surface::default();
    let height = if half.y > 0.0 { half.y } else { tube_radius };
    let rings: Vec<Vec<u32>> = (0..=segments)
        .map(|i| {
            let i = i % segments;
            let u = i as f32 / segments as f32;
            let (s, c) = (u * TAU).sin_cos();
            (0..sides)
                .map(|j| {
                    let v = j as f32 / sides as f32;
                    let (sv, cv) = (v * TAU).sin_cos();
                    let r = half - Vec3::splat(tube_radius) + Vec3::splat(tube_radius * cv);
                    surface.vertex(Vec3::new(r.x * s, height * sv, r.z * c), Vec2::new(u, v))
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
