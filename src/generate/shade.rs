//! Shading of a render by a point light, for the prior to judge shapes by (Poole et al. 2022, section 3.1).
//!
//! Per pixel, with the composited normal N, opacity O and background b: `s = ambient + diffuse·max(0, n̂·l)`,
//! the foreground `(rgb − (1−O) b)` times s (lambertian), or O·s (without texture), over b again. The
//! light's direction is taken at the pixel's mean depth and carries no gradient.

use glam::Vec3;

use crate::config::ShadingConfig;
use crate::render::camera::Camera;
use crate::render::volume::RenderOutput;
use crate::rng::{Rng, Stream};

/// Random numbers a view may use.
const DRAWS: u64 = 8;
/// Normals shorter than this are of nothing.
const NOTHING: f64 = 1e-4;

/// What a view is shown as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shade {
    /// The field's own colours.
    Albedo,
    /// Lit by a lamp there.
    Lambertian(Vec3),
    /// White, lit by a lamp there.
    Textureless(Vec3),
}

/// True if some step of the run is shaded.
pub(super) fn is_on(config: &ShadingConfig) -> bool {
    config.from < 1.0 && config.lambertian > 0.0
}

/// How each view of a step is shown.
pub(super) fn choose(
    config: &ShadingConfig,
    cameras: &[Camera],
    progress: f64,
    (seed, step): (u64, u32),
) -> Vec<Shade> {
    if !is_on(config) || progress < config.from {
        return vec![Shade::Albedo; cameras.len()];
    }
    let rng = Rng::new(seed, Stream::Light, step);
    let one = |(view, camera): (usize, &Camera)| {
        let at = view as u64 * DRAWS;
        if f64::from(rng.uniform(at)) >= config.lambertian {
            return Shade::Albedo;
        }
        // Around the camera's own direction, N(direction, 1) as in the original.
        let spread = Vec3::new(rng.normal(at + 2), rng.normal(at + 3), rng.normal(at + 4));
        let direction = (camera.origin().normalize_or_zero() + spread).normalize_or(Vec3::Y);
        let lamp = direction * rng.range(at + 5, config.distance[0], config.distance[1]);
        match f64::from(rng.uniform(at + 1)) < config.textureless {
            true => Shade::Textureless(lamp),
            false => Shade::Lambertian(lamp),
        }
    };
    cameras.iter().enumerate().map(one).collect()
}

/// A render as it is shown, and the way back.
pub(super) struct Shading<'a> {
    pub(super) config: &'a ShadingConfig,
    pub(super) shades: &'a [Shade],
    pub(super) cameras: &'a [Camera],
    pub(super) backgrounds: &'a [Vec3],
}

/// Gradients by what was rendered.
#[derive(Debug, Default)]
pub(super) struct Unshaded {
    pub(super) rgb: Vec<f32>,
    /// Empty where nothing was shaded, and so the next.
    pub(super) opacity: Vec<f32>,
    pub(super) normal: Vec<f32>,
}

/// One pixel's ingredients.
#[derive(Clone, Copy)]
struct Pixel {
    rgb: [f64; 3],
    opacity: f64,
    normal: [f64; 3],
    behind: [f64; 3],
    /// Unit, towards the lamp.
    light: [f64; 3],
    textured: bool,
}

