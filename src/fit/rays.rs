//! Batches of single rays for the volume renderer, with what was seen along them.
//!
//! The renderer takes cameras. A camera of one pixel is a ray: its viewing axis. So a batch is a list of
//! such cameras, each with a background of its own, and lenses of every kind go through one path.

use glam::{DVec2, Mat4, Vec3, Vec4};
use rayon::prelude::*;

use super::dataset::View;
use super::placement::Placement;
use crate::render::camera::Camera;
use crate::render::color::srgb_to_linear;
use crate::rng::{Rng, Stream};

/// Of a picture's rays so many in eight go through the rectangle around what it shows.
const INSIDE: u32 = 7;
/// That rectangle is wider by this share of the picture on each side.
const MARGIN: f32 = 0.04;

/// Rays and the linear colours seen along them.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub(super) cameras: Vec<Camera>,
    /// Behind each ray.
    pub(super) backgrounds: Vec<Vec3>,
    /// Over that background.
    pub(super) colors: Vec<Vec3>,
}

/// A view and where in it to look.
pub(super) struct Target<'a> {
    view: &'a View,
    /// `[x0, y0, x1, y1)`.
    inside: [u32; 4],
}

impl<'a> Target<'a> {
    pub(super) fn new(view: &'a View) -> Self {
        let (w, h) = (view.lens.width, view.lens.height);
        let margin = |n: u32| (MARGIN * n as f32).ceil() as u32;
        let inside = view.picture.seen().map_or([0, 0, w, h], |[x0, y0, x1, y1]| {
            let (mx, my) = (margin(w), margin(h));
            [x0.saturating_sub(mx), y0.saturating_sub(my), (x1 + mx).min(w), (y1 + my).min(h)]
        });
        Self { view, inside }
    }

    /// A pixel from three words.
    fn pixel(&self, [which, x, y]: [u32; 3]) -> (u32, u32) {
        let l = &self.view.lens;
        let [x0, y0, x1, y1] = if which % 8 < INSIDE { self.inside } else { [0, 0, l.width, l.height] };
        let below = |word: u32, n: u32| ((u64::from(word) * u64::from(n)) >> 32) as u32;
        (x0 + below(x, x1 - x0), y0 + below(y, y1 - y0))
    }
}

