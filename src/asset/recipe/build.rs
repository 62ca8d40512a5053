//! From a recipe's tree of parts to an asset.

use glam::{Mat3, Mat4, Vec2, Vec3};

use super::expr::{Num, Params};
use super::layout::{copies, reflection, rotation};
use super::paint::{Palette, Region, linear, srgb};
use super::shape::{self, Course};
use super::spec::{Document, Outline, Part, Shape};
use super::surface::{Shaded, Surface, shade, value_noise};
use super::{MAX_TRIANGLES, blend, outline};
use crate::asset::{Asset, Material, Mesh};
use crate::rng::{Rng, Stream};

/// Groups may nest this deep.
const MAX_DEPTH: usize = 12;
/// Primitives one build may place: bounds the time of hostile nests of repeats.
const MAX_PIECES: usize = 20_000;

/// One placed primitive; kept apart so that tests can check each on its own.
pub(super) struct Piece {
    pub(super) name: String,
    pub(super) mesh: Shaded,
    pub(super) colors: Vec<Vec3>,
    /// Roughness, metallic, glow.
    pub(super) look: [f32; 3],
    /// To be taken away from the blended group it stands in.
    pub(super) cut: bool,
}

/// The random choices and the growing product of one build.
struct Builder {
    params: Params,
    palette: Palette,
    rng: Rng,
    draws: u64,
    triangles: usize,
    pieces: Vec<Piece>,
}

/// Which variant `seed` gives, of `n`.
pub(super) fn variant(n: usize, seed: u64) -> Option<usize> {
    (n > 0).then(|| Rng::new(seed, Stream::Data, 1).below(0, n as u32) as usize)
}

/// All placed primitives of the recipe under `seed`.
pub(super) fn pieces(doc: &Document, seed: u64) -> Result<Vec<Piece>, String> {
    let rng = Rng::new(seed, Stream::Data, 2);
    let mut b = Builder {
        params: Params::new(),
        palette: Palette::new(),
        rng,
        draws: 0,
        triangles: 0,
        pieces: vec![],
    };
    for (name, range) in &doc.params {
        let value = match range.values(&Params::new()).map_err(|e| format!("parameter `{name}`: {e}"))?[..] {
            [v] => v,
            [lo, hi] if lo <= hi => lo + (hi - lo) * b.draw(),
            _ => return Err(format!("parameter `{name}` is neither a number nor [low, high]")),
        };
        b.params.insert(name.clone(), value);
    }
    let look = variant(doc.variants.len(), seed).map(|v| &doc.variants[v].colors);
    for (name, colors) in doc.palette.iter().chain(look.into_iter().flatten()) {
        let k = (b.draw() * colors.0.len() as f32) as usize;
        let color = srgb(&colors.0[k.min(colors.0.len() - 1)], &b.palette)
            .map_err(|e| format!("palette entry `{name}`: {e}"))?;
        b.palette.insert(name.clone(), color);
    }
    b.parts(&doc.parts, Mat4::IDENTITY, 0, "", 0)?;
    if let Some(piece) = b.pieces.iter().find(|p| p.cut) {
        return Err(format!("{}: `cut` needs a group with `blend` around it", piece.name));
    }
    Ok(b.pieces)
}

/// Joins pieces of equal look into meshes with vertex colours.
pub(super) fn assemble(pieces: Vec<Piece>) -> Asset {
    let mut asset = Asset::default();
    let mut looks: Vec<[f32; 3]> = vec![];
    for piece in pieces {
        let slot = looks.iter().position(|l| *l == piece.look).unwrap_or_else(|| {
            looks.push(piece.look);
            asset.meshes.push(Mesh { material: looks.len() - 1, ..Mesh::default() });
            asset.materials.push(Material {
                // Called after the first part that looks so.
                name: piece.name.replace("part ", "").replace('`', ""),
                roughness: piece.look[0],
                metallic: piece.look[1],
                emissive: [0.0; 3],
                ..Material::default()
            });
            looks.len() - 1
        });
        let mesh = &mut asset.meshes[slot];
        let base = mesh.positions.len() as u32;
        if piece.look[2] > 0.0 {
            // Emission has no vertex colour in glTF: the part's mean colour stands for it.
            let mean = piece.colors.iter().sum::<Vec3>() / piece.colors.len().max(1) as f32;
            asset.materials[slot].emissive = (mean * piece.look[2]).to_array();
        }
        mesh.positions.extend(&piece.mesh.positions);
        mesh.normals.extend(&piece.mesh.normals);
        mesh.colors.extend(&piece.colors);
        mesh.triangles.extend(piece.mesh.triangles.iter().map(|t| t.map(|i| i + base)));
    }
    asset
}

