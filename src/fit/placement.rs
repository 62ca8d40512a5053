//! Where in the pictures' world the object is: the cube that becomes the field's box [−1, 1]³.

use glam::{DMat3, DVec3};

use super::dataset::View;
use crate::{Error, Result};

/// Cells a side of the carved block.
const CELLS: usize = 64;
/// The object's largest side in the field's box, which has sides of 2: a margin for what the carving
/// cuts off.
const FILL: f64 = 1.7;
/// Views that are asked about each cell.
const ASKED: usize = 48;

/// An even scale and a shift: `field = (world − center) · scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// The middle of the object.
    pub center: DVec3,
    /// Field units per unit of the world.
    pub scale: f64,
}

impl Placement {
    /// A point of the world in the field's box.
    pub fn to_field(&self, world: DVec3) -> DVec3 {
        (world - self.center) * self.scale
    }

    /// And back.
    pub fn to_world(&self, field: DVec3) -> DVec3 {
        field / self.scale + self.center
    }

    /// From the cameras, and from their silhouettes where the pictures are cut out.
    ///
    /// # Errors
    /// [`Error::Failed`] if the cameras do not look at one place, or no point is seen by all of them.
    pub fn of(views: &[View], masked: bool) -> Result<Self> {
        let (center, radius) = seen_by_all(views)?;
        let whole = Self { center, scale: 1.0 / radius };
        if !masked {
            return Ok(whole);
        }
        // Twice: the second block is as large as the object, so its cells are as fine as can be.
        let mut found = Self { center, scale: 0.5 / radius };
        for _ in 0..2 {
            found = found.carve(views)?;
        }
        Ok(found)
    }

    /// The cube around what all silhouettes of a block twice as large as the box's sides leave over.
    fn carve(&self, views: &[View]) -> Result<Self> {
        let stride = views.len().div_ceil(ASKED);
        let asked: Vec<(&View, bool)> = views.iter().step_by(stride).map(|v| (v, cut_off(v))).collect();
        let cell = 2.0 / CELLS as f64;
        let mut bounds: Option<(DVec3, DVec3)> = None;
        for i in 0..CELLS.pow(3) {
            let at = [i % CELLS, i / CELLS % CELLS, i / CELLS / CELLS].map(|c| (c as f64 + 0.5) * cell - 1.0);
            let point = self.to_world(DVec3::from_array(at));
            if asked.iter().all(|(v, cut)| may_be_solid(v, *cut, point, 0.87 * cell / self.scale)) {
                let (low, high) = bounds.get_or_insert((point, point));
                (*low, *high) = (low.min(point), high.max(point));
            }
        }
        let Some((low, high)) = bounds else {
            let hint =
                "are the poses camera-to-world with OpenGL axes, and do they belong to these pictures?";
            return Err(Error::Failed("no point of space lies in all silhouettes".into()).hint(hint));
        };
        let side = (high - low).max_element() + cell / self.scale;
        Ok(Self { center: 0.5 * (low + high), scale: FILL / side })
    }
}

/// The point nearest to all viewing axes, and the radius of the ball around it that every camera sees
/// whole.
fn seen_by_all(views: &[View]) -> Result<(DVec3, f64)> {
    let hint = "the cameras must stand around an object and look at it";
    let (mut a, mut b) = (DMat3::ZERO, DVec3::ZERO);
    for v in views {
        let d = v.pose.forward();
        let across = DMat3::IDENTITY - DMat3::from_cols(d * d.x, d * d.y, d * d.z);
        a += across;
        b += across * v.pose.position;
    }
    // The determinant of the mean projection: 0 if all axes are parallel.
    let spread = (a * (1.0 / views.len().max(1) as f64)).determinant();
    if spread.is_nan() || spread <= 1e-5 {
        return Err(Error::Failed("the cameras all look the same way".into()).hint(hint));
    }
    let center = a.inverse() * b;
    let mut radius = f64::INFINITY;
    for v in views {
        let distance = v.pose.to_camera(center);
        if distance.z >= 0.0 {
            let what = format!("{} looks away from the others' centre", v.path.display());
            return Err(Error::Failed(what).hint(hint));
        }
        let half = [f64::from(v.lens.width) / v.lens.focal.x, f64::from(v.lens.height) / v.lens.focal.y];
        let narrow = (0.5 * half[0].min(half[1])).atan();
        radius = radius.min(-distance.z * narrow.sin());
    }
    Ok((center, radius))
}

/// Whether the silhouette goes on beyond the picture's border.
fn cut_off(view: &View) -> bool {
    let (w, h) = (view.lens.width, view.lens.height);
    view.picture.seen().is_some_and(|[x0, y0, x1, y1]| x0 == 0 || y0 == 0 || x1 == w || y1 == h)
}