/// `rays` random pixels of random views for `step`. With `masked` pictures each stands before a random
/// colour, so that no part of the field can hide by matching what is behind it.
pub(super) fn random(
    targets: &[Target<'_>],
    place: &Placement,
    masked: bool,
    (seed, step, rays): (u64, u32, u32),
) -> Batch {
    let pixels = Rng::new(seed, Stream::Camera, step);
    let behind = Rng::new(seed, Stream::Background, step);
    let all: Vec<(Camera, Vec3, Vec3)> = (0..u64::from(rays))
        .into_par_iter()
        .map(|i| {
            let [v, which, x, y] = pixels.words(i);
            let target = &targets[((u64::from(v) * targets.len() as u64) >> 32) as usize];
            let (x, y) = target.pixel([which, x, y]);
            let [r, g, b, _] = behind.words(i).map(|w| srgb_to_linear((w >> 8) as f32 / 16_777_215.0));
            let background = if masked { Vec3::new(r, g, b) } else { Vec3::ZERO };
            let (color, alpha) = target.view.picture.at(x, y);
            let seen = color * alpha + background * (1.0 - alpha);
            (camera(target.view, place, x, y), background, seen)
        })
        .collect();
    let mut batch = Batch::default();
    for (camera, background, color) in all {
        batch.cameras.push(camera);
        batch.backgrounds.push(background);
        batch.colors.push(color);
    }
    batch
}

/// Every pixel of a view before one background, row by row.
pub(super) fn whole(view: &View, place: &Placement, background: Vec3) -> Batch {
    let (w, h) = (view.lens.width, view.lens.height);
    let at = |i: u32| (i % w, i / w);
    Batch {
        cameras: (0..w * h).map(at).map(|(x, y)| camera(view, place, x, y)).collect(),
        backgrounds: vec![background; (w * h) as usize],
        colors: (0..w * h)
            .map(at)
            .map(|(x, y)| {
                let (color, alpha) = view.picture.at(x, y);
                color * alpha + background * (1.0 - alpha)
            })
            .collect(),
    }
}

/// The ray through a pixel's centre, in the field's box, as a camera of one pixel.
fn camera(view: &View, place: &Placement, x: u32, y: u32) -> Camera {
    let direction = view.lens.direction(DVec2::new(f64::from(x) + 0.5, f64::from(y) + 0.5));
    let back = -(view.pose.rotation * direction).normalize().as_vec3();
    let origin = place.to_field(view.pose.position).as_vec3();
    let right = back.any_orthonormal_vector();
    let up = back.cross(right);
    let columns = [right.extend(0.0), up.extend(0.0), back.extend(0.0)];
    let c2w = Mat4::from_cols(columns[0], columns[1], columns[2], Vec4::from((origin, 1.0)));
    Camera { c2w, fov_y: 0.01, width: 1, height: 1 }
}

/// The whole view as one camera of the field's box, where its lens allows.
pub(super) fn pinhole(view: &View, place: &Placement) -> Option<Camera> {
    let fov_y = view.lens.centered_fov_y()?;
    let axes = view.pose.rotation.as_mat3();
    let origin = place.to_field(view.pose.position).as_vec3();
    let c2w = Mat4::from_cols(
        axes.x_axis.extend(0.0),
        axes.y_axis.extend(0.0),
        axes.z_axis.extend(0.0),
        origin.extend(1.0),
    );
    Some(Camera { c2w, fov_y, width: view.lens.width, height: view.lens.height })
}

#[cfg(test)]
mod tests {
    use glam::{DMat3, DVec3};

    use super::*;
    use crate::fit::dataset::lens::{Lens, Pose};
    use crate::fit::dataset::picture::Picture;

    fn view() -> View {
        let orbit = Camera::orbit(33.0, 20.0, 5.0, Vec3::ZERO, 0.8, 16);
        let axes = glam::Mat3::from_mat4(orbit.c2w);
        let columns = [axes.x_axis, axes.y_axis, axes.z_axis].map(|c| c.as_dvec3());
        let pose = Pose {
            rotation: DMat3::from_cols(columns[0], columns[1], columns[2]),
            position: orbit.origin().as_dvec3() + DVec3::X,
        };
        let rgba = (0..256u32).map(|i| if i == 16 * 9 + 4 { [255, 0, 0, 255] } else { [0; 4] }).collect();
        let picture = Picture { width: 16, height: 16, rgba, has_alpha: true };
        View { path: "v".into(), lens: Lens::pinhole(16, 16, 8.0 / 0.4f64.tan()), pose, picture }
    }

    #[test]
    fn a_ray_is_the_pinholes_ray_and_colours_stand_before_their_backgrounds() {
        let place = Placement { center: DVec3::X, scale: 0.5 };
        let view = view();
        let camera = pinhole(&view, &place).unwrap();
        let batch = whole(&view, &place, Vec3::new(0.2, 0.4, 0.6));
        for i in [0usize, 100, 255] {
            let ray = &batch.cameras[i];
            let want = camera.direction((i % 16) as f32 + 0.5, (i / 16) as f32 + 0.5);
            assert!((ray.direction(0.5, 0.5) - want).length() < 1e-6);
            assert!((ray.origin() - camera.origin()).length() < 1e-6);
        }
        assert_eq!((batch.colors[16 * 9 + 4], batch.colors[0]), (Vec3::X, Vec3::new(0.2, 0.4, 0.6)));
    }

    #[test]
    fn random_rays_look_where_something_is_and_depend_on_seed_and_step_alone() {
        let place = Placement { center: DVec3::ZERO, scale: 1.0 };
        let views = [view(), view()];
        let targets: Vec<Target<'_>> = views.iter().map(Target::new).collect();
        let draw = |seed, step| random(&targets, &place, true, (seed, step, 4000));
        let batch = draw(1, 2);
        let hits = batch.colors.iter().zip(&batch.backgrounds).filter(|(c, b)| c != b).count() as f64;
        // One pixel of a rectangle of 3 × 3 in 7 of 8 draws, and of 256 in the others; five deviations.
        let p = 7.0 / 8.0 / 9.0 + 1.0 / 8.0 / 256.0;
        assert!((hits / 4000.0 - p).abs() < 5.0 * (p * (1.0 - p) / 4000.0).sqrt(), "{hits}");
        assert_eq!(batch.cameras, draw(1, 2).cameras);
        assert!(batch.cameras != draw(1, 3).cameras && batch.cameras != draw(2, 2).cameras);
        let plain = random(&targets, &place, false, (1, 2, 10));
        assert!(plain.backgrounds.iter().all(|b| *b == Vec3::ZERO));
    }
}
