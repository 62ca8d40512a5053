//! Other colours and materials than a thing has: "a red teapot", "a golden owl".

use glam::Vec3;
use palette::{FromColor, LinSrgb, Oklab};

use crate::asset::recipe::value_noise;
use crate::asset::{Asset, Mesh};

/// Colour words and their sRGB.
pub(super) const COLORS: [(&str, [u8; 3]); 12] = [
    ("red", [206, 38, 40]),
    ("orange", [238, 130, 30]),
    ("yellow", [246, 208, 52]),
    ("green", [58, 152, 62]),
    ("turquoise", [52, 190, 186]),
    ("blue", [44, 92, 204]),
    ("purple", [122, 66, 176]),
    ("pink", [242, 142, 186]),
    ("brown", [120, 72, 38]),
    ("black", [38, 38, 42]),
    ("gray", [140, 142, 146]),
    ("white", [244, 244, 240]),
];

/// How the brightness of a material changes from place to place.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pattern {
    Plain,
    /// Rings of a trunk along X.
    Grain,
    /// Fine noise.
    Grit,
    /// Dark lines where a coarse noise crosses its middle.
    Veins,
}

/// A material that a whole thing can be made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Substance {
    /// Goes before the noun.
    pub(super) word: &'static str,
    rgb: [u8; 3],
    metallic: f32,
    roughness: f32,
    pattern: Pattern,
}

const fn substance(
    word: &'static str,
    rgb: [u8; 3],
    metallic: f32,
    roughness: f32,
    pattern: Pattern,
) -> Substance {
    Substance { word, rgb, metallic, roughness, pattern }
}

/// All materials.
pub(super) const SUBSTANCES: [Substance; 8] = [
    substance("golden", [236, 180, 48], 0.85, 0.35, Pattern::Plain),
    substance("silver", [200, 205, 212], 0.85, 0.35, Pattern::Plain),
    substance("copper", [206, 112, 70], 0.85, 0.4, Pattern::Plain),
    substance("wooden", [172, 116, 62], 0.0, 0.8, Pattern::Grain),
    substance("stone", [142, 140, 134], 0.0, 0.95, Pattern::Grit),
    substance("marble", [236, 234, 230], 0.0, 0.35, Pattern::Veins),
    substance("jade", [74, 168, 122], 0.0, 0.3, Pattern::Plain),
    substance("chocolate", [88, 50, 28], 0.0, 0.45, Pattern::Plain),
];

/// One change of looks, named in the caption.
#[derive(Debug, Clone, Copy)]
pub(super) enum Edit {
    /// The thing's main colour becomes entry `0` of [`COLORS`]; eyes, handles and trimmings keep theirs.
    Color(usize),
    /// All of it is made of entry `0` of [`SUBSTANCES`].
    Substance(usize),
}

impl Edit {
    /// Number of edits there are.
    pub(super) const COUNT: usize = COLORS.len() + SUBSTANCES.len();

    /// Edit `i` of [`Edit::COUNT`].
    pub(super) fn nth(i: usize) -> Self {
        match i.checked_sub(COLORS.len()) {
            None => Self::Color(i),
            Some(i) => Self::Substance(i % SUBSTANCES.len()),
        }
    }

    /// All adjectives.
    pub(super) fn words() -> impl Iterator<Item = &'static str> {
        (0..Self::COUNT).map(|i| Self::nth(i).word())
    }

    /// The adjective.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Color(i) => COLORS[i].0,
            Self::Substance(i) => SUBSTANCES[i].word,
        }
    }

    /// Changes the vertex colours and materials of `asset`; textures stay, so it is meant for recipes.
    pub(super) fn apply(self, asset: &mut Asset) {
        let Some(main) = main_color(asset) else { return };
        match self {
            Self::Color(i) => {
                let target = oklab8(COLORS[i].1);
                recolor(asset, |_, c| blend(c, tinted(c, main, target), membership(c, main)));
            }
            Self::Substance(i) => {
                let substance = SUBSTANCES[i];
                let target = oklab8(substance.rgb);
                let size = asset.bounds().map_or(1.0, |(low, high)| (high - low).max_element().max(1e-6));
                recolor(asset, |p, c| {
                    let mut out = target;
                    // What was darker stays a little darker: eyes and seams look carved.
                    out.l += (0.35 * (c.l - main.l)).clamp(-0.16, 0.1) + shade(substance.pattern, p / size);
                    out
                });
                for material in &mut asset.materials {
                    material.metallic = substance.metallic;
                    material.roughness = substance.roughness;
                    material.emissive = [0.0; 3];
                }
            }
        }
    }
}

