//! Where pictures are taken from.

use glam::Vec3;

use crate::render::camera::Camera;

/// The picture's size and angle of view.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lens {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Vertical field of view in degrees.
    pub fov: f32,
}

/// The camera's place around the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Eye {
    /// Degrees about the vertical axis: 0 in front, 90 on the model's left (+X).
    pub azimuth: f32,
    /// Degrees above the horizon.
    pub elevation: f32,
    /// From the model's middle, in radii of its bounding sphere; `None`: all of it just fits.
    pub distance: Option<f32>,
}

impl Lens {
    /// The camera of a place, for a model of radius 1 around the origin.
    pub fn camera(&self, eye: &Eye) -> Camera {
        let fov = self.fov.to_radians();
        let distance = eye.distance.unwrap_or_else(|| 1.02 / self.narrow().sin());
        let camera = Camera::orbit(eye.azimuth, eye.elevation, distance, Vec3::ZERO, fov, self.height);
        Camera { width: self.width, ..camera }
    }

    /// Half the smaller of the vertical and the horizontal field of view, radians.
    fn narrow(&self) -> f32 {
        let half = 0.5 * self.fov.to_radians();
        let aspect = self.width as f32 / self.height as f32;
        half.min((half.tan() * aspect).atan())
    }

    /// Cameras evenly all around, the first at `eye`.
    pub fn turntable(&self, eye: &Eye, count: u32) -> Vec<Camera> {
        let turn = |i: u32| Eye { azimuth: eye.azimuth + 360.0 * i as f32 / count as f32, ..*eye };
        (0..count).map(|i| self.camera(&turn(i))).collect()
    }
}
