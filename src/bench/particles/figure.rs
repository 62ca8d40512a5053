//! The figure: density and particles, side by side.

use image::{Rgb, RgbImage};
use imageproc::drawing::draw_filled_circle_mut;

use super::{Ends, target};

/// Pixels along a side of one panel.
const SIDE: u32 = 300;
/// Half the side of the part of the plane that is shown.
const HALF: f64 = 2.4;
const GAP: u32 = 6;

/// Three panels, from left to right: the start, SDS, VSD. Shades are the prior's density.
pub fn figure(ends: &Ends) -> RgbImage {
    let mut picture = RgbImage::from_pixel(3 * SIDE + 2 * GAP, SIDE, Rgb([255; 3]));
    let shades = shades();
    for (panel, points) in [&ends.start, &ends.sds, &ends.vsd].into_iter().enumerate() {
        let left = panel as u32 * (SIDE + GAP);
        for (i, shade) in shades.iter().enumerate() {
            let (x, y) = (i as u32 % SIDE, i as u32 / SIDE);
            picture.put_pixel(left + x, y, *shade);
        }
        for p in points.chunks_exact(2) {
            let at = |v: f64| ((v / HALF + 1.0) * 0.5 * f64::from(SIDE)) as i32;
            let (x, y) = (at(p[0]), at(-p[1]));
            if (2..SIDE as i32 - 2).contains(&x) && (2..SIDE as i32 - 2).contains(&y) {
                draw_filled_circle_mut(&mut picture, (left as i32 + x, y), 2, Rgb([200, 40, 30]));
            }
        }
    }
    picture
}

/// White to blue by the square root of the density, in eight steps (contours, and a small file).
fn shades() -> Vec<Rgb<u8>> {
    let density = |x: f64, y: f64| -> f64 {
        let one = |b: &super::Blob| {
            let ([xx, xy, yy], dx, dy) = (b.covariance, x - b.mean[0], y - b.mean[1]);
            let d = xx * yy - xy * xy;
            b.weight * (-0.5 * (yy * dx * dx - 2.0 * xy * dx * dy + xx * dy * dy) / d).exp() / d.sqrt()
        };
        target().iter().map(one).sum()
    };
    let at = |i: u32| ((f64::from(i) + 0.5) / f64::from(SIDE) * 2.0 - 1.0) * HALF;
    let all: Vec<f64> = (0..SIDE * SIDE).map(|i| density(at(i % SIDE), -at(i / SIDE)).sqrt()).collect();
    let top = all.iter().fold(0.0f64, |m, v| m.max(*v));
    all.iter()
        .map(|v| {
            let share = (v / top * 8.0).floor() / 8.0;
            Rgb([230.0 - 150.0 * share, 236.0 - 110.0 * share, 245.0 - 40.0 * share].map(|c: f64| c as u8))
        })
        .collect()
}