/// Brightness (OKLab's L) that a pattern adds at `p`, in units of the thing's size.
fn shade(pattern: Pattern, p: Vec3) -> f32 {
    match pattern {
        Pattern::Plain => 0.0,
        Pattern::Grain => {
            let wobble = 0.06 * value_noise(p * 4.0, 7);
            0.06 * (((p.y + 0.4 * p.z + wobble) * 60.0).sin())
        }
        Pattern::Grit => 0.16 * (value_noise(p * 26.0, 3) - 0.5),
        Pattern::Veins => {
            let line = (value_noise(p * 6.0, 5) - 0.5).abs() / 0.06;
            -0.22 * (1.0 - line).max(0.0)
        }
    }
}

/// How far `c` belongs to the colour `main`, 0 to 1: by hue and saturation first, since light and dark
/// sides of one paint differ in brightness only.
fn membership(c: Oklab, main: Oklab) -> f32 {
    let off = ((c.a - main.a).powi(2) + (c.b - main.b).powi(2) + (0.35 * (c.l - main.l)).powi(2)).sqrt();
    1.0 - ((off - 0.06) / 0.06).clamp(0.0, 1.0)
}

/// `target` with the brightness that `c` has relative to `main`.
fn tinted(c: Oklab, main: Oklab, target: Oklab) -> Oklab {
    Oklab { l: (target.l + 0.7 * (c.l - main.l)).clamp(0.05, 0.99), ..target }
}

fn blend(a: Oklab, b: Oklab, share: f32) -> Oklab {
    let mix = |x: f32, y: f32| x + (y - x) * share;
    Oklab::new(mix(a.l, b.l), mix(a.a, b.a), mix(a.b, b.b))
}

fn oklab8(rgb: [u8; 3]) -> Oklab {
    let srgb = palette::Srgb::new(rgb[0], rgb[1], rgb[2]).into_format::<f32>();
    Oklab::from_color(srgb)
}

fn oklab(linear: Vec3) -> Oklab {
    Oklab::from_color(LinSrgb::new(linear.x, linear.y, linear.z))
}

/// Replaces every vertex colour: `change` gets the position and the colour.
fn recolor(asset: &mut Asset, change: impl Fn(Vec3, Oklab) -> Oklab) {
    for mesh in &mut asset.meshes {
        for (color, p) in mesh.colors.iter_mut().zip(&mesh.positions) {
            let new = LinSrgb::from_color(change(*p, oklab(*color)));
            *color = Vec3::new(new.red, new.green, new.blue).clamp(Vec3::ZERO, Vec3::ONE);
        }
    }
}

/// The colour that covers most of the surface, `None` without coloured vertices: the fullest cell of a
/// coarse OKLab grid, averaged.
fn main_color(asset: &Asset) -> Option<Oklab> {
    let mut cells = std::collections::BTreeMap::<[i32; 3], (f32, Oklab)>::new();
    for mesh in &asset.meshes {
        for triangle in &mesh.triangles {
            let Some((area, color)) = area_and_color(mesh, triangle) else { continue };
            // Brightness in wider cells than hue, as in `membership`.
            let key = [color.l / 0.3, color.a / 0.06, color.b / 0.06].map(|x| x.round() as i32);
            let cell = cells.entry(key).or_insert((0.0, Oklab::new(0.0, 0.0, 0.0)));
            cell.0 += area;
            cell.1 += color * area;
        }
    }
    let (area, sum) = cells.into_values().max_by(|x, y| x.0.total_cmp(&y.0))?;
    (area > 0.0).then(|| sum / area)
}

