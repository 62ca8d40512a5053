//! The camera as a picture: for each latent pixel the ray it looks along, as further input channels.
//!
//! A convolution does not know where in the picture it is, and a camera told as one vector has to be
//! turned into a layout somewhere inside the network; a small one spends most of its training on that.
//! With the rays every pixel knows which part of the scene it looks at, before the first layer.

use candle_core::{DType, Tensor};
use glam::{Mat4, Vec3, Vec4};

use crate::error::{Error, Result};

/// Channels of the ray map.
pub(super) const CHANNELS: usize = 6;

/// Ray maps `[B, 6, h, w]` of cameras `[B, 16]` (camera to world, row by row) with a vertical field of
/// view of `fov` degrees: the point of each pixel's ray that is nearest to the origin, and the ray's unit
/// direction, both in world coordinates.
///
/// # Errors
/// If a camera has not 16 numbers.
pub fn ray_map(cameras: &Tensor, fov: f32, (h, w): (usize, usize)) -> Result<Tensor> {
    let rows = cameras.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let pixels = h * w;
    let mut values = vec![0f32; rows.len() * CHANNELS * pixels];
    let tangent = (0.5 * fov.to_radians()).tan();
    for (row, out) in rows.iter().zip(values.chunks_exact_mut(CHANNELS * pixels)) {
        let numbers: [f32; 16] = row
            .as_slice()
            .try_into()
            .map_err(|_| Error::invalid("class_labels", format!("{} numbers, a camera has 16", row.len())))?;
        let c2w = Mat4::from_cols_array(&numbers).transpose();
        let origin = c2w.w_axis.truncate();
        for i in 0..pixels {
            let (x, y) = ((i % w) as f32 + 0.5, (i / w) as f32 + 0.5);
            let px = (2.0 * x / w as f32 - 1.0) * tangent * w as f32 / h as f32;
            let py = (1.0 - 2.0 * y / h as f32) * tangent;
            let d: Vec3 = (c2w * Vec4::new(px, py, -1.0, 0.0)).truncate().normalize_or_zero();
            let nearest = origin - d * origin.dot(d);
            for (channel, v) in nearest.to_array().into_iter().chain(d.to_array()).enumerate() {
                out[channel * pixels + i] = v;
            }
        }
    }
    Ok(Tensor::from_vec(values, (rows.len(), CHANNELS, h, w), cameras.device())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::camera::Camera;
    use candle_core::Device;

    #[test]
    fn rays_are_those_of_the_camera() {
        let camera = Camera::orbit(130.0, 25.0, 2.3, Vec3::ZERO, 40f32.to_radians(), 8);
        let numbers = Tensor::new(&[camera.embedding()], &Device::Cpu).unwrap();
        let map = ray_map(&numbers, 40.0, (8, 8)).unwrap();
        for (x, y) in [(0usize, 0usize), (5, 2), (7, 7)] {
            let at = |c: usize| map.get(0).unwrap().get(c).unwrap().get(y).unwrap().get(x).unwrap();
            let v: Vec<f32> = (0..6).map(|c| at(c).to_scalar().unwrap()).collect();
            let (p, d) = (Vec3::new(v[0], v[1], v[2]), Vec3::new(v[3], v[4], v[5]));
            assert!((d - camera.direction(x as f32 + 0.5, y as f32 + 0.5)).length() < 1e-6);
            assert!(p.dot(d).abs() < 1e-6, "nearest to the origin");
            assert!((p - camera.origin()).cross(d).length() < 1e-5, "on the ray");
        }
        assert!(ray_map(&Tensor::zeros((1, 3), DType::F32, &Device::Cpu).unwrap(), 40.0, (2, 2)).is_err());
    }
}