/// By rgb, opacity and normal.
type PixelGradient = ([f64; 3], f64, [f64; 3]);

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Pixel {
    /// What the foreground is multiplied with, |N|, n̂ and n̂·l.
    fn shade(&self, c: &ShadingConfig) -> (f64, f64, [f64; 3], f64) {
        let length = dot(self.normal, self.normal).sqrt();
        if length < NOTHING {
            return (c.ambient + c.diffuse, length, [0.0; 3], 0.0);
        }
        let unit = self.normal.map(|n| n / length);
        let cosine = dot(unit, self.light);
        (c.ambient + c.diffuse * cosine.max(0.0), length, unit, cosine)
    }

    fn front(&self, i: usize) -> f64 {
        if self.textured { self.rgb[i] - (1.0 - self.opacity) * self.behind[i] } else { self.opacity }
    }

    fn shown(&self, c: &ShadingConfig) -> [f64; 3] {
        let (s, ..) = self.shade(c);
        [0, 1, 2].map(|i| self.front(i) * s + (1.0 - self.opacity) * self.behind[i])
    }

    fn backward(&self, c: &ShadingConfig, g: [f64; 3]) -> PixelGradient {
        let (s, length, unit, cosine) = self.shade(c);
        let by_rgb = g.map(|g| if self.textured { g * s } else { 0.0 });
        let front = |i: usize| if self.textured { self.behind[i] } else { 1.0 };
        let by_opacity = (0..3).map(|i| g[i] * (front(i) * s - self.behind[i])).sum();
        let by_shade: f64 = (0..3).map(|i| g[i] * self.front(i)).sum();
        let lit = length >= NOTHING && cosine > 0.0;
        let turn = if lit { by_shade * c.diffuse / length } else { 0.0 };
        (by_rgb, by_opacity, [0, 1, 2].map(|i| turn * (self.light[i] - cosine * unit[i])))
    }
}

