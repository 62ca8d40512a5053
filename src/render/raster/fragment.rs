//! What a sample sees, for pictures with light of their own.

use glam::{Vec2, Vec3};
use rayon::prelude::*;

use super::fill::{EMPTY, Samples, fill};
use super::project::{SUBPIXELS, Scene, ScreenTriangle, project};
use super::shade::{Point, base_color, normal};
use super::{Frame, Instance};
use crate::render::camera::Camera;

/// A point of a surface as one sample sees it.
#[derive(Debug, Clone, Copy)]
pub struct Fragment {
    /// Number of the instance in the scene.
    pub instance: u32,
    /// The material: the asset's own number, or one past its last for parts without.
    pub material: u32,
    /// Vertices of the triangle, numbered through the instance's asset.
    pub indices: [u32; 3],
    /// Barycentric coordinates in it.
    pub weights: [f32; 3],
    /// Interpolated texture coordinates.
    pub uv: Vec2,
    /// Area under the sample in texture coordinates.
    pub uv_area: f32,
    /// Unit world-space normal of the vertices, turned towards the camera.
    pub normal: Vec3,
    /// −1 if that turned the vertices' own normals around, else 1.
    pub side: f32,
    /// Unit direction towards the camera.
    pub to_eye: Vec3,
    /// Distance along the camera's viewing axis.
    pub depth: f32,
    /// Linear base colour: factor, texture and vertex colour.
    pub base: Vec3,
    /// Linear emitted radiance.
    pub emissive: Vec3,
    /// Distance to the triangle's nearest edge on the screen, in pixels.
    pub edge: f32,
}

/// Draws a scene as [`super::render_scene`] does, with `radiance` deciding what each of the
/// `supersample`² samples of a pixel shows (linear RGB). Rows are drawn in parallel; the frame does
/// not depend on how many threads there are.
pub fn render_with(
    instances: &[Instance<'_>],
    camera: &Camera,
    background: Vec3,
    supersample: u32,
    radiance: &(dyn Fn(&Fragment) -> Vec3 + Sync),
) -> Frame {
    let supersample = supersample.clamp(1, 8);
    let scene = project(instances, camera, supersample);
    let samples = fill(&scene);
    let row = Row { scene: &scene, samples: &samples, camera, background, supersample, radiance };
    let rows: Vec<Vec<Pixel>> = (0..camera.height).into_par_iter().map(|y| row.pixels(y)).collect();
    let mut frame = Frame { width: camera.width, height: camera.height, ..Frame::default() };
    for pixel in rows.into_iter().flatten() {
        frame.rgb.push(pixel.rgb);
        frame.opacity.push(pixel.covered);
        frame.depth.push(pixel.depth);
        frame.normal.push(pixel.normal);
    }
    frame
}

/// What the pixels of a row are made from.
struct Row<'a> {
    scene: &'a Scene<'a>,
    samples: &'a Samples,
    camera: &'a Camera,
    background: Vec3,
    supersample: u32,
    radiance: &'a (dyn Fn(&Fragment) -> Vec3 + Sync),
}

/// Sums over the samples of a pixel, then their means.
#[derive(Default)]
struct Pixel {
    rgb: Vec3,
    normal: Vec3,
    depth: f32,
    covered: f32,
}

impl Row<'_> {
    fn pixels(&self, y: u32) -> Vec<Pixel> {
        (0..self.camera.width).map(|x| self.pixel(x, y)).collect()
    }

    fn pixel(&self, x: u32, y: u32) -> Pixel {
        let n = self.supersample;
        let mut pixel = Pixel::default();
        for sy in y * n..(y + 1) * n {
            for sx in x * n..(x + 1) * n {
                let seen = self.samples.triangle[sy as usize * self.scene.width as usize + sx as usize];
                if seen == EMPTY {
                    continue;
                }
                let fragment = self.fragment(&self.scene.triangles[seen as usize], sx, sy);
                pixel.rgb += (self.radiance)(&fragment);
                pixel.normal += fragment.normal;
                pixel.depth += fragment.depth;
                pixel.covered += 1.0;
            }
        }
        let share = 1.0 / (n * n) as f32;
        Pixel {
            rgb: pixel.rgb * share + self.background * (1.0 - pixel.covered * share),
            normal: pixel.normal.normalize_or_zero(),
            depth: if pixel.covered > 0.0 { pixel.depth / pixel.covered } else { 0.0 },
            covered: pixel.covered * share,
        }
    }

    fn fragment(&self, triangle: &ScreenTriangle, x: u32, y: u32) -> Fragment {
        let part = &self.scene.parts[triangle.part as usize];
        let surface = &self.scene.materials[triangle.material as usize];
        let point = Point::new(triangle, x, y);
        let corners = triangle.indices.map(|i| &part.vertices[i as usize]);
        let [a, b, c] = point.weights;
        let at = Vec2::new(x as f32 + 0.5, y as f32 + 0.5);
        let n = self.supersample as f32;
        Fragment {
            instance: triangle.part,
            material: triangle.material - part.first_material,
            indices: triangle.indices,
            weights: point.weights,
            uv: corners[0].uv * a + corners[1].uv * b + corners[2].uv * c,
            uv_area: triangle.uv_footprint * point.depth.powi(3),
            normal: normal(part, triangle, &point),
            side: if triangle.normal_sign < 0.0 { -1.0 } else { 1.0 },
            to_eye: -self.camera.direction(at.x / n, at.y / n),
            depth: point.depth,
            base: base_color(surface, part, triangle, &point).0,
            emissive: surface.emissive,
            edge: edge_distance(triangle, at) / n,
        }
    }
}

/// Distance from a sample to the nearest of a triangle's edges, in samples.
fn edge_distance(triangle: &ScreenTriangle, at: Vec2) -> f32 {
    let corners = triangle.corners.map(|[x, y]| Vec2::new(x as f32, y as f32) / SUBPIXELS as f32);
    let to = |a: Vec2, b: Vec2| {
        let edge = b - a;
        let t = ((at - a).dot(edge) / edge.length_squared().max(f32::MIN_POSITIVE)).clamp(0.0, 1.0);
        (a + t * edge).distance(at)
    };
    let [a, b, c] = corners;
    to(a, b).min(to(b, c)).min(to(c, a))
}
