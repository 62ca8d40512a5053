//! Environments made here, so that none has to be shipped.

use std::sync::{Arc, LazyLock};

use glam::DVec3;

use super::environment::Environment;

/// The environments by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Studio {
    /// Even light of 1 from everywhere.
    White,
    /// Three softboxes in a dim room.
    Softboxes,
    /// A clouded sky (the CIE overcast sky) over grey ground.
    Overcast,
    /// A low sun in a clear evening sky.
    Sunset,
    /// A moonlit sky and a few street lamps.
    Night,
}

impl Studio {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::White, Self::Softboxes, Self::Overcast, Self::Sunset, Self::Night];

    /// The environment, prepared at its first use.
    pub fn environment(self) -> Arc<Environment> {
        static PREPARED: [LazyLock<Arc<Environment>>; 5] = [
            LazyLock::new(|| Arc::new(Environment::constant(DVec3::ONE))),
            LazyLock::new(|| Arc::new(Environment::new(softboxes))),
            LazyLock::new(|| Arc::new(Environment::new(overcast))),
            LazyLock::new(|| Arc::new(Environment::new(sunset))),
            LazyLock::new(|| Arc::new(Environment::new(night))),
        ];
        PREPARED[self as usize].clone()
    }
}

/// 0 below `low`, 1 above `high`, smooth between.
fn step(low: f64, high: f64, x: f64) -> f64 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Degrees of azimuth (0: +Z, 90: +X) and elevation as a direction.
fn toward(azimuth: f64, elevation: f64) -> DVec3 {
    let ((sa, ca), (se, ce)) = (azimuth.to_radians().sin_cos(), elevation.to_radians().sin_cos());
    DVec3::new(sa * ce, se, ca * ce)
}

/// A rectangle at distance 1 in direction `at`, `half` its half sides, with soft edges: 0 … 1.
fn panel(d: DVec3, at: DVec3, half: (f64, f64)) -> f64 {
    let facing = d.dot(at);
    if facing <= 0.0 {
        return 0.0;
    }
    let right = DVec3::Y.cross(at).normalize_or(DVec3::X);
    let up = at.cross(right);
    let (x, y) = (d.dot(right) / facing, d.dot(up) / facing);
    let soft = 0.06;
    (1.0 - step(half.0 - soft, half.0 + soft, x.abs())) * (1.0 - step(half.1 - soft, half.1 + soft, y.abs()))
}

/// Round and soft, `radius` degrees.
fn disc(d: DVec3, at: DVec3, radius: f64) -> f64 {
    let (inner, outer) = ((1.25 * radius).to_radians().cos(), (0.75 * radius).to_radians().cos());
    step(inner, outer, d.dot(at))
}

fn softboxes(d: DVec3) -> DVec3 {
    let room = DVec3::splat(0.30).lerp(DVec3::new(0.56, 0.57, 0.58), step(-0.6, 0.8, d.y));
    let floor = DVec3::new(0.34, 0.33, 0.32) * step(0.1, -0.3, d.y);
    let key = DVec3::new(6.2, 6.0, 5.7) * panel(d, toward(42.0, 42.0), (0.42, 0.34));
    let fill = DVec3::new(1.7, 1.8, 1.9) * panel(d, toward(-68.0, 18.0), (0.30, 0.62));
    let rim = DVec3::splat(4.2) * panel(d, toward(168.0, 38.0), (0.62, 0.16));
    room + floor + key + fill + rim
}

fn overcast(d: DVec3) -> DVec3 {
    // CIE: L(θ) = L_z (1 + 2 sin θ) / 3; faint bands of cloud keep mirrors from being empty.
    let sky = DVec3::new(1.16, 1.20, 1.26) * (1.0 + 2.0 * d.y.max(0.0)) / 3.0;
    let cloud = 1.0 + 0.12 * (5.0 * d.x + 3.0 * d.z + 4.0 * d.y).sin() * step(0.0, 0.4, d.y);
    let ground = DVec3::new(0.30, 0.29, 0.27);
    ground.lerp(sky * cloud, step(-0.04, 0.04, d.y))
}

fn sunset(d: DVec3) -> DVec3 {
    let sun = toward(52.0, 11.0);
    let near = 0.5
        + 0.5 * DVec3::new(d.x, 0.0, d.z).normalize_or_zero().dot(DVec3::new(sun.x, 0.0, sun.z).normalize());
    let horizon = DVec3::new(0.55, 0.36, 0.40).lerp(DVec3::new(1.9, 0.82, 0.34), near * near);
    let zenith = DVec3::new(0.16, 0.24, 0.46);
    let sky = horizon.lerp(zenith, step(-0.05, 0.75, d.y));
    let glow = DVec3::new(3.0, 1.3, 0.45) * d.dot(sun).max(0.0).powi(24);
    let ground = DVec3::new(0.16, 0.12, 0.11) * (0.6 + 0.8 * near);
    ground.lerp(sky + glow, step(-0.03, 0.03, d.y)) + DVec3::new(95.0, 55.0, 26.0) * disc(d, sun, 3.5)
}

fn night(d: DVec3) -> DVec3 {
    let sky = DVec3::new(0.050, 0.062, 0.110).lerp(DVec3::new(0.016, 0.022, 0.052), step(0.0, 0.8, d.y));
    let ground = DVec3::new(0.030, 0.028, 0.030);
    let moon = DVec3::new(26.0, 29.0, 36.0) * disc(d, toward(-58.0, 52.0), 5.0);
    let lamp =
        |azimuth: f64, elevation: f64| DVec3::new(30.0, 17.0, 6.5) * disc(d, toward(azimuth, elevation), 4.0);
    let window = DVec3::new(2.6, 1.9, 1.0) * panel(d, toward(-115.0, 6.0), (0.22, 0.10));
    ground.lerp(sky, step(-0.02, 0.02, d.y))
        + moon
        + lamp(40.0, 24.0)
        + lamp(75.0, 17.0)
        + lamp(158.0, 21.0)
        + window
}
