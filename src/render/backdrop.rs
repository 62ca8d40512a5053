//! Plain backgrounds of pictures, as the embedded prior knows them.

use glam::Vec3;

use super::color::srgb_to_linear;

/// The background (linear RGB) of four uniform numbers in [0, 1): mostly light and neutral, sometimes
/// pastel, seldom any colour. Training pictures and the generation loop draw from this one
/// distribution, or the prior would be asked about pictures it has never seen.
pub fn background_color([kind, a, b, c]: [f32; 4]) -> Vec3 {
    let srgb = if kind < 0.6 {
        Vec3::splat(0.72 + 0.28 * a) + 0.04 * Vec3::new(b - 0.5, 0.0, c - 0.5)
    } else if kind < 0.85 {
        Vec3::splat(0.55) + 0.45 * Vec3::new(a, b, c)
    } else {
        Vec3::new(a, b, c)
    };
    let srgb = srgb.clamp(Vec3::ZERO, Vec3::ONE);
    Vec3::new(srgb_to_linear(srgb.x), srgb_to_linear(srgb.y), srgb_to_linear(srgb.z))
}
