//! Where a picture was taken from and through which lens: pixel coordinates to rays and back.

use glam::{DMat3, DVec2, DVec3};

/// Intrinsics in pixels, with OpenCV's radial and tangential distortion (all zero: a pinhole).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lens {
    /// Focal lengths in pixels.
    pub focal: DVec2,
    /// Principal point in pixels from the top left corner (the centre of the first pixel is at ½).
    pub center: DVec2,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Radial coefficients k₁, k₂, k₃.
    pub radial: [f64; 3],
    /// Tangential coefficients p₁, p₂.
    pub tangential: [f64; 2],
}

/// Fixed-point iterations that undo the distortion; each gains a digit for lenses of this family.
const ITERATIONS: usize = 20;

impl Lens {
    /// A pinhole with square pixels whose axis goes through the middle of the picture.
    pub fn pinhole(width: u32, height: u32, focal: f64) -> Self {
        let center = 0.5 * DVec2::new(f64::from(width), f64::from(height));
        Self { focal: DVec2::splat(focal), center, width, height, radial: [0.0; 3], tangential: [0.0; 2] }
    }

    /// The lens of the picture of every `stride`-th pixel, the first at the stride's middle.
    #[must_use]
    pub fn reduced(&self, stride: u32) -> Self {
        let k = f64::from(stride);
        // Pixel x of the small picture is pixel x·k + ⌊k/2⌋ of the large one, centre on centre.
        let shift = (f64::from(stride / 2) + 0.5) / k - 0.5;
        Self {
            focal: self.focal / k,
            center: self.center / k - shift,
            width: self.width / stride,
            height: self.height / stride,
            ..*self
        }
    }

    /// Direction of the ray through pixel coordinates in the camera's frame (x right, y up, −z
    /// forward); its z is −1, its length is not 1.
    pub fn direction(&self, pixel: DVec2) -> DVec3 {
        let target = (pixel - self.center) / self.focal;
        let mut p = target;
        if self.radial != [0.0; 3] || self.tangential != [0.0; 2] {
            for _ in 0..ITERATIONS {
                p = target - (self.distort(p) - p);
            }
        }
        DVec3::new(p.x, -p.y, -1.0)
    }

    /// Pixel coordinates of a point in the camera's frame; `None` behind the camera.
    pub fn project(&self, point: DVec3) -> Option<DVec2> {
        let depth = -point.z;
        (depth > 1e-9).then(|| {
            let p = self.distort(DVec2::new(point.x, -point.y) / depth);
            p * self.focal + self.center
        })
    }

    /// OpenCV's model on normalised coordinates (y down).
    fn distort(&self, p: DVec2) -> DVec2 {
        let ([k1, k2, k3], [p1, p2]) = (self.radial, self.tangential);
        let r2 = p.length_squared();
        let radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3));
        let tangential = DVec2::new(
            2.0 * p1 * p.x * p.y + p2 * (r2 + 2.0 * p.x * p.x),
            p1 * (r2 + 2.0 * p.y * p.y) + 2.0 * p2 * p.x * p.y,
        );
        p * radial + tangential
    }

    /// The vertical field of view in radians, if the lens is a centred pinhole with square pixels (to
    /// half a pixel over the picture), as the rasteriser's cameras are.
    pub fn centered_fov_y(&self) -> Option<f32> {
        let size = DVec2::new(f64::from(self.width), f64::from(self.height));
        let off = (self.center - 0.5 * size).abs().max_element();
        let skew = (self.focal.x / self.focal.y - 1.0).abs() * size.x;
        let plain = off < 0.5 && skew < 0.5 && self.radial == [0.0; 3] && self.tangential == [0.0; 2];
        plain.then(|| 2.0 * (0.5 * size.y / self.focal.y).atan() as f32)
    }
}

/// Camera to world: a rotation (columns right, up, backward: OpenGL) and a position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pose {
    /// Orthonormal, determinant 1.
    pub rotation: DMat3,
    /// Position of the camera.
    pub position: DVec3,
}

impl Pose {
    /// A world point in the camera's frame.
    pub fn to_camera(&self, point: DVec3) -> DVec3 {
        self.rotation.transpose() * (point - self.position)
    }

    /// The viewing direction.
    pub fn forward(&self) -> DVec3 {
        -self.rotation.z_axis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rays_and_projection_are_inverse_with_and_without_distortion() {
        let mut lens = Lens::pinhole(64, 48, 70.0);
        lens.center += DVec2::new(1.5, -2.0);
        lens.focal.y = 65.0;
        for (radial, tangential) in [([0.0; 3], [0.0; 2]), ([-0.1, 0.03, -0.005], [1e-3, -2e-3])] {
            (lens.radial, lens.tangential) = (radial, tangential);
            for pixel in [DVec2::new(0.5, 0.5), DVec2::new(33.0, 20.0), DVec2::new(63.5, 47.5)] {
                let back = lens.project(3.7 * lens.direction(pixel)).unwrap();
                assert!((back - pixel).length() < 1e-6, "{pixel} {back}");
            }
        }
        assert!(lens.project(DVec3::Z).is_none());
        assert!(lens.centered_fov_y().is_none());
    }

    #[test]
    fn a_reduced_lens_looks_through_the_same_pixels() {
        let lens = Lens::pinhole(64, 48, 70.0);
        for stride in [1, 2, 3, 5] {
            let small = lens.reduced(stride);
            let large = f64::from(7 * stride + stride / 2) + 0.5;
            let error = small.direction(DVec2::splat(7.5)) - lens.direction(DVec2::splat(large));
            assert!(error.length() < 1e-12, "{stride}: {error}");
        }
    }

    #[test]
    fn a_pinhole_agrees_with_the_engines_camera() {
        use crate::render::camera::Camera;
        let camera = Camera::orbit(33.0, 20.0, 2.5, glam::Vec3::ZERO, 0.8, 50);
        let lens = Lens::pinhole(50, 50, 25.0 / 0.4f64.tan());
        assert!((lens.centered_fov_y().unwrap() - 0.8).abs() < 1e-6);
        let ours = lens.direction(DVec2::new(11.5, 40.5)).normalize().as_vec3();
        let theirs = camera.c2w.inverse().transform_vector3(camera.direction(11.5, 40.5));
        assert!((ours - theirs).length() < 1e-6, "{ours} {theirs}");
    }
}
