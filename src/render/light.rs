//! Light for pictures of meshes: a hemisphere and a few lamps at infinity.

use glam::Vec3;

/// What lights a scene. Radiances are linear RGB and relative: a white matte surface facing a
/// single lamp of 1 with no hemisphere comes out as 1.
#[derive(Debug, Clone)]
pub struct Lighting {
    /// Light from straight above.
    pub sky: Vec3,
    /// Light from straight below; in between is blended by the normal's height.
    pub ground: Vec3,
    /// Lamps: unit direction towards the lamp, and its linear RGB.
    pub lights: Vec<(Vec3, Vec3)>,
}

impl Lighting {
    /// Soft studio light: a bright hemisphere, a key lamp high in front to the right, a weak fill
    /// from the left. Mild shading on purpose, so that colours stay readable.
    pub fn studio() -> Self {
        Self {
            sky: Vec3::new(0.65, 0.66, 0.67),
            ground: Vec3::new(0.40, 0.38, 0.36),
            lights: vec![
                (Vec3::new(0.45, 0.70, 0.55).normalize(), Vec3::new(0.35, 0.34, 0.32)),
                (Vec3::new(-0.80, 0.25, 0.35).normalize(), Vec3::new(0.09, 0.10, 0.11)),
            ],
        }
    }

    /// Even light from everywhere: surfaces come out in their own colour.
    pub fn flat() -> Self {
        Self { sky: Vec3::ONE, ground: Vec3::ONE, lights: Vec::new() }
    }

    /// Hemisphere light arriving on a surface whose unit normal has height `y` (−1 … 1).
    pub fn hemisphere(&self, y: f32) -> Vec3 {
        self.ground + (self.sky - self.ground) * (0.5 * y + 0.5)
    }
}