impl Shading<'_> {
    fn any(&self) -> bool {
        self.shades.iter().any(|s| *s != Shade::Albedo)
    }

    /// The pixel at `i` of all, if it is shaded.
    fn pixel(&self, output: &RenderOutput, i: usize) -> Option<Pixel> {
        let each = output.width * output.height;
        let (view, at) = (i / each, i % each);
        let (lamp, textured) = match self.shades[view] {
            Shade::Albedo => return None,
            Shade::Lambertian(lamp) => (lamp, true),
            Shade::Textureless(lamp) => (lamp, false),
        };
        let normal = output.normal.as_ref()?;
        let camera = &self.cameras[view];
        let (x, y) = ((at % output.width) as f32 + 0.5, (at / output.width) as f32 + 0.5);
        let depth = output.depth[i] / output.opacity[i].max(1e-3);
        let place = camera.origin() + camera.direction(x, y) * depth;
        let three = |v: &[f32]| [0, 1, 2].map(|c| f64::from(v[3 * i + c]));
        Some(Pixel {
            rgb: three(&output.rgb),
            opacity: f64::from(output.opacity[i]),
            normal: three(normal),
            behind: self.backgrounds[view].to_array().map(f64::from),
            light: (lamp - place).normalize_or(Vec3::Y).to_array().map(f64::from),
            textured,
        })
    }

    /// Linear colours as shown.
    pub(super) fn shown(&self, output: &RenderOutput) -> Vec<f32> {
        let mut rgb = output.rgb.clone();
        if self.any() {
            for (i, out) in rgb.chunks_exact_mut(3).enumerate() {
                if let Some(pixel) = self.pixel(output, i) {
                    out.copy_from_slice(&pixel.shown(self.config).map(|v| v as f32));
                }
            }
        }
        rgb
    }

    /// The gradients by the render from the gradient by what was shown.
    pub(super) fn backward(&self, output: &RenderOutput, mut gradient: Vec<f32>) -> Unshaded {
        if !self.any() {
            return Unshaded { rgb: gradient, ..Unshaded::default() };
        }
        let n = output.opacity.len();
        let (mut opacity, mut normal) = (vec![0.0; n], vec![0.0; 3 * n]);
        for (i, g) in gradient.chunks_exact_mut(3).enumerate() {
            if let Some(pixel) = self.pixel(output, i) {
                let by = pixel.backward(self.config, [g[0], g[1], g[2]].map(f64::from));
                g.copy_from_slice(&by.0.map(|v| v as f32));
                opacity[i] = by.1 as f32;
                normal[3 * i..3 * i + 3].copy_from_slice(&by.2.map(|v| v as f32));
            }
        }
        Unshaded { rgb: gradient, opacity, normal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixel_gradients_equal_finite_differences() {
        let c = ShadingConfig::default();
        let rng = Rng::new(3, Stream::Probe, 0);
        for case in 0..40u64 {
            let u = |i: u64| f64::from(rng.range(100 * case + i, 0.05, 0.95));
            let n = |i: u64| f64::from(rng.normal(100 * case + i));
            let light = Vec3::new(n(10) as f32, n(11) as f32, n(12) as f32).normalize().as_dvec3().to_array();
            let pixel = Pixel {
                rgb: [u(0), u(1), u(2)],
                opacity: u(3),
                normal: [n(4), n(5), n(6)],
                behind: [u(7), u(8), u(9)],
                light,
                textured: case % 2 == 0,
            };
            let g = [n(13), n(14), n(15)];
            let loss = |p: Pixel| dot(p.shown(&c), g);
            let (by_rgb, by_opacity, by_normal) = pixel.backward(&c, g);
            let check = |got: f64, change: &dyn Fn(&mut Pixel, f64)| {
                let at = |h: f64| {
                    let mut p = pixel;
                    change(&mut p, h);
                    loss(p)
                };
                let want = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((got - want).abs() < 1e-7 * (1.0 + want.abs()), "{case}: {got} {want}");
            };
            for i in 0..3 {
                check(by_rgb[i], &|p, h| p.rgb[i] += h);
                check(by_normal[i], &|p, h| p.normal[i] += h);
            }
            check(by_opacity, &|p, h| p.opacity += h);
        }
    }

    #[test]
    fn shares_of_the_schedule_and_albedo_before_it() {
        let c = ShadingConfig { from: 0.2, ..ShadingConfig::default() };
        let cameras = [Camera::orbit(0.0, 10.0, 2.4, Vec3::ZERO, 0.7, 4); 4];
        let early = choose(&c, &cameras, 0.1, (1, 3));
        assert!(early.iter().all(|s| *s == Shade::Albedo) && is_on(&c) && !is_on(&ShadingConfig::default()));
        let mut counts = [0u32; 3];
        for step in 0..500 {
            for shade in choose(&c, &cameras, 0.5, (1, step)) {
                let (i, lamp) = match shade {
                    Shade::Albedo => (0, Vec3::X),
                    Shade::Lambertian(lamp) => (1, lamp),
                    Shade::Textureless(lamp) => (2, lamp),
                };
                assert!((0.79..=1.51).contains(&lamp.length()));
                counts[i] += 1;
            }
        }
        // A quarter, and half of the rest each; five standard deviations of 2,000 draws are 97 and 108.
        assert!(counts[0].abs_diff(500) < 97 && counts[1].abs_diff(750) < 108, "{counts:?}");
    }

    #[test]
    fn a_surface_that_faces_the_lamp_is_as_bright_as_ambient_and_diffuse_make_it() {
        let (c, camera) = (ShadingConfig::default(), Camera::orbit(0.0, 0.0, 2.0, Vec3::ZERO, 0.7, 1));
        let output = RenderOutput {
            views: 1,
            width: 1,
            height: 1,
            rgb: vec![0.5, 0.25, 0.0],
            opacity: vec![1.0],
            depth: vec![2.0],
            normal: Some(vec![0.0, 0.0, 1.0]),
            ..RenderOutput::default()
        };
        let show = |shade: Shade| {
            let shading =
                Shading { config: &c, shades: &[shade], cameras: &[camera], backgrounds: &[Vec3::ONE] };
            shading.shown(&output)
        };
        assert_eq!(show(Shade::Albedo), output.rgb);
        let near = |a: &[f32], b: [f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near(&show(Shade::Lambertian(Vec3::Z)), [0.5, 0.25, 0.0]));
        assert!(near(&show(Shade::Lambertian(Vec3::NEG_Z)), [0.05, 0.025, 0.0]));
        assert!(near(&show(Shade::Textureless(Vec3::new(1e4, 0.0, 1e4))), [0.1 + 0.9 * 0.5f32.sqrt(); 3]));
    }
}
