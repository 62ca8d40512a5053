//! What a recipe file may say. Unknown keys and wrong types are errors with their line.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::expr::{List, Num, Triple};

/// A recipe file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    /// Nouns, the best first.
    pub(super) names: Vec<String>,
    /// More captions, complete.
    #[serde(default)]
    pub(super) phrases: Vec<String>,
    /// The nouns take no article ("macarons").
    #[serde(default)]
    pub(super) plural: bool,
    /// Coarse kind: animal, food, plant…
    pub(super) category: String,
    /// Has a front, which is +Z.
    #[serde(default = "yes")]
    pub(super) front: bool,
    /// Things can stand on it.
    #[serde(default)]
    pub(super) support: bool,
    /// Share of its height by which it settles down on what it stands on: a bird sits on its belly.
    #[serde(default)]
    pub(super) settle: f32,
    #[serde(default)]
    pub(super) params: BTreeMap<String, List>,
    #[serde(default)]
    pub(super) palette: BTreeMap<String, Names>,
    #[serde(default)]
    pub(super) variants: Vec<Variant>,
    pub(super) parts: Vec<Part>,
}

fn yes() -> bool {
    true
}

/// One look of the prop: a colour word for the caption and the palette entries it changes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variant {
    /// Goes before the noun: "pink".
    pub(super) word: String,
    pub(super) colors: BTreeMap<String, Names>,
}

/// One string or several.
#[derive(Debug, Clone)]
pub(super) struct Names(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesVisitor;
        impl<'de> Visitor<'de> for NamesVisitor {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a colour or a list of colours")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Names, E> {
                Ok(Names(vec![v.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
                let mut list = Vec::new();
                while let Some(n) = seq.next_element()? {
                    list.push(n);
                }
                if list.is_empty() {
                    return Err(de::Error::invalid_length(0, &"at least one colour"));
                }
                Ok(Names(list))
            }
        }
        deserializer.deserialize_any(NamesVisitor)
    }
}

/// Primitive shapes; `ARCHITECTURE` of each in [`super::shape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shape {
    /// Ellipsoid; with `power` a superellipsoid.
    Ellipsoid,
    /// Box with edges rounded by `round`, top scaled by `top`.
    Box,
    /// Cylinder, rim rounded by `round`.
    Cylinder,
    /// Frustum: the top's diameter is `top` (default 0) times the bottom's.
    Cone,
    /// Cylinder with hemispherical ends.
    Capsule,
    /// Ring in the XZ plane with tube radius `tube`.
    Torus,
    /// Surface of revolution of `profile` around Y.
    Lathe,
    /// Tube along `points` of `radius`.
    Tube,
    /// `outline` in the XY plane extruded by `thick` along Z.
    Blade,
    /// Leaf, petal or feather: from the origin along +Y, curling towards +Z.
    Leaf,
}

/// A primitive or a group of parts, placed, repeated and coloured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    pub(super) name: Option<String>,
    pub(super) shape: Option<Shape>,
    pub(super) group: Option<Vec<Part>>,
    /// Makes the group one skin: where two of its parts come nearer than this, they flow into each other
    /// (smooth union); 0 keeps the edge.
    pub(super) blend: Option<Num>,
    /// Within a blended group: taken away from the rest (boolean difference) instead of added.
    #[serde(default)]
    pub(super) cut: bool,
    /// Where the part, or the arrangement of its copies, sits in the parent.
    pub(super) at: Option<Triple>,
    /// Turns each copy: degrees about x, y, z (z first, then x, then y).
    pub(super) rot: Option<Triple>,
    pub(super) scale: Option<Triple>,
    /// Full extents.
    pub(super) size: Option<Triple>,
    /// One colour, or a list that copies walk through.
    pub(super) color: Option<Names>,
    #[serde(default)]
    pub(super) paint: Vec<Paint>,
    pub(super) rough: Option<Num>,
    pub(super) metal: Option<Num>,
    /// Emitted light, times the colour.
    pub(super) glow: Option<Num>,
    pub(super) mirror: Option<Axis>,
    pub(super) repeat: Option<Repeat>,
    /// Probability of being there.
    pub(super) chance: Option<Num>,
    /// Factor on the number of segments.
    pub(super) detail: Option<Num>,
    /// Bumps: [amount, waves across the part].
    pub(super) bumps: Option<[Num; 2]>,
    pub(super) profile: Option<Vec<[Num; 2]>>,
    pub(super) points: Option<Vec<Triple>>,
    pub(super) radius: Option<List>,
    pub(super) top: Option<Num>,
    pub(super) round: Option<Num>,
    pub(super) tube: Option<Num>,
    pub(super) power: Option<Num>,
    /// Flutes around the axis: [count, depth as a share of the radius].
    pub(super) flute: Option<[Num; 2]>,
    pub(super) outline: Option<Outline>,
    pub(super) thick: Option<Num>,
    /// Cross-section height over width of a tube.
    pub(super) flat: Option<Num>,
    /// Degrees a leaf bends over its length.
    pub(super) curl: Option<Num>,
    /// Curves through the given points rather than corners.
    pub(super) smooth: Option<bool>,
    /// The tube returns to its start.
    pub(super) closed: Option<bool>,
}

