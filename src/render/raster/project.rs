//! From triangles to screen-space planes: transform, clip, set up.

use glam::{Mat3, Mat4, Vec2, Vec3, Vec3Swizzles, Vec4, Vec4Swizzles};

use super::{
    Instance, Look,
    prepare::{PreparedMaterial, Texture, Vertex},
};
use crate::render::camera::Camera;

/// Nearer surfaces are cut away; world units.
const NEAR: f32 = 1e-3;
/// Triangles are clipped where they leave this many half-screens, which bounds fixed-point numbers.
const GUARD: f32 = 8.0;
/// Fixed-point steps per sample: edges are evaluated exactly on this grid, so that triangles
/// sharing an edge neither overlap nor leave a gap.
pub(super) const SUBPIXELS: i64 = 256;

/// A frame's geometry on the screen.
pub(super) struct Scene<'a> {
    /// Samples across.
    pub(super) width: u32,
    /// Samples down.
    pub(super) height: u32,
    pub(super) triangles: Vec<ScreenTriangle>,
    pub(super) parts: Vec<Part<'a>>,
    pub(super) materials: Vec<Surface<'a>>,
}

/// One instance: its vertices and their world-space normals.
pub(super) struct Part<'a> {
    pub(super) vertices: &'a [Vertex],
    pub(super) normals: Vec<Vec3>,
    /// Number of its first material among the scene's.
    pub(super) first_material: u32,
}

/// A material as this frame draws it.
pub(super) struct Surface<'a> {
    pub(super) base: Vec3,
    pub(super) alpha: f32,
    pub(super) texture: Option<&'a Texture>,
    /// `base` is the colour: neither texture nor vertex colours are multiplied in.
    pub(super) repainted: bool,
    pub(super) emissive: Vec3,
    pub(super) metallic: f32,
    pub(super) roughness: f32,
    /// Exponent and factor of the highlight, from the roughness; see [`super::shade`].
    pub(super) highlight: [f32; 2],
    /// Every sample is covered fully.
    pub(super) opaque: bool,
}

/// A linear function of the sample position relative to a triangle's origin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane(pub(super) Vec3);

impl Plane {
    pub(super) fn at(&self, p: Vec2) -> f32 {
        self.0.x * p.x + self.0.y * p.y + self.0.z
    }
}

/// A triangle on the screen, wound so that its area is positive in fixed point.
#[derive(Clone, Copy)]
pub(super) struct ScreenTriangle {
    /// Corners in fixed point.
    pub(super) corners: [[i64; 2]; 3],
    /// Sample position that the planes are relative to.
    pub(super) origin: Vec2,
    /// 1 / depth.
    pub(super) inverse_depth: Plane,
    /// Barycentric coordinates of the first two corners of the source triangle, over depth.
    pub(super) barycentric: [Plane; 2],
    pub(super) part: u32,
    pub(super) indices: [u32; 3],
    pub(super) material: u32,
    /// Texels under a sample are this times depth cubed (the exact Jacobian of a projection).
    pub(super) footprint: f32,
    /// The same for the area in texture coordinates.
    pub(super) uv_footprint: f32,
    /// Face normal turned to the camera, for meshes without normals.
    pub(super) face_normal: Vec3,
    /// What turns the vertex normals to the camera; 0 if there are none.
    pub(super) normal_sign: f32,
}

/// A corner while clipping: clip-space x, y, w and source barycentrics.
#[derive(Clone, Copy)]
struct Corner {
    clip: Vec3,
    barycentric: Vec2,
}

/// Projects every instance for `camera` at `supersample` samples across a pixel.
pub(super) fn project<'a>(instances: &[Instance<'a>], camera: &Camera, supersample: u32) -> Scene<'a> {
    let mut scene = Scene {
        width: camera.width * supersample,
        height: camera.height * supersample,
        triangles: Vec::with_capacity(instances.iter().map(|i| i.asset.triangles.len()).sum()),
        parts: Vec::with_capacity(instances.len()),
        materials: Vec::new(),
    };
    // Depth comes from w, so the planes of this matrix do not matter.
    let world_to_clip = camera.world_to_clip(NEAR, 1.0);
    for instance in instances {
        scene.add(instance, world_to_clip * instance.transform, camera.origin());
    }
    scene
}

