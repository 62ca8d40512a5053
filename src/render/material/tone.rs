//! From light to what a screen shows.

use glam::Vec3;

/// How light beyond a screen's range is brought into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Tone {
    /// Khronos PBR Neutral: colours up to 0.8 as they are, highlights compressed and washed out
    #[default]
    Neutral,
    /// The film-like curve of ACES (Narkowicz 2015): more contrast, other hues
    Aces,
    /// None: what is brighter than white is cut off
    None,
}

impl Tone {
    /// Linear light to linear screen values 0 … 1.
    pub fn map(self, light: Vec3) -> Vec3 {
        let light = if light.is_finite() { light.max(Vec3::ZERO) } else { Vec3::ZERO };
        match self {
            Self::Neutral => neutral(light),
            Self::Aces => aces(light),
            Self::None => light,
        }
        .clamp(Vec3::ZERO, Vec3::ONE)
    }
}

/// Khronos PBR Neutral Tone Mapper, as its specification has it.
fn neutral(mut color: Vec3) -> Vec3 {
    const START: f32 = 0.8 - 0.04;
    const DESATURATION: f32 = 0.15;
    let low = color.min_element();
    let offset = if low < 0.08 { low - 6.25 * low * low } else { 0.04 };
    color -= offset;
    let peak = color.max_element();
    if peak < START {
        return color;
    }
    let d = 1.0 - START;
    let new_peak = 1.0 - d * d / (peak + d - START);
    color *= new_peak / peak;
    let g = 1.0 - 1.0 / (DESATURATION * (peak - new_peak) + 1.0);
    color.lerp(Vec3::splat(new_peak), g)
}

fn aces(x: Vec3) -> Vec3 {
    (x * (2.51 * x + 0.03)) / (x * (2.43 * x + 0.59) + 0.14)
}
