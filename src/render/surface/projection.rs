//! Cameras as the kernels want them.

use glam::DMat4;

use crate::render::camera::Camera;

/// The rows that take (position, 1) to x·w and y·w in pixels (y down) and w, the distance along the
/// viewing axis.
pub fn projection(camera: &Camera) -> [f32; 12] {
    let c2w = DMat4::from_cols_array(&camera.c2w.to_cols_array().map(f64::from));
    let w2c = c2w.inverse();
    let focal = 0.5 * f64::from(camera.height) / (0.5 * f64::from(camera.fov_y)).tan();
    let (right, up, distance) = (w2c.row(0), w2c.row(1), -w2c.row(2));
    let x = right * focal + distance * (0.5 * f64::from(camera.width));
    let y = up * -focal + distance * (0.5 * f64::from(camera.height));
    let mut out = [0.0; 12];
    for (out, row) in out.chunks_exact_mut(4).zip([x, y, distance]) {
        out.copy_from_slice(&row.as_vec4().to_array());
    }
    out
}