impl Builder {
    fn draw(&mut self) -> f32 {
        self.draws += 1;
        self.rng.uniform(self.draws)
    }

    fn num(&self, n: &Option<Num>, default: f32) -> Result<f32, String> {
        n.as_ref().map_or(Ok(default), |n| n.value(&self.params))
    }

    fn parts(
        &mut self,
        parts: &[Part],
        at: Mat4,
        copy: usize,
        path: &str,
        depth: usize,
    ) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("{path}: groups nest deeper than {MAX_DEPTH}"));
        }
        for (k, part) in parts.iter().enumerate() {
            let own = match &part.name {
                Some(n) => format!("`{n}`"),
                None => format!("{}", k + 1),
            };
            let path = if path.is_empty() { format!("part {own}") } else { format!("{path} > {own}") };
            self.part(part, at, copy, &path, depth)?;
        }
        Ok(())
    }

    fn part(
        &mut self,
        part: &Part,
        parent: Mat4,
        copy: usize,
        path: &str,
        depth: usize,
    ) -> Result<(), String> {
        let here = |e: String| if e.starts_with("part ") { e } else { format!("{path}: {e}") };
        let chance = self.num(&part.chance, 1.0).map_err(here)?;
        if chance < 1.0 && self.draw() >= chance {
            return Ok(());
        }
        let at = part.at.as_ref().map_or(Ok(Vec3::ZERO), |v| v.value(&self.params)).map_err(here)?;
        let rot = part.rot.as_ref().map_or(Ok(Vec3::ZERO), |v| v.value(&self.params)).map_err(here)?;
        let scale = part.scale.as_ref().map_or(Ok(Vec3::ONE), |v| v.value(&self.params)).map_err(here)?;
        let own = Mat4::from_scale_rotation_translation(scale, rotation(rot), Vec3::ZERO);
        let transforms = match &part.repeat {
            None => vec![Mat4::IDENTITY],
            Some(repeat) => {
                let (rng, mut draws) = (self.rng, self.draws);
                let mut draw = || {
                    draws += 1;
                    rng.uniform(draws)
                };
                let list = copies(repeat, &self.params, &mut draw).map_err(here)?;
                self.draws = draws;
                list
            }
        };
        let sides: &[Mat4] = &match part.mirror {
            None => vec![Mat4::IDENTITY],
            Some(axis) => vec![Mat4::IDENTITY, reflection(axis)],
        };
        let surface = match (&part.shape, &part.group) {
            (Some(shape), None) => {
                let surface = self.surface(part, *shape).map_err(here)?;
                let extent = surface.frame().1.max_element() * 2.0;
                let shaded = shade(&surface.positions, &surface.triangles, extent);
                Some((surface, shaded))
            }
            (None, Some(_)) => None,
            _ => return Err(here("needs either `shape` or `group`".into())),
        };
        let blend = part.blend.as_ref().map(|b| b.value(&self.params)).transpose().map_err(here)?;
        if part.group.is_none() && blend.is_some() || part.group.is_some() && part.cut {
            return Err(here("`blend` belongs to a group, `cut` to a shape".into()));
        }
        for side in sides {
            for (k, m) in transforms.iter().enumerate() {
                let copy = if part.repeat.is_some() { k } else { copy };
                let world = parent * *side * Mat4::from_translation(at) * *m * own;
                match (&surface, &part.group) {
                    (Some(surface), _) => self.place(part, surface, (world, copy), path).map_err(here)?,
                    (None, Some(group)) => {
                        let first = self.pieces.len();
                        self.parts(group, world, copy, path, depth + 1)?;
                        if let Some(blend) = blend {
                            self.blend(first, blend, part, path).map_err(here)?;
                        }
                    }
                    (None, None) => {}
                }
            }
        }
        Ok(())
    }

    fn place(
        &mut self,
        part: &Part,
        (surface, shaded): &(Surface, Shaded),
        (m, copy): (Mat4, usize),
        path: &str,
    ) -> Result<(), String> {
        self.triangles += surface.triangles.len();
        if self.triangles > MAX_TRIANGLES || self.pieces.len() >= MAX_PIECES {
            return Err(format!(
                "the recipe grows beyond {MAX_TRIANGLES} triangles or {MAX_PIECES} placed primitives"
            ));
        }
        let seed = self.draws as u32 ^ 0x9e37;
        let regions = part
            .paint
            .iter()
            .enumerate()
            .map(|(k, p)| Region::new(p, &self.params, &self.palette, copy, seed.wrapping_add(k as u32)))
            .collect::<Result<Vec<_>, _>>()?;
        let base = match &part.color {
            Some(names) => srgb(&names.0[copy % names.0.len()], &self.palette)?,
            None => return Err("needs a `color`".into()),
        };
        let (centre, half) = surface.frame();
        let colors: Vec<Vec3> = (surface.positions.iter().zip(&surface.uvs))
            .map(|(p, uv)| {
                let unit = (*p - centre) / half;
                // A touch of unevenness keeps large plain surfaces from looking like plastic.
                let wear = 1.0 + 0.05 * (value_noise(unit * 2.0, 7) - 0.5);
                linear(regions.iter().fold(base, |c, r| r.apply(c, unit, *uv)) * wear)
            })
            .collect();
        let mut mesh = shaded.clone();
        // Normals follow the inverse transpose; a reflection turns triangles inside out.
        let normals: Mat3 = Mat3::from_mat4(m).inverse().transpose();
        mesh.positions.iter_mut().for_each(|p| *p = m.transform_point3(*p));
        mesh.normals.iter_mut().for_each(|n| *n = normals.mul_vec3(*n).normalize_or_zero());
        let far = |p: &Vec3| !p.is_finite() || p.abs().max_element() > 1e4;
        if mesh.positions.iter().any(far) || mesh.normals.iter().any(|n| *n == Vec3::ZERO || !n.is_finite()) {
            return Err("a vertex lies out of range, or `scale` is zero".into());
        }
        if Mat3::from_mat4(m).determinant() < 0.0 {
            mesh.triangles.iter_mut().for_each(|t| t.swap(1, 2));
        }
        let colors = mesh.source.iter().map(|i| colors[*i as usize]).collect();
        let look = [self.num(&part.rough, 0.75)?, self.num(&part.metal, 0.0)?, self.num(&part.glow, 0.0)?];
        if look.iter().any(|v| !(0.0..=10.0).contains(v)) || look[0] > 1.0 || look[1] > 1.0 {
            return Err("`rough` and `metal` must lie in 0..1, `glow` in 0..10".into());
        }
        self.pieces.push(Piece { name: path.to_owned(), mesh, colors, look, cut: part.cut });
        Ok(())
    }

    /// Makes one skin of all pieces from `first` on.
    fn blend(&mut self, first: usize, radius: f32, part: &Part, path: &str) -> Result<(), String> {
        let detail = self.num(&part.detail, 1.0)?;
        let pieces = self.pieces.split_off(first);
        let skin = blend::skin(path, &pieces, radius, detail)?;
        self.triangles += skin.mesh.triangles.len();
        self.pieces.push(skin);
        Ok(())
    }

    /// The primitive in its own space.
    fn surface(&self, part: &Part, shape: Shape) -> Result<Surface, String> {
        check_keys(part, shape)?;
        let p = &self.params;
        let size = match (&part.size, shape) {
            (Some(s), _) => s.value(p)?,
            (None, Shape::Lathe | Shape::Tube | Shape::Blade) => Vec3::ONE,
            (None, _) => return Err("needs a `size`".into()),
        };
        if size.min_element() <= 0.0 || size.max_element() > 1e3 {
            return Err(format!("`size` {size} must be positive and at most 1000"));
        }
        let half = size * 0.5;
        let detail = self.num(&part.detail, 1.0)?;
        if !(0.2..=8.0).contains(&detail) {
            return Err(format!("`detail` {detail} is not in 0.2..8"));
        }
        let round = self.num(&part.round, 0.0)?;
        let flute = match &part.flute {
            Some([n, d]) => (n.value(p)?.round(), d.value(p)?),
            None => (0.0, 0.0),
        };
        // Enough points to draw every flute.
        let around = |extent: f32| segments(extent, detail).max((flute.0.clamp(0.0, 64.0) * 4.0) as usize);
        let wide = half.x.max(half.z) * 2.0;
        let turned = |profile: Vec<Vec2>| {
            let mut s = shape::lathe(&profile, around(wide), flute);
            s.positions.iter_mut().for_each(|v| v.z *= half.z / half.x);
            s
        };
        let mut surface = match shape {
            Shape::Ellipsoid => {
                let power = self.num(&part.power, 2.0)?;
                if !(0.5..=12.0).contains(&power) {
                    return Err(format!("`power` {power} is not in 0.5..12"));
                }
                shape::superellipsoid(half, power, segments(size.max_element(), detail))
            }
            Shape::Box => {
                let cuts = if part.paint.is_empty() && part.bumps.is_none() { 0.0 } else { 6.0 };
                shape::rounded_box(half, round, self.num(&part.top, 1.0)?.max(0.0), (cuts * detail) as usize)
            }
            Shape::Cylinder => turned(subdivide(shape::frustum_profile(half.x, half.x, half.y, round), part)),
            Shape::Cone => {
                let top = self.num(&part.top, 0.0)?.max(0.0);
                turned(subdivide(shape::frustum_profile(half.x, half.x * top, half.y, round), part))
            }
            Shape::Capsule => turned(shape::capsule_profile(half.x, half.y)),
            Shape::Torus => {
                let tube = self.num(&part.tube, 0.25 * half.x)?;
                if !(tube > 0.0 && tube <= half.x) {
                    return Err(format!("`tube` {tube} must be positive and at most half the width"));
                }
                shape::torus(half, tube, segments(wide, detail))
            }
            Shape::Lathe => self.lathe(part, size, detail, flute)?,
            Shape::Tube => self.tube(part, detail)?,
            Shape::Blade => self.blade(part, size, round)?,
            Shape::Leaf => outline::leaf(size, self.num(&part.curl, 0.0)?, segments(size.y, detail) / 2),
        };
        if let Some([amount, waves]) = &part.bumps {
            surface.bump(amount.value(p)?, waves.value(p)?, self.draws as u32);
        }
        Ok(surface)
    }

    fn lathe(&self, part: &Part, size: Vec3, detail: f32, flute: (f32, f32)) -> Result<Surface, String> {
        let profile = self.pairs(part.profile.as_deref().unwrap_or_default())?;
        if profile.len() < 2 || profile.iter().any(|p| p.x < 0.0) {
            return Err("`profile` needs at least two points [radius >= 0, height]".into());
        }
        let profile = if part.smooth.unwrap_or(true) && profile.len() > 2 {
            let points: Vec<Vec3> = profile.iter().map(|p| p.extend(0.0)).collect();
            let radii = vec![0.0; points.len()];
            let fine = Course { points, radii, closed: false }.smooth(4);
            fine.points.iter().map(|p| Vec2::new(p.x.max(0.0), p.y)).collect()
        } else {
            profile
        };
        let wide = profile.iter().map(|p| p.x).fold(0.0, f32::max) * 2.0;
        let n = segments(wide, detail).max((flute.0.clamp(0.0, 64.0) * 4.0) as usize);
        let mut s = shape::lathe(&profile, n, flute);
        s.positions.iter_mut().for_each(|v| *v *= size);
        Ok(s)
    }

    fn tube(&self, part: &Part, detail: f32) -> Result<Surface, String> {
        let points = part.points.as_deref().unwrap_or_default();
        let points = points.iter().map(|v| v.value(&self.params)).collect::<Result<Vec<_>, _>>()?;
        let closed = part.closed.unwrap_or(false);
        if points.len() < 2 + usize::from(closed) {
            return Err("`points` needs at least two points (three if closed)".into());
        }
        let radii = match &part.radius {
            Some(list) => list.values(&self.params)?,
            None => return Err("needs a `radius`".into()),
        };
        let radii = match radii.len() {
            1 => vec![radii[0]; points.len()],
            n if n == points.len() => radii,
            n => return Err(format!("`radius` has {n} values for {} points", points.len())),
        };
        if radii.iter().any(|r| *r < 0.0) || radii.iter().all(|r| *r == 0.0) {
            return Err("`radius` must not be negative nor all zero".into());
        }
        let widest = radii.iter().copied().fold(0.0, f32::max);
        let flat = self.num(&part.flat, 1.0)?;
        if !(0.01..=100.0).contains(&flat) {
            return Err(format!("`flat` {flat} is not in 0.01..100"));
        }
        let course = Course { points, radii, closed };
        let steps = ((4.0 * detail).round() as usize).max(2);
        let course = if part.smooth.unwrap_or(true) && course.points.len() > 2 {
            course.smooth(steps)
        } else {
            course
        };
        let round = self.num(&part.round, 1.0)? > 0.0;
        Ok(shape::tube(&course, segments(widest * 2.0, detail).min(32), flat, round))
    }

    fn blade(&self, part: &Part, size: Vec3, round: f32) -> Result<Surface, String> {
        let points = match &part.outline {
            Some(Outline::Named(name)) => {
                outline::named(name).ok_or_else(|| format!("unknown outline `{name}`"))?
            }
            Some(Outline::Points(list)) => self.pairs(list)?,
            None => return Err("needs an `outline`".into()),
        };
        if !(3..=512).contains(&points.len()) {
            return Err("an outline has 3..512 points".into());
        }
        let points: Vec<Vec2> = points.iter().map(|p| *p * size.truncate()).collect();
        let points = if part.smooth.unwrap_or(false) { outline::smooth(&points) } else { points };
        let thick = self.num(&part.thick, size.z.min(0.1))?;
        if thick <= 0.0 {
            return Err("`thick` must be positive".into());
        }
        outline::blade(&points, thick, round)
    }

    fn pairs(&self, list: &[[Num; 2]]) -> Result<Vec<Vec2>, String> {
        list.iter().map(|[x, y]| Ok(Vec2::new(x.value(&self.params)?, y.value(&self.params)?))).collect()
    }
}