/// Whether a ball of `radius` around a point of the world meets the view's silhouette. Beyond the border
/// there is something only if the silhouette is `cut` off there.
fn may_be_solid(view: &View, cut: bool, point: DVec3, radius: f64) -> bool {
    let local = view.pose.to_camera(point);
    let Some(pixel) = view.lens.project(local) else { return cut };
    let (w, h) = (view.lens.width, view.lens.height);
    let reach = (radius / -local.z * view.lens.focal.max_element()).clamp(1.0, 1e4);
    let span = |at: f64, n: u32| {
        let (low, high) = (at - reach, at + reach);
        let inside = high > 0.0 && low < f64::from(n);
        // The casts clamp below at 0.
        inside.then(|| (low as u32, (high as u32).min(n - 1), low < 0.0 || high > f64::from(n)))
    };
    let (Some((x0, x1, over_x)), Some((y0, y1, over_y))) = (span(pixel.x, w), span(pixel.y, h)) else {
        return cut;
    };
    if cut && (over_x || over_y) {
        return true;
    }
    // Nine probes a row and column suffice: silhouettes have no holes that small which matter.
    let step = |low: u32, high: u32| ((high - low) / 8).max(1) as usize;
    let opaque = |x: u32, y: u32| view.picture.rgba[(y * w + x) as usize][3] > 127;
    (y0..=y1).step_by(step(y0, y1)).any(|y| (x0..=x1).step_by(step(x0, x1)).any(|x| opaque(x, y)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::dataset::lens::{Lens, Pose};
    use crate::fit::dataset::picture::Picture;

    /// Looks from `position` at `target` and sees a ball.
    fn view(position: DVec3, target: DVec3, ball: (DVec3, f64)) -> View {
        let back = (position - target).normalize();
        let right = DVec3::Y.cross(back).normalize();
        let rotation = DMat3::from_cols(right, back.cross(right), back);
        let (pose, lens) = (Pose { rotation, position }, Lens::pinhole(64, 64, 60.0));
        let rgba = (0..64 * 64).map(|i| {
            let pixel = glam::DVec2::new(f64::from(i % 64) + 0.5, f64::from(i / 64) + 0.5);
            let d = (rotation * lens.direction(pixel)).normalize();
            let to = ball.0 - position;
            let off = (to - d * to.dot(d)).length();
            [255, 255, 255, if off < ball.1 { 255 } else { 0 }]
        });
        let picture = Picture { width: 64, height: 64, rgba: rgba.collect(), has_alpha: true };
        View { path: "v".into(), lens, pose, picture }
    }

    fn around(center: DVec3, distance: f64, ball: (DVec3, f64)) -> Vec<View> {
        (0..12)
            .map(|i| {
                let (a, y) = (f64::from(i) * 2.4, f64::from(i) / 6.0 - 0.9);
                let d = DVec3::new(a.sin(), y, a.cos()).normalize();
                view(center + d * distance, center, ball)
            })
            .collect()
    }

    #[test]
    fn a_ball_fills_the_box_wherever_and_however_large_it_is() {
        for size in [1e-3, 1.0, 5e4] {
            let center = DVec3::new(3.0, -2.0, 7.0) * size;
            let ball = (center + DVec3::new(0.2, 0.1, -0.1) * size, 0.4 * size);
            let placed = Placement::of(&around(center, 4.0 * size, ball), true).unwrap();
            let error = placed.to_field(ball.0).length();
            let radius = ball.1 * placed.scale;
            // Inside the box and centred to two cells. The ball is 6 pixels in radius, to which carving adds one
            // pixel and about half a cell all around: 0.85 · 6 / 7.5 = 0.68.
            assert!(error < 0.0625 && (0.64..0.72).contains(&radius), "{error} {radius}");
            let back = placed.to_world(placed.to_field(ball.0));
            assert!((back - ball.0).length() < 1e-9 * size.max(1.0));
        }
    }

    #[test]
    fn without_masks_the_box_is_what_all_cameras_see() {
        let center = DVec3::new(3.0, -2.0, 7.0);
        let placed = Placement::of(&around(center, 4.0, (center, 0.4)), false).unwrap();
        let radius = 4.0 * (32f64 / 60.0).atan().sin();
        assert!((placed.center - center).length() < 1e-9);
        assert!((placed.scale - 1.0 / radius).abs() < 1e-9);
    }

    #[test]
    fn cameras_that_do_not_surround_anything_are_refused() {
        let ball = (DVec3::ZERO, 0.4);
        let parallel: Vec<View> = (0..4)
            .map(|i| view(DVec3::new(f64::from(i), 0.0, 4.0), DVec3::new(f64::from(i), 0.0, 0.0), ball))
            .collect();
        assert!(Placement::of(&parallel, true).unwrap_err().to_string().contains("the same way"));
        let mut views = around(DVec3::ZERO, 4.0, ball);
        views[3] = view(DVec3::new(1.0, 0.0, 4.0), DVec3::new(1.0, 0.0, 9.0), ball);
        assert!(Placement::of(&views, true).unwrap_err().hint_text().is_some());
        // Silhouettes that contradict each other: another ball in half of the views.
        let other = (DVec3::new(0.0, 1.2, 0.0), 0.2);
        let mut views = around(DVec3::ZERO, 4.0, (DVec3::new(0.0, -1.2, 0.0), 0.2));
        views.extend(around(DVec3::ZERO, 4.0, other));
        assert!(Placement::of(&views, true).unwrap_err().to_string().contains("silhouettes"));
    }
}
