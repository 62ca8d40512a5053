//! Where a part's copies go.

use glam::{EulerRot, Mat4, Quat, Vec3};

use super::expr::{Num, Params};
use super::spec::{Axis, Repeat};

/// Copies one `repeat` may ask for.
pub(super) const MAX_COPIES: usize = 4096;

/// Rotation by degrees about x, y, z: z first, then x, then y (roll, pitch, yaw).
pub(super) fn rotation(degrees: Vec3) -> Quat {
    let r = degrees * std::f32::consts::PI / 180.0;
    Quat::from_euler(EulerRot::YXZ, r.y, r.x, r.z)
}

/// Reflection across the plane through the parent's origin.
pub(super) fn reflection(axis: Axis) -> Mat4 {
    Mat4::from_scale(match axis {
        Axis::X => Vec3::new(-1.0, 1.0, 1.0),
        Axis::Y => Vec3::new(1.0, -1.0, 1.0),
        Axis::Z => Vec3::new(1.0, 1.0, -1.0),
    })
}

fn count(n: &Num, params: &Params) -> Result<usize, String> {
    let v = n.value(params)?.round();
    if (1.0..=MAX_COPIES as f32).contains(&v) {
        Ok(v as usize)
    } else {
        Err(format!("a count of {v} copies is not in 1..{MAX_COPIES}"))
    }
}

/// The transforms of the copies; `draw` yields uniform numbers in 0 … 1 for jitter.
pub(super) fn copies(
    repeat: &Repeat,
    params: &Params,
    draw: &mut dyn FnMut() -> f32,
) -> Result<Vec<Mat4>, String> {
    let chosen = [
        repeat.ring.is_some(),
        repeat.line.is_some(),
        repeat.stack.is_some(),
        repeat.grid.is_some(),
        repeat.sphere.is_some(),
        repeat.places.is_some(),
    ];
    if chosen.iter().filter(|c| **c).count() != 1 {
        return Err("`repeat` needs exactly one of ring, line, stack, grid, sphere, places".into());
    }
    let num = |n: &Option<Num>, default: f32| n.as_ref().map_or(Ok(default), |n| n.value(params));
    let radius = repeat.radius.as_ref().map_or(Ok(Vec3::splat(0.5)), |r| r.value(params))?;
    let step = repeat.step.as_ref().map_or(Ok(Vec3::ZERO), |s| s.value(params))?;
    let base: Vec<Mat4> = if let Some(n) = &repeat.ring {
        let (arc, start) = (num(&repeat.arc, 360.0)?, num(&repeat.start, 0.0)?);
        ring(count(n, params)?, radius, arc, start)
    } else if let Some(n) = &repeat.line {
        (0..count(n, params)?).map(|k| Mat4::from_translation(step * k as f32)).collect()
    } else if let Some(n) = &repeat.stack {
        (0..count(n, params)?).map(|k| Mat4::from_translation(Vec3::Y * step.y * k as f32)).collect()
    } else if let Some(n) = &repeat.grid {
        grid([count(&n[0], params)?, count(&n[1], params)?, count(&n[2], params)?], step)?
    } else if let Some(n) = &repeat.sphere {
        let band = match &repeat.band {
            Some([a, b]) => (a.value(params)?, b.value(params)?),
            None => (-1.0, 1.0),
        };
        sphere(count(n, params)?, radius, band)
    } else {
        poses(repeat.places.as_deref().unwrap_or_default(), params)?
    };
    let turn = repeat.turn.as_ref().map_or(Ok(Vec3::ZERO), |t| t.value(params))?;
    let shrink = num(&repeat.shrink, 1.0)?;
    let jitter = match &repeat.jitter {
        Some([a, b, c]) => [a.value(params)?, b.value(params)?, c.value(params)?],
        None => [0.0; 3],
    };
    let mut sym = |amount: f32| if amount == 0.0 { 0.0 } else { amount * (2.0 * draw() - 1.0) };
    Ok(base
        .into_iter()
        .enumerate()
        .map(|(k, m)| {
            let offset = Vec3::new(sym(jitter[0]), sym(jitter[0]), sym(jitter[0]));
            let tilt = Vec3::new(sym(jitter[1]), sym(jitter[1]), sym(jitter[1]));
            let size = shrink.powi(k as i32) * (1.0 + sym(jitter[2])).max(0.05);
            let own = Mat4::from_scale_rotation_translation(
                Vec3::splat(size),
                rotation(turn * k as f32 + tilt),
                Vec3::ZERO,
            );
            Mat4::from_translation(offset) * m * own
        })
        .collect())
}

fn ring(n: usize, radius: Vec3, arc: f32, start: f32) -> Vec<Mat4> {
    // A full circle does not repeat its first copy; an arc includes both ends.
    let gaps = if arc.abs() >= 360.0 { n } else { (n - 1).max(1) };
    (0..n)
        .map(|k| {
            let a = (start + arc * k as f32 / gaps as f32).to_radians();
            let p = Vec3::new(radius.x * a.sin(), 0.0, radius.z * a.cos());
            Mat4::from_translation(p) * Mat4::from_rotation_y(a)
        })
        .collect()
}

fn grid(n: [usize; 3], step: Vec3) -> Result<Vec<Mat4>, String> {
    if n[0] * n[1] * n[2] > MAX_COPIES {
        return Err(format!("a grid of {} copies is too large", n[0] * n[1] * n[2]));
    }
    let middle = Vec3::new((n[0] - 1) as f32, 0.0, (n[2] - 1) as f32) * 0.5;
    let mut out = vec![];
    for y in 0..n[1] {
        for z in 0..n[2] {
            for x in 0..n[0] {
                let k = Vec3::new(x as f32, y as f32, z as f32) - middle;
                out.push(Mat4::from_translation(k * step));
            }
        }
    }
    Ok(out)
}

/// Fibonacci lattice between the heights of `band` on the unit sphere, mapped to the ellipsoid.
fn sphere(n: usize, radius: Vec3, band: (f32, f32)) -> Vec<Mat4> {
    const GOLDEN: f32 = 2.399_963_2;
    (0..n)
        .map(|k| {
            let y = band.0 + (band.1 - band.0) * (k as f32 + 0.5) / n as f32;
            let r = (1.0 - y * y).max(0.0).sqrt();
            let a = GOLDEN * k as f32;
            let d = Vec3::new(r * a.sin(), y, r * a.cos());
            let normal = (d / radius.max(Vec3::splat(1e-6))).normalize_or(Vec3::Y);
            Mat4::from_rotation_translation(Quat::from_rotation_arc(Vec3::Y, normal), d * radius)
        })
        .collect()
}

fn poses(places: &[super::expr::List], params: &Params) -> Result<Vec<Mat4>, String> {
    if places.is_empty() || places.len() > MAX_COPIES {
        return Err(format!("`places` needs 1..{MAX_COPIES} entries"));
    }
    places
        .iter()
        .map(|list| match list.values(params)?.as_slice() {
            [x, y, z] => Ok(Mat4::from_translation(Vec3::new(*x, *y, *z))),
            [x, y, z, a, b, c] => {
                Ok(Mat4::from_rotation_translation(rotation(Vec3::new(*a, *b, *c)), Vec3::new(*x, *y, *z)))
            }
            other => Err(format!("a place has 3 or 6 numbers, not {}", other.len())),
        })
        .collect()
}