/// An axis to mirror across.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Axis {
    X,
    Y,
    Z,
}

/// The outline of a blade.
#[derive(Debug, Clone)]
pub(super) enum Outline {
    /// A named outline, scaled to `size`.
    Named(String),
    /// Points, counter-clockwise or not.
    Points(Vec<[Num; 2]>),
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OutlineVisitor;
        impl<'de> Visitor<'de> for OutlineVisitor {
            type Value = Outline;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an outline or a list of [x, y]")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Outline, E> {
                Ok(Outline::Named(v.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Outline, A::Error> {
                let mut list = Vec::new();
                while let Some(n) = seq.next_element()? {
                    list.push(n);
                }
                Ok(Outline::Points(list))
            }
        }
        deserializer.deserialize_any(OutlineVisitor)
    }
}

/// Copies of a part. Exactly one of `ring`, `line`, `stack`, `grid`, `sphere`, `places`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Repeat {
    /// Copies around Y at `radius`, each facing outwards (its +Z).
    pub(super) ring: Option<Num>,
    /// Copies along `step`.
    pub(super) line: Option<Num>,
    /// Copies along +Y by `step`.
    pub(super) stack: Option<Num>,
    /// Copies on a lattice by `step`, centred.
    pub(super) grid: Option<[Num; 3]>,
    /// Copies spread over an ellipsoid of `radius`, +Y outwards.
    pub(super) sphere: Option<Num>,
    /// Positions [x, y, z] or poses [x, y, z, rx, ry, rz].
    pub(super) places: Option<Vec<List>>,
    pub(super) radius: Option<Triple>,
    pub(super) step: Option<Triple>,
    /// Degrees of the ring that are used (360).
    pub(super) arc: Option<Num>,
    /// First angle of the ring, degrees.
    pub(super) start: Option<Num>,
    /// Lowest and highest direction on the sphere, -1 … 1.
    pub(super) band: Option<[Num; 2]>,
    /// Additional rotation from copy to copy, degrees.
    pub(super) turn: Option<Triple>,
    /// Scale from copy to copy.
    pub(super) shrink: Option<Num>,
    /// Random displacement, rotation (degrees) and relative size of each copy.
    pub(super) jitter: Option<[Num; 3]>,
}

/// A region of another colour. Coordinates are those of the part's box, -1 … 1.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paint {
    pub(super) color: Names,
    /// The region is where `dir · p` lies in `from..to`.
    pub(super) dir: Option<Triple>,
    pub(super) from: Option<Num>,
    pub(super) to: Option<Num>,
    /// Width of the blend.
    pub(super) soft: Option<Num>,
    /// … or the inside of a ball around `spot`.
    pub(super) spot: Option<Triple>,
    pub(super) radius: Option<Num>,
    /// Only every other of this many bands across `from..to`.
    pub(super) stripes: Option<Num>,
    /// Only every other of this many sectors around the axis.
    pub(super) wedges: Option<Num>,
    /// Turns of the sectors along the axis or tube.
    pub(super) twist: Option<Num>,
    /// Only where a noise with this many waves across is high…
    pub(super) speckle: Option<Num>,
    /// Share of stripes, sectors or speckles that is painted (0.5).
    pub(super) duty: Option<Num>,
    pub(super) mirror: Option<bool>,
}