/// Segments around something of this extent: props are about one unit large.
fn segments(extent: f32, detail: f32) -> usize {
    let base = match extent {
        e if e >= 0.5 => 28.0,
        e if e >= 0.22 => 20.0,
        e if e >= 0.09 => 14.0,
        _ => 8.0,
    };
    ((base * detail / 2.0).round() as usize * 2).clamp(6, 256)
}

/// Painted or bumpy walls need vertices between the ends.
fn subdivide(profile: Vec<Vec2>, part: &Part) -> Vec<Vec2> {
    if part.paint.is_empty() && part.bumps.is_none() {
        return profile;
    }
    let longest = profile.windows(2).map(|w| w[0].distance(w[1])).fold(0.0, f32::max);
    let mut out = vec![profile[0]];
    for w in profile.windows(2) {
        let n = if w[0].distance(w[1]) > 0.9 * longest { 12 } else { 1 };
        out.extend((1..=n).map(|i| w[0].lerp(w[1], i as f32 / n as f32)));
    }
    out
}

/// Refuses keys that mean nothing for the shape.
fn check_keys(part: &Part, shape: Shape) -> Result<(), String> {
    use Shape::{Blade, Box, Capsule, Cone, Cylinder, Ellipsoid, Lathe, Leaf, Torus, Tube};
    let uses: [(&str, bool, &[Shape]); 13] = [
        ("profile", part.profile.is_some(), &[Lathe]),
        ("points", part.points.is_some(), &[Tube]),
        ("radius", part.radius.is_some(), &[Tube]),
        ("closed", part.closed.is_some(), &[Tube]),
        ("flat", part.flat.is_some(), &[Tube]),
        ("top", part.top.is_some(), &[Cone, Box]),
        ("round", part.round.is_some(), &[Box, Cylinder, Cone, Blade, Tube]),
        ("tube", part.tube.is_some(), &[Torus]),
        ("power", part.power.is_some(), &[Ellipsoid]),
        ("flute", part.flute.is_some(), &[Lathe, Cylinder, Cone, Capsule]),
        ("outline", part.outline.is_some(), &[Blade]),
        ("thick", part.thick.is_some(), &[Blade]),
        ("curl", part.curl.is_some(), &[Leaf]),
    ];
    match uses.iter().find(|(_, given, shapes)| *given && !shapes.contains(&shape)) {
        Some((key, ..)) => Err(format!("`{key}` means nothing for this shape ({shape:?})")),
        None if part.smooth.is_some() && !matches!(shape, Lathe | Tube | Blade) => {
            Err(format!("`smooth` means nothing for this shape ({shape:?})"))
        }
        None => Ok(()),
    }
}
