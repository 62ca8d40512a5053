//! Pinhole cameras. Right-handed, +Y up; a camera looks down its own −Z; image row 0 is on top.

use glam::{Mat4, Vec3, Vec4};

/// A pinhole camera with square pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Camera {
    /// Camera-to-world transform (column vectors; columns are right, up, backward, position).
    pub c2w: Mat4,
    /// Vertical field of view in radians.
    pub fov_y: f32,
    /// Picture width in pixels.
    pub width: u32,
    /// Picture height in pixels.
    pub height: u32,
}

impl Camera {
    /// A camera on a sphere around `target`, looking at it.
    ///
    /// Azimuth 0° stands in front of the asset (on +Z), 90° on its +X side; elevation 90° is
    /// straight above. Angles in degrees, `distance` in world units.
    pub fn orbit(azimuth: f32, elevation: f32, distance: f32, target: Vec3, fov_y: f32, size: u32) -> Self {
        let (sa, ca) = azimuth.to_radians().sin_cos();
        let (se, ce) = elevation.to_radians().sin_cos();
        let back = Vec3::new(sa * ce, se, ca * ce);
        // Derivative of `back` by azimuth: stays defined straight above and below.
        let right = Vec3::new(ca, 0.0, -sa);
        let up = back.cross(right);
        let eye = target + back * distance;
        let c2w = Mat4::from_cols(right.extend(0.0), up.extend(0.0), back.extend(0.0), eye.extend(1.0));
        Self { c2w, fov_y, width: size, height: size }
    }

    /// The camera's position.
    pub fn origin(&self) -> Vec3 {
        self.c2w.w_axis.truncate()
    }

    /// Unit direction of the ray through pixel coordinates (`x` right, `y` down; centres at +0.5).
    pub fn direction(&self, x: f32, y: f32) -> Vec3 {
        let t = (0.5 * self.fov_y).tan();
        let px = (2.0 * x / self.width as f32 - 1.0) * t * self.width as f32 / self.height as f32;
        let py = (1.0 - 2.0 * y / self.height as f32) * t;
        (self.c2w * Vec4::new(px, py, -1.0, 0.0)).truncate().normalize()
    }

    /// World to clip space (depth 0..1, y up), for rasterisation.
    pub fn world_to_clip(&self, near: f32, far: f32) -> Mat4 {
        let f = 1.0 / (0.5 * self.fov_y).tan();
        let aspect = self.width as f32 / self.height as f32;
        let r = far / (near - far);
        let projection = Mat4::from_cols(
            Vec4::new(f / aspect, 0.0, 0.0, 0.0),
            Vec4::new(0.0, f, 0.0, 0.0),
            Vec4::new(0.0, 0.0, r, -1.0),
            Vec4::new(0.0, 0.0, r * near, 0.0),
        );
        projection * self.c2w.inverse()
    }

    /// The 16 numbers the prior is conditioned by: `c2w` row by row.
    pub fn embedding(&self) -> [f32; 16] {
        self.c2w.transpose().to_cols_array()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orbit_follows_the_conventions() {
        let front = Camera::orbit(0.0, 0.0, 2.0, Vec3::ZERO, 0.7, 64);
        assert!((front.origin() - Vec3::new(0.0, 0.0, 2.0)).length() < 1e-6);
        assert!((front.direction(32.0, 32.0) - Vec3::NEG_Z).length() < 1e-6);
        assert!(front.direction(63.5, 32.0).x > 0.0 && front.direction(32.0, 0.5).y > 0.0);
        let side = Camera::orbit(90.0, 30.0, 2.0, Vec3::ZERO, 0.7, 64);
        assert!(side.origin().x > 0.0 && side.origin().y > 0.9 && side.c2w.determinant() > 0.99);
        let above = Camera::orbit(0.0, 90.0, 2.0, Vec3::ZERO, 0.7, 64);
        assert!((above.direction(32.0, 32.0) - Vec3::NEG_Y).length() < 1e-6);
        // Row-major: the translation sits at 3, 7, 11.
        assert!((front.embedding()[11] - 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_point_projects_to_the_pixel_whose_ray_meets_it() {
        let cam = Camera::orbit(33.0, 20.0, 2.5, Vec3::new(0.1, 0.2, 0.0), 0.8, 50);
        let p = cam.origin() + cam.direction(11.5, 40.5) * 1.7;
        let clip = cam.world_to_clip(0.1, 10.0) * p.extend(1.0);
        let (x, y) = (clip.x / clip.w, clip.y / clip.w);
        assert!(((x + 1.0) * 25.0 - 11.5).abs() < 1e-3 && ((1.0 - y) * 25.0 - 40.5).abs() < 1e-3);
    }
}