fn area_and_color(mesh: &Mesh, triangle: &[u32; 3]) -> Option<(f32, Oklab)> {
    let at = |i: usize| {
        Some((*mesh.positions.get(triangle[i] as usize)?, *mesh.colors.get(triangle[i] as usize)?))
    };
    let [(a, x), (b, y), (c, z)] = [at(0)?, at(1)?, at(2)?];
    Some((0.5 * (b - a).cross(c - a).length(), oklab((x + y + z) / 3.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asset::recipe::Recipe;

    /// A red ball with a small white button.
    fn ball() -> Asset {
        let text = r##"
names = ["ball"]
category = "toy"
parts = [
  { shape = "ellipsoid", size = 1, color = "#c02020" },
  { shape = "ellipsoid", size = 0.2, at = [0, 0.5, 0], color = "#f4f4f4", metal = 0.5 },
]
"##;
        Recipe::parse(text).unwrap().build(0).unwrap()
    }

    fn colors(asset: &Asset) -> Vec<Vec3> {
        asset.meshes.iter().flat_map(|m| m.colors.iter().copied()).collect()
    }

    #[test]
    fn a_colour_replaces_the_main_one_only() {
        let before = ball();
        for (i, (word, rgb)) in COLORS.iter().enumerate() {
            let mut asset = before.clone();
            Edit::Color(i).apply(&mut asset);
            let target = oklab8(*rgb);
            let (mut changed, mut kept) = (0, 0);
            for (old, new) in colors(&before).into_iter().zip(colors(&asset)) {
                if old.x > 2.0 * old.y {
                    let new = oklab(new);
                    let off = (new.a - target.a).hypot(new.b - target.b).max((new.l - target.l).abs());
                    assert!(off < 0.03, "{word}: {new:?} instead of {target:?}");
                    changed += 1;
                } else {
                    assert!((old - new).length() < 1e-3, "{word}: the button changed to {new}");
                    kept += 1;
                }
            }
            assert!(changed > 50 && kept > 20);
            assert_eq!(asset.materials[1].metallic, before.materials[1].metallic);
        }
    }

    #[test]
    fn a_material_covers_all_and_shines_as_itself() {
        for (i, substance) in SUBSTANCES.iter().enumerate() {
            let mut asset = ball();
            Edit::Substance(i).apply(&mut asset);
            assert!(asset.materials.iter().all(|m| m.metallic == substance.metallic));
            let target = oklab8(substance.rgb);
            for c in colors(&asset) {
                let c = oklab(c);
                assert!((c.a - target.a).hypot(c.b - target.b) < 0.05, "{}: {c:?}", substance.word);
                assert!((c.l - target.l).abs() < 0.3);
            }
            let spread = |a: &Asset| {
                let l: Vec<f32> = a.meshes[0].colors.iter().map(|c| oklab(*c).l).collect();
                l.iter().copied().fold(0.0, f32::max) - l.iter().copied().fold(1.0, f32::min)
            };
            assert_eq!(spread(&asset) > 0.03, substance.pattern != Pattern::Plain, "{}", substance.word);
        }
    }

    #[test]
    fn words_are_told_apart() {
        let words: std::collections::BTreeSet<_> = Edit::words().collect();
        assert_eq!(words.len(), Edit::COUNT);
        let colors: Vec<Oklab> = COLORS.iter().map(|c| oklab8(c.1)).collect();
        for (i, x) in colors.iter().enumerate() {
            for y in &colors[..i] {
                let off = ((x.l - y.l).powi(2) + (x.a - y.a).powi(2) + (x.b - y.b).powi(2)).sqrt();
                assert!(off > 0.08, "{x:?} {y:?}");
            }
        }
    }
}
