//! The same pictures in f64 by other means: rays against triangles, edges divided by w. Which triangle
//! a pixel sees is given, so that the result is smooth.

use glam::{DMat4, DVec2, DVec3};

use super::super::input::levels;
use crate::render::camera::Camera;

/// A scene in f64; colours of vertices or (u, v) and a texture.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) positions: Vec<f64>,
    pub(crate) triangles: Vec<[u32; 3]>,
    pub(crate) attributes: Vec<f64>,
    pub(crate) texture: Option<Texture>,
    /// From what is interpolated to a colour.
    pub(crate) shade: Option<fn(DVec3) -> DVec3>,
    pub(crate) background: DVec3,
}

#[derive(Clone)]
pub(crate) struct Texture {
    pub(super) texels: Vec<f64>,
    pub(super) size: [usize; 2],
    pub(super) wrap: u32,
    pub(super) trilinear: bool,
    /// Level of each pixel of all views, which the loss does not see as a function.
    pub(super) levels: Vec<f64>,
}

/// Per pixel: rgb, coverage, depth, normal.
pub(crate) type Pixel = [f64; 8];

pub(super) struct Hit {
    pub(super) b: DVec3,
    pub(super) depth: f64,
}

/// Where the ray through (x, y) meets the triangle's plane, in barycentric coordinates.
pub(super) fn hit(camera: &Camera, corners: [DVec3; 3], x: f64, y: f64) -> Hit {
    let c2w = DMat4::from_cols_array(&camera.c2w.to_cols_array().map(f64::from));
    let t = (0.5 * f64::from(camera.fov_y)).tan();
    let (w, h) = (f64::from(camera.width), f64::from(camera.height));
    let local = DVec3::new((2.0 * x / w - 1.0) * t * w / h, (1.0 - 2.0 * y / h) * t, -1.0);
    let direction = c2w.transform_vector3(local);
    let origin = c2w.w_axis.truncate();
    // Möller and Trumbore; the direction advances by one along the viewing axis.
    let [a, b, c] = corners;
    let (u, v) = (b - a, c - a);
    let q = direction.cross(v);
    let det = u.dot(q);
    let s = (origin - a) / det;
    let beta = s.dot(q);
    let r = s.cross(u);
    let gamma = direction.dot(r);
    Hit { b: DVec3::new(1.0 - beta - gamma, beta, gamma), depth: v.dot(r) }
}

impl Scene {
    pub(super) fn corners(&self, triangle: usize) -> [DVec3; 3] {
        self.triangles[triangle].map(|i| DVec3::from_slice(&self.positions[3 * i as usize..]))
    }

    /// Unit sums of area vectors.
    fn normals(&self) -> Vec<DVec3> {
        let mut sums = vec![DVec3::ZERO; self.positions.len() / 3];
        for (t, triangle) in self.triangles.iter().enumerate() {
            let [a, b, c] = self.corners(t);
            triangle.iter().for_each(|&i| sums[i as usize] += (b - a).cross(c - a));
        }
        sums.into_iter().map(DVec3::normalize).collect()
    }

    fn uv(&self, camera: &Camera, triangle: usize, x: f64, y: f64) -> DVec2 {
        let hit = hit(camera, self.corners(triangle), x, y);
        let rows = self.triangles[triangle].map(|i| DVec2::from_slice(&self.attributes[2 * i as usize..]));
        rows[0] * hit.b.x + rows[1] * hit.b.y + rows[2] * hit.b.z
    }

    /// Sets the level of every pixel from differences of (u, v).
    pub(super) fn set_levels(&mut self, cameras: &[Camera], ids: &[u32]) {
        let Some(texture) = &self.texture else { return };
        let size = DVec2::new(texture.size[0] as f64, texture.size[1] as f64);
        let most = f64::from(levels(texture.size[0], texture.size[1]) - 1);
        let all = pixels(cameras).zip(ids).map(|((_, camera, x, y), &id)| {
            let (Some(t), h) = ((id as usize).checked_sub(1), 1e-4) else { return 0.0 };
            let along_x = (self.uv(camera, t, x + h, y) - self.uv(camera, t, x - h, y)) / (2.0 * h) * size;
            let along_y = (self.uv(camera, t, x, y + h) - self.uv(camera, t, x, y - h)) / (2.0 * h) * size;
            along_x.length().max(along_y.length()).max(1.0).log2().min(most)
        });
        let all = all.collect();
        if let Some(texture) = &mut self.texture {
            texture.levels = all;
        }
    }

    fn layers(&self, cameras: &[Camera], ids: &[u32]) -> Vec<Pixel> {
        let normals = self.normals();
        let mix = |rows: [DVec3; 3], b: DVec3| rows[0] * b.x + rows[1] * b.y + rows[2] * b.z;
        let pixel = |(at, camera, x, y): (usize, &Camera, f64, f64)| {
            let Some(t) = (ids[at] as usize).checked_sub(1) else {
                let [r, g, b] = self.background.to_array();
                return [r, g, b, 0.0, 0.0, 0.0, 0.0, 0.0];
            };
            let hit = hit(camera, self.corners(t), x, y);
            let color = match &self.texture {
                Some(texture) => texture.sample(self.uv(camera, t, x, y), texture.levels[at]),
                None => {
                    let row = |i: u32| DVec3::from_slice(&self.attributes[3 * i as usize..]);
                    mix(self.triangles[t].map(row), hit.b)
                }
            };
            let color = self.shade.map_or(color, |shade| shade(color));
            let normal = mix(self.triangles[t].map(|i| normals[i as usize]), hit.b);
            [color.x, color.y, color.z, 1.0, hit.depth, normal.x, normal.y, normal.z]
        };
        pixels(cameras).map(pixel).collect()
    }