impl<'a> Scene<'a> {
    fn add(&mut self, instance: &Instance<'a>, to_clip: Mat4, eye: Vec3) {
        let asset = instance.asset;
        let first_material = self.materials.len() as u32;
        self.materials.extend(asset.materials.iter().map(|m| surface(m, &instance.look)));
        let linear = Mat3::from_mat4(instance.transform);
        let mirrored = linear.determinant() < 0.0;
        let to_normal = cofactor(&linear) * if mirrored { -1.0 } else { 1.0 };
        let clip: Vec<Vec3> =
            asset.vertices.iter().map(|v| (to_clip * v.position.extend(1.0)).xyw()).collect();
        let part = self.parts.len() as u32;
        for triangle in &asset.triangles {
            let corners = triangle.indices.map(|i| clip[i as usize]);
            if is_outside(&corners) {
                continue;
            }
            let [a, b, c] = triangle.indices.map(|i| &asset.vertices[i as usize]);
            let face = linear * (b.position - a.position);
            let face = face.cross(linear * (c.position - a.position)).normalize_or_zero();
            let to_eye = eye - instance.transform.transform_point3(a.position);
            let facing = if face.dot(to_eye) < 0.0 { -1.0 } else { 1.0 };
            let has_normals = a.normal != Vec3::ZERO;
            let agrees = if triangle.inside_out == mirrored { 1.0 } else { -1.0 };
            let uv_area = (b.uv - a.uv).perp_dot(c.uv - a.uv).abs();
            let texels = asset.materials[triangle.material as usize].texture.as_ref();
            let template = ScreenTriangle {
                corners: [[0; 2]; 3],
                origin: Vec2::ZERO,
                inverse_depth: Plane(Vec3::ZERO),
                barycentric: [Plane(Vec3::ZERO); 2],
                part,
                indices: triangle.indices,
                material: first_material + triangle.material,
                footprint: texels.map_or(0.0, |t| uv_area * t.area()),
                uv_footprint: uv_area,
                face_normal: face * facing,
                normal_sign: if has_normals { facing * agrees } else { 0.0 },
            };
            self.clip_and_set_up(corners, template);
        }
        let normals = asset.vertices.iter().map(|v| (to_normal * v.normal).normalize_or_zero()).collect();
        self.parts.push(Part { vertices: &asset.vertices, normals, first_material });
    }

    fn clip_and_set_up(&mut self, corners: [Vec3; 3], template: ScreenTriangle) {
        let barycentric = [Vec2::X, Vec2::Y, Vec2::ZERO];
        let corners: [Corner; 3] =
            std::array::from_fn(|i| Corner { clip: corners[i], barycentric: barycentric[i] });
        let inside = |c: &Corner| {
            let guard = GUARD * c.clip.z;
            c.clip.z >= NEAR && c.clip.x.abs() <= guard && c.clip.y.abs() <= guard
        };
        if corners.iter().all(inside) {
            self.triangles.extend(self.set_up(&corners, template));
            return;
        }
        let mut polygon = corners.to_vec();
        for plane in [
            Vec4::new(0.0, 0.0, 1.0, -NEAR),
            Vec4::new(1.0, 0.0, GUARD, 0.0),
            Vec4::new(-1.0, 0.0, GUARD, 0.0),
            Vec4::new(0.0, 1.0, GUARD, 0.0),
            Vec4::new(0.0, -1.0, GUARD, 0.0),
        ] {
            polygon = clip(&polygon, plane);
        }
        for i in 2..polygon.len() {
            let fan = [polygon[0], polygon[i - 1], polygon[i]];
            self.triangles.extend(self.set_up(&fan, template));
        }
    }

