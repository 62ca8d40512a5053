//! Light on what is visible, averaged into pixels.

use glam::{Vec2, Vec3};

use super::{
    Frame, Lighting,
    fill::{EMPTY, Samples},
    project::{Part, Scene, ScreenTriangle, Surface},
};
use crate::render::camera::Camera;

/// Thresholds of the screen-door pattern (Bayer 1973), in 16ths.
const BAYER: [[u8; 4]; 4] = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]];

/// A point of a triangle: barycentric weights of the source triangle, and depth.
pub(super) struct Point {
    pub(super) weights: [f32; 3],
    pub(super) depth: f32,
}

impl Point {
    pub(super) fn new(triangle: &ScreenTriangle, x: u32, y: u32) -> Self {
        let p = Vec2::new(x as f32 + 0.5, y as f32 + 0.5) - triangle.origin;
        let depth = 1.0 / triangle.inverse_depth.at(p);
        let [a, b] = [0, 1].map(|i| triangle.barycentric[i].at(p) * depth);
        Self { weights: [a, b, 1.0 - a - b], depth }
    }

    pub(super) fn blend(&self, values: [Vec3; 3]) -> Vec3 {
        values[0] * self.weights[0] + values[1] * self.weights[1] + values[2] * self.weights[2]
    }
}

/// Linear base colour and opacity.
pub(super) fn base_color(
    surface: &Surface<'_>,
    part: &Part<'_>,
    triangle: &ScreenTriangle,
    point: &Point,
) -> (Vec3, f32) {
    let (mut color, mut alpha) = (surface.base, surface.alpha);
    let corners = triangle.indices.map(|i| &part.vertices[i as usize]);
    if let Some(texture) = surface.texture {
        let w = point.weights;
        let uv = corners[0].uv * w[0] + corners[1].uv * w[1] + corners[2].uv * w[2];
        let (texel, texel_alpha) = texture.sample(uv, triangle.footprint * point.depth.powi(3));
        alpha *= texel_alpha;
        if !surface.repainted {
            color *= texel;
        }
    }
    if !surface.repainted {
        color *= point.blend(corners.map(|v| v.color));
    }
    (color, alpha)
}

/// True if a surface that is not opaque covers sample (`x`, `y`) of the screen-door pattern.
pub(super) fn covers(scene: &Scene<'_>, triangle: &ScreenTriangle, x: u32, y: u32) -> bool {
    let surface = &scene.materials[triangle.material as usize];
    let part = &scene.parts[triangle.part as usize];
    let (_, alpha) = base_color(surface, part, triangle, &Point::new(triangle, x, y));
    let threshold = f32::from(BAYER[(y & 3) as usize][(x & 3) as usize]) + 0.5;
    alpha * 16.0 > threshold
}

/// Shades every visible sample and averages `supersample`² of them into each pixel.
pub(super) fn resolve(
    scene: &Scene<'_>,
    samples: &Samples,
    camera: &Camera,
    lighting: &Lighting,
    background: Vec3,
    supersample: u32,
) -> Frame {
    let (width, height) = (camera.width, camera.height);
    let count = width as usize * height as usize;
    let mut frame = Frame {
        width,
        height,
        rgb: Vec::with_capacity(count),
        opacity: Vec::with_capacity(count),
        depth: Vec::with_capacity(count),
        normal: Vec::with_capacity(count),
    };
    let share = 1.0 / (supersample * supersample) as f32;
    for y in 0..height {
        for x in 0..width {
            let mut pixel = Pixel::default();
            let mut to_eye = None;
            for sy in y * supersample..(y + 1) * supersample {
                let row = sy as usize * scene.width as usize;
                for sx in x * supersample..(x + 1) * supersample {
                    let seen = samples.triangle[row + sx as usize];
                    if seen != EMPTY {
                        let triangle = &scene.triangles[seen as usize];
                        let to_eye =
                            *to_eye.get_or_insert_with(|| -camera.direction(x as f32 + 0.5, y as f32 + 0.5));
                        pixel.add(scene, triangle, sx, sy, to_eye, lighting);
                    }
                }
            }
            frame.rgb.push(pixel.rgb * share + background * (1.0 - pixel.covered * share));
            frame.opacity.push(pixel.covered * share);
            frame.depth.push(if pixel.covered > 0.0 { pixel.depth / pixel.covered } else { 0.0 });
            frame.normal.push(pixel.normal.normalize_or_zero());
        }
    }
    frame
}

/// Sums over the covered samples of a pixel.
#[derive(Default)]
struct Pixel {
    rgb: Vec3,
    normal: Vec3,
    depth: f32,
    covered: f32,
}

impl Pixel {
    fn add(
        &mut self,
        scene: &Scene<'_>,
        triangle: &ScreenTriangle,
        x: u32,
        y: u32,
        to_eye: Vec3,
        lighting: &Lighting,
    ) {
        let part = &scene.parts[triangle.part as usize];
        let surface = &scene.materials[triangle.material as usize];
        let point = Point::new(triangle, x, y);
        let normal = normal(part, triangle, &point);
        let (base, _) = base_color(surface, part, triangle, &point);
        self.rgb += radiance(surface, base, normal, to_eye, lighting);
        self.normal += normal;
        self.depth += point.depth;
        self.covered += 1.0;
    }
}

/// Unit normal, turned towards the camera.
pub(super) fn normal(part: &Part<'_>, triangle: &ScreenTriangle, point: &Point) -> Vec3 {
    if triangle.normal_sign == 0.0 {
        return triangle.face_normal;
    }
    let sum = point.blend(triangle.indices.map(|i| part.normals[i as usize])) * triangle.normal_sign;
    sum.try_normalize().unwrap_or(triangle.face_normal)
}

/// Light leaving a surface: Lambert under lamps and hemisphere, a broad highlight of each lamp,
/// and for metals the hemisphere's reflection.
///
/// The highlight is Blinn's `(n·h)^k` in Schlick's rational form `t / (k − k t + t)` (1994), with
/// `k = 2 / roughness⁴ − 2`; it fades to nothing at roughness 1, where metals turn Lambertian.
fn radiance(surface: &Surface<'_>, base: Vec3, normal: Vec3, to_eye: Vec3, lighting: &Lighting) -> Vec3 {
    let (metallic, roughness) = (surface.metallic, surface.roughness);
    let mut diffuse = lighting.hemisphere(normal.y) * (1.0 - metallic);
    let mut shine = Vec3::ZERO;
    if metallic > 0.0 {
        let mirrored = 2.0 * normal.dot(to_eye) * normal.y - to_eye.y;
        diffuse += lighting.hemisphere(mirrored + (normal.y - mirrored) * roughness) * metallic;
    }
    let lambert = 1.0 - metallic * (1.0 - roughness);
    let [exponent, strength] = surface.highlight;
    for (direction, color) in &lighting.lights {
        let facing = normal.dot(*direction);
        if facing <= 0.0 {
            continue;
        }
        diffuse += *color * (facing * lambert);
        let t = normal.dot((*direction + to_eye).normalize_or_zero()).max(0.0);
        shine += *color * (facing * strength * t / (exponent - exponent * t + t).max(1e-6));
    }
    let reflectance = Vec3::splat(0.04).lerp(base, metallic);
    base * diffuse + reflectance * shine + surface.emissive
}