    /// The pictures of all cameras.
    pub(crate) fn render(&self, cameras: &[Camera], ids: &[u32]) -> Vec<Pixel> {
        let layers = self.layers(cameras, ids);
        let mut out = layers.clone();
        for (at, camera, x, y) in pixels(cameras) {
            let (width, height) = (camera.width as usize, camera.height as usize);
            for (axis, inside, step) in [(0, x + 1.0 < width as f64, 1), (1, y + 1.0 < height as f64, width)]
            {
                let next = at + step;
                if !inside || ids[at] == ids[next] {
                    continue;
                }
                let second = ids[at] == 0 || (ids[next] != 0 && layers[next][4] < layers[at][4]);
                let (own, other) = if second { (next, at) } else { (at, next) };
                let mut center = DVec2::new(x, y);
                center[axis] += f64::from(u8::from(second));
                let direction = if second { -1.0 } else { 1.0 };
                let Some(d) = self.crossing(camera, ids[own] as usize - 1, center, axis, direction) else {
                    continue;
                };
                let (taker, giver, share) =
                    if d < 0.5 { (own, other, 0.5 - d) } else { (other, own, d - 0.5) };
                // Depth is not blended.
                for c in [0, 1, 2, 3, 5, 6, 7] {
                    out[taker][c] += share * (layers[giver][c] - layers[taker][c]);
                }
            }
        }
        out
    }

    /// Share to the crossing of a silhouette edge, as plain plane geometry.
    fn crossing(&self, camera: &Camera, t: usize, from: DVec2, axis: usize, direction: f64) -> Option<f64> {
        let screen = |i: u32| {
            let at = DVec3::from_slice(&self.positions[3 * i as usize..]);
            let c2w = DMat4::from_cols_array(&camera.c2w.to_cols_array().map(f64::from));
            let v = c2w.inverse().transform_point3(at);
            let f = 0.5 * f64::from(camera.height) / (0.5 * f64::from(camera.fov_y)).tan();
            DVec2::new(
                0.5 * f64::from(camera.width) + f * v.x / -v.z,
                0.5 * f64::from(camera.height) - f * v.y / -v.z,
            )
        };
        for k in 0..3 {
            let [c, i, j] = [0, 1, 2].map(|o| self.triangles[t][(k + o) % 3]);
            let (a, b) = (screen(i), screen(j));
            let rise = b - a;
            let steep = rise[1 - axis].abs() > rise[axis].abs();
            if !steep || (a[1 - axis] < from[1 - axis]) == (b[1 - axis] < from[1 - axis]) {
                continue;
            }
            let at = a[axis] + (from[1 - axis] - a[1 - axis]) / rise[1 - axis] * rise[axis];
            let d = direction * (at - from[axis]);
            // The other triangle at this edge, found by looking.
            let joined = self.triangles.iter().enumerate().find_map(|(o, other)| {
                let third = other.iter().find(|v| **v != i && **v != j)?;
                (o != t && other.contains(&i) && other.contains(&j)).then_some(*third)
            });
            let side = |v: DVec2| (b - a).perp_dot(v - a);
            let silhouette = joined.is_none_or(|o| side(screen(o)) * side(screen(c)) >= 0.0);
            if silhouette && (0.0..=1.0).contains(&d) {
                return Some(d);
            }
        }
        None
    }
}

/// (index over all views, camera, centre) of each pixel.
pub(super) fn pixels(cameras: &[Camera]) -> impl Iterator<Item = (usize, &Camera, f64, f64)> {
    let views = cameras.iter().flat_map(|camera| {
        let centers = (0..camera.height).flat_map(move |y| (0..camera.width).map(move |x| (x, y)));
        centers.map(move |(x, y)| (camera, f64::from(x) + 0.5, f64::from(y) + 0.5))
    });
    views.enumerate().map(|(at, (camera, x, y))| (at, camera, x, y))
}

impl Texture {
    /// Texel (x, y) of a level: the mean of all texels under it.
    fn texel(&self, level: u32, x: i64, y: i64) -> DVec3 {
        let [width, height] = self.size.map(|s| (s >> level).max(1) as i64);
        let wrap = |i: i64, n: i64| match self.wrap {
            0 => i.rem_euclid(n),
            1 => i.clamp(0, n - 1),
            _ => {
                let m = i.rem_euclid(2 * n);
                m.min(2 * n - 1 - m)
            }
        };
        let (x, y) = (wrap(x, width) as usize, wrap(y, height) as usize);
        let (sx, sy) = (self.size[0] / width as usize, self.size[1] / height as usize);
        let mut sum = DVec3::ZERO;
        for j in y * sy..(y + 1) * sy {
            for i in x * sx..(x + 1) * sx {
                sum += DVec3::from_slice(&self.texels[3 * (j * self.size[0] + i)..]);
            }
        }
        sum / (sx * sy) as f64
    }

    fn bilinear(&self, level: u32, uv: DVec2) -> DVec3 {
        let size = self.size.map(|s| (s >> level).max(1) as f64);
        let at = uv * DVec2::from_array(size) - 0.5;
        let (low, f) = (at.floor(), at - at.floor());
        let (x, y) = (low.x as i64, low.y as i64);
        let row = |y: i64| self.texel(level, x, y) * (1.0 - f.x) + self.texel(level, x + 1, y) * f.x;
        row(y) * (1.0 - f.y) + row(y + 1) * f.y
    }

    pub(super) fn sample(&self, uv: DVec2, level: f64) -> DVec3 {
        if !self.trilinear {
            return self.bilinear(0, uv);
        }
        let (low, f) = (level.floor() as u32, level.fract());
        let coarse = if f > 0.0 { self.bilinear(low + 1, uv) } else { DVec3::ZERO };
        self.bilinear(low, uv) * (1.0 - f) + coarse * f
    }
}
