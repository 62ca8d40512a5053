//! Colours: names, hexadecimal sRGB, palettes, and painted regions of a part.

use glam::{Vec2, Vec3};

use super::expr::Params;
use super::spec::Paint;
use super::surface::value_noise;
use crate::render::color::srgb_to_linear;

/// sRGB hex values of colour names every recipe may use.
const NAMED: [(&str, &str); 24] = [
    ("white", "#f5f5f2"),
    ("black", "#1c1c20"),
    ("gray", "#8d8f94"),
    ("silver", "#c3c8cf"),
    ("red", "#d3262c"),
    ("orange", "#f08a24"),
    ("yellow", "#f7d23a"),
    ("gold", "#e0a92e"),
    ("green", "#3f9b41"),
    ("lime", "#9ccb3c"),
    ("teal", "#2a9d97"),
    ("cyan", "#4fc6e0"),
    ("blue", "#2f66c8"),
    ("navy", "#24386e"),
    ("purple", "#7d46b0"),
    ("lavender", "#b9a4e0"),
    ("pink", "#f29bbd"),
    ("magenta", "#d1439a"),
    ("brown", "#7a4a26"),
    ("tan", "#cfa878"),
    ("cream", "#f6e8cb"),
    ("wood", "#9a6534"),
    ("stone", "#90908c"),
    ("leaf", "#4f9a3c"),
];

fn parse_hex(text: &str) -> Option<Vec3> {
    let digits =
        text.strip_prefix('#').filter(|d| d.len() == 6 && d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let channel = |i: usize| u8::from_str_radix(&digits[i..i + 2], 16).ok().map(|v| f32::from(v) / 255.0);
    Some(Vec3::new(channel(0)?, channel(2)?, channel(4)?))
}

/// Resolved palette of one build: names to sRGB.
pub(super) type Palette = std::collections::BTreeMap<String, Vec3>;

/// sRGB of `text`: `#rrggbb`, a palette entry or a common name, optionally `* factor`.
pub(super) fn srgb(text: &str, palette: &Palette) -> Result<Vec3, String> {
    let (name, factor) = match text.split_once('*') {
        Some((name, factor)) => {
            let factor: f32 =
                factor.trim().parse().map_err(|_| format!("bad brightness in colour `{text}`"))?;
            (name.trim(), factor)
        }
        None => (text.trim(), 1.0),
    };
    if !(0.0..=4.0).contains(&factor) {
        return Err(format!("brightness of colour `{text}` is not in 0..4"));
    }
    let named = || NAMED.iter().find(|(n, _)| *n == name).and_then(|(_, hex)| parse_hex(hex));
    let color = match palette.get(name) {
        Some(c) => *c,
        None => parse_hex(name)
            .or_else(named)
            .ok_or_else(|| format!("unknown colour `{name}` (a palette entry, #rrggbb or a common name)"))?,
    };
    Ok((color * factor).clamp(Vec3::ZERO, Vec3::ONE))
}

/// sRGB to linear, channel by channel.
pub(super) fn linear(srgb: Vec3) -> Vec3 {
    Vec3::from_array(srgb.to_array().map(srgb_to_linear))
}

/// A painted region with its numbers.
pub(super) struct Region {
    color: Vec3,
    dir: Vec3,
    from: f32,
    to: f32,
    soft: f32,
    spot: Option<(Vec3, f32)>,
    stripes: f32,
    wedges: f32,
    twist: f32,
    speckle: f32,
    duty: f32,
    mirror: bool,
    seed: u32,
}

impl Region {
    /// Evaluates `paint`; `copy` walks through its colours.
    pub(super) fn new(
        paint: &Paint,
        params: &Params,
        palette: &Palette,
        copy: usize,
        seed: u32,
    ) -> Result<Self, String> {
        let num =
            |n: &Option<super::expr::Num>, default: f32| n.as_ref().map_or(Ok(default), |n| n.value(params));
        let radius = num(&paint.radius, 0.3)?;
        let spot = paint.spot.as_ref().map(|s| s.value(params)).transpose()?.map(|s| (s, radius));
        Ok(Self {
            color: srgb(&paint.color.0[copy % paint.color.0.len()], palette)?,
            dir: paint.dir.as_ref().map_or(Ok(Vec3::Y), |d| d.value(params))?,
            from: num(&paint.from, -1e3)?,
            to: num(&paint.to, 1e3)?,
            soft: num(&paint.soft, 0.04)?.max(1e-4),
            spot,
            stripes: num(&paint.stripes, 0.0)?,
            wedges: num(&paint.wedges, 0.0)?,
            twist: num(&paint.twist, 0.0)?,
            speckle: num(&paint.speckle, 0.0)?,
            duty: num(&paint.duty, 0.5)?,
            mirror: paint.mirror.unwrap_or(false),
            seed,
        })
    }

    /// The colour (sRGB) after painting over `color` at box coordinates `p`, parameters `uv`.
    pub(super) fn apply(&self, color: Vec3, p: Vec3, uv: Vec2) -> Vec3 {
        let p = if self.mirror { Vec3::new(p.x.abs(), p.y, p.z) } else { p };
        let step = |x: f32| {
            let t = (x / self.soft + 0.5).clamp(0.0, 1.0);
            t * t * (3.0 - 2.0 * t)
        };
        let x = self.dir.dot(p);
        let mut mask = step(x - self.from) * step(self.to - x);
        if let Some((centre, radius)) = self.spot {
            mask *= step(radius - p.distance(centre));
        }
        if self.stripes > 0.0 {
            let t = (x - self.from) / (self.to - self.from).max(1e-6) * self.stripes;
            mask *= f32::from(t.rem_euclid(1.0) < self.duty);
        }
        if self.wedges > 0.0 {
            let t = uv.x * self.wedges + uv.y * self.twist;
            mask *= f32::from(t.rem_euclid(1.0) < self.duty);
        }
        if self.speckle > 0.0 {
            mask *= step(value_noise(p * self.speckle, self.seed) - 1.0 + self.duty);
        }
        color.lerp(self.color, mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_resolve() {
        let palette = Palette::from([("shell".into(), Vec3::new(0.5, 1.0, 0.25))]);
        assert_eq!(srgb("shell * 0.5", &palette), Ok(Vec3::new(0.25, 0.5, 0.125)));
        assert_eq!(srgb("#ff0000", &palette), Ok(Vec3::X));
        assert!(srgb("white", &palette).is_ok());
        for bad in ["#ff00", "#gg0000", "nocolour", "white*x", "white*9", "#é0000"] {
            assert!(srgb(bad, &palette).is_err(), "{bad}");
        }
        // 0.5 in sRGB is 0.21404 linear.
        assert!((linear(Vec3::splat(0.5)).x - 0.214_04).abs() < 1e-4);
    }
}