    /// Screen planes of a triangle entirely in front of the camera; `None` if it has no area.
    fn set_up(&self, corners: &[Corner; 3], template: ScreenTriangle) -> Option<ScreenTriangle> {
        let size = Vec2::new(self.width as f32, self.height as f32);
        let fixed = corners.map(|c| {
            let ndc = c.clip.xy() / c.clip.z;
            let screen = Vec2::new(0.5 * ndc.x + 0.5, 0.5 - 0.5 * ndc.y) * size * SUBPIXELS as f32;
            screen.to_array().map(round)
        });
        let [a, b, c] = fixed;
        let (ab, ac) = ([b[0] - a[0], b[1] - a[1]], [c[0] - a[0], c[1] - a[1]]);
        let area = ab[0] * ac[1] - ab[1] * ac[0];
        if area == 0 {
            return None;
        }
        // Gradients in samples, in f64: slivers would lose everything in f32.
        let unit = SUBPIXELS as f64;
        let scale = unit / area as f64;
        let plane = |values: [f32; 3]| {
            let (d1, d2) = (f64::from(values[1] - values[0]), f64::from(values[2] - values[0]));
            let x = (d1 * ac[1] as f64 - d2 * ab[1] as f64) * scale;
            let y = (d2 * ab[0] as f64 - d1 * ac[0] as f64) * scale;
            Plane(Vec3::new(x as f32, y as f32, values[0]))
        };
        let inverse = corners.map(|c| 1.0 / c.clip.z);
        let over_depth = |axis: usize| plane([0, 1, 2].map(|i| corners[i].barycentric[axis] * inverse[i]));
        let inverse_depth = plane(inverse);
        let barycentric = [over_depth(0), over_depth(1)];
        // d(uv)/d(screen) has determinant depth³ · det(uv edges) · det[b0/w, b1/w, 1/w].
        let rows = [barycentric[0].0, barycentric[1].0, inverse_depth.0];
        let determinant = Mat3::from_cols(rows[0], rows[1], rows[2]).determinant().abs();
        Some(ScreenTriangle {
            corners: if area > 0 { fixed } else { [a, c, b] },
            origin: Vec2::new((a[0] as f64 / unit) as f32, (a[1] as f64 / unit) as f32),
            inverse_depth,
            barycentric,
            footprint: template.footprint * determinant,
            uv_footprint: template.uv_footprint * determinant,
            ..template
        })
    }
}

/// Nearest integer of a number within ±2⁴⁰; several times faster than `f32::round` on plain x86-64.
fn round(x: f32) -> i64 {
    const SHIFT: i64 = 1 << 40;
    (f64::from(x) + (SHIFT as f64 + 0.5)) as i64 - SHIFT
}

/// True if all corners (clip-space x, y, w) lie outside one side of the screen.
fn is_outside(corners: &[Vec3; 3]) -> bool {
    let all = |test: fn(&Vec3) -> bool| corners.iter().all(test);
    all(|c| c.x > c.z)
        || all(|c| c.x < -c.z)
        || all(|c| c.y > c.z)
        || all(|c| c.y < -c.z)
        || all(|c| c.z < NEAR)
        || corners.iter().any(|c| !c.is_finite())
}

/// The part of a convex polygon where `plane · (x, y, w, 1) ≥ 0` (Sutherland and Hodgman 1974).
fn clip(polygon: &[Corner], plane: Vec4) -> Vec<Corner> {
    let distance = |c: &Corner| plane.dot(c.clip.extend(1.0));
    let mut kept = Vec::with_capacity(polygon.len() + 1);
    for (i, current) in polygon.iter().enumerate() {
        let previous = &polygon[(i + polygon.len() - 1) % polygon.len()];
        let (d0, d1) = (distance(previous), distance(current));
        if (d0 < 0.0) != (d1 < 0.0) {
            let t = d0 / (d0 - d1);
            kept.push(Corner {
                clip: previous.clip.lerp(current.clip, t),
                barycentric: previous.barycentric.lerp(current.barycentric, t),
            });
        }
        if d1 >= 0.0 {
            kept.push(*current);
        }
    }
    kept
}

/// Cofactor matrix: how normals transform, up to scale, even where the matrix is singular.
fn cofactor(m: &Mat3) -> Mat3 {
    Mat3::from_cols(m.y_axis.cross(m.z_axis), m.z_axis.cross(m.x_axis), m.x_axis.cross(m.y_axis))
}

fn surface<'a>(material: &'a PreparedMaterial, look: &Look) -> Surface<'a> {
    let [r, g, b, alpha] = material.base;
    let repainted = look.repaint.is_some();
    // A repainted surface keeps the holes of its texture only where the texture has any.
    let texture = material.texture.as_deref().filter(|t| !repainted || !t.opaque);
    let roughness = look.roughness.unwrap_or(material.roughness);
    let exponent = (2.0 / roughness.max(0.2).powi(4) - 2.0).max(0.0);
    Surface {
        base: look.repaint.unwrap_or(Vec3::new(r, g, b)) * look.tint,
        alpha,
        texture,
        repainted,
        emissive: material.emissive,
        metallic: look.metallic.unwrap_or(material.metallic),
        roughness,
        highlight: [exponent, (1.0 - roughness) * (exponent + 2.0).min(40.0) * 0.125],
        opaque: alpha >= 1.0 && texture.is_none_or(|t| t.opaque),
    }
}
