//! Plain backgrounds of pictures, as the embedded prior knows them.

use glam::Vec3;

use super::color::srgb_to_linear;

/// The background (linear RGB) of four uniform numbers in [0, 1): a grey with a breath of colour, one
/// time in seven a pastel. Training pictures and the generation loop draw from this one distribution, or
/// the prior would be asked about pictures it has never seen; it is narrow because a small prior that
/// spends itself on backgrounds has less left for things.
pub fn background_color([kind, a, b, c]: [f32; 4]) -> Vec3 {
    let srgb = if kind < 0.86 {
        Vec3::splat(0.5 + 0.48 * a) + 0.04 * Vec3::new(b - 0.5, 0.0, c - 0.5)
    } else {
        Vec3::splat(0.6) + 0.4 * Vec3::new(a, b, c)
    };
    let srgb = srgb.clamp(Vec3::ZERO, Vec3::ONE);
    Vec3::new(srgb_to_linear(srgb.x), srgb_to_linear(srgb.y), srgb_to_linear(srgb.z))
}
