//! Words for the side a camera sees, for priors that are not conditioned by the camera.

use serde::{Deserialize, Serialize};

/// The side of the object that faces the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// The face, +Z.
    Front,
    /// Either flank.
    Side,
    /// −Z.
    Back,
    /// From above.
    Overhead,
}

impl View {
    /// All views, in the order of their embeddings in a table.
    pub const ALL: [Self; 4] = [Self::Front, Self::Side, Self::Back, Self::Overhead];
}

/// Where a view begins, and what is added to the prompt for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ViewPrompts {
    /// Azimuths closer than this to 0° are the front (degrees).
    pub front: f32,
    /// Azimuths closer than this to 180° are the back (degrees).
    pub back: f32,
    /// Elevations above this are overhead (degrees).
    pub overhead: f32,
    /// What is appended for front, side, back and overhead.
    pub suffixes: [String; 4],
}

impl Default for ViewPrompts {
    /// 45° around front and back, overhead above 60°, "…, front view".
    fn default() -> Self {
        let suffixes = ["front", "side", "back", "overhead"].map(|v| format!(", {v} view"));
        Self { front: 45.0, back: 45.0, overhead: 60.0, suffixes }
    }
}

impl ViewPrompts {
    /// The view of a camera at `azimuth` (0° in front, any turn) and `elevation`, in degrees.
    pub fn view(&self, azimuth: f32, elevation: f32) -> View {
        let off = off_front(azimuth);
        if elevation > self.overhead {
            View::Overhead
        } else if off < self.front {
            View::Front
        } else if off > 180.0 - self.back {
            View::Back
        } else {
            View::Side
        }
    }

    /// `prompt` with the words of the view.
    pub fn prompt(&self, prompt: &str, view: View) -> String {
        let [front, side, back, overhead] = &self.suffixes;
        let suffix = match view {
            View::Front => front,
            View::Side => side,
            View::Back => back,
            View::Overhead => overhead,
        };
        format!("{prompt}{suffix}")
    }
}

/// Degrees 0..=180 between the azimuth and the front.
fn off_front(azimuth: f32) -> f32 {
    let turn = azimuth.rem_euclid(360.0);
    turn.min(360.0 - turn)
}

/// What Perp-Neg needs for one camera: which view embeddings to blend as the prompt, and which to
/// push away from, with weights for [`crate::sample::guidance::Guidance::negatives`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PerpNeg {
    /// The positive embedding is the sum of these views' embeddings times their shares.
    pub positive: [(View, f64); 2],
    /// Negative views and weights (≤ 0).
    pub negatives: [(View, f64); 2],
}

impl PerpNeg {
    /// Blend and weights at `azimuth` degrees (Armandpour et al. 2023, with the shifted exponentials
    /// `a e^{−b r} + c` in common use): from front to side r falls from 1 to 0 while the weights of
    /// "front" and "side" as negatives trade places; from side to back likewise.
    pub fn at(azimuth: f32) -> Self {
        let quarter = f64::from(off_front(azimuth)) / 90.0;
        let decay = |a: f64, c: f64, r: f64| -(a * (-0.5 * r).exp() + c).max(0.0);
        if quarter < 1.0 {
            let r = 1.0 - quarter;
            Self {
                positive: [(View::Front, r), (View::Side, 1.0 - r)],
                negatives: [
                    (View::Front, decay(4.0, FRONT_SIDE, r)),
                    (View::Side, decay(4.0, FRONT_SIDE, 1.0 - r)),
                ],
            }
        } else {
            let r = 2.0 - quarter;
            Self {
                positive: [(View::Side, r), (View::Back, 1.0 - r)],
                negatives: [(View::Side, decay(1.0, SIDE_BACK, r)), (View::Front, decay(1.0, FRONT_BACK, r))],
            }
        }
    }
}

/// Offset of the front-side weights; 4 e^{−½} + this is 0: a view is not pushed away from itself.
const FRONT_SIDE: f64 = -2.426;
/// Offset of the side's weight behind the side; e^{−½} + this is 0.
const SIDE_BACK: f64 = -0.606;
/// Offset of the front's weight behind the side, where the front is never wanted.
const FRONT_BACK: f64 = 0.967;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::camera::Camera;

    #[test]
    fn views_by_angle() {
        let views = ViewPrompts::default();
        let cases = [
            (0.0, 0.0, View::Front),
            (-44.0, 10.0, View::Front),
            (316.0, 59.0, View::Front),
            (46.0, 0.0, View::Side),
            (270.0, 0.0, View::Side),
            (134.0, 0.0, View::Side),
            (136.0, 0.0, View::Back),
            (-180.0, 0.0, View::Back),
            (540.0, 0.0, View::Back),
            (0.0, 61.0, View::Overhead),
        ];
        for (azimuth, elevation, want) in cases {
            assert_eq!(views.view(azimuth, elevation), want, "{azimuth} {elevation}");
        }
        assert_eq!(views.prompt("a fox", View::Back), "a fox, back view");
        // The camera rig agrees on where the front is: on the asset's +Z.
        assert!(Camera::orbit(0.0, 0.0, 2.0, glam::Vec3::ZERO, 0.7, 8).origin().z > 1.9);
    }

    #[test]
    fn perp_neg_weights_never_push_a_view_away_from_itself() {
        let weight = |azimuth, view| {
            PerpNeg::at(azimuth).negatives.iter().filter(|(v, _)| *v == view).map(|(_, w)| *w).sum::<f64>()
        };
        // The published offsets cancel to three decimals.
        assert!(weight(0.0, View::Front).abs() < 1e-3 && weight(0.0, View::Side) < -1.5);
        assert!(weight(89.99, View::Side).abs() < 1e-3 && weight(89.99, View::Front) < -1.5);
        assert!(weight(90.0, View::Side).abs() < 1e-3 && weight(90.0, View::Front) < -1.5);
        assert!(weight(180.0, View::Side) < -0.39 && weight(180.0, View::Front) < -1.9);
        for i in 0..720 {
            let at = PerpNeg::at(i as f32);
            let shares: f64 = at.positive.iter().map(|(_, w)| w).sum();
            assert!((shares - 1.0).abs() < 1e-12 && at.negatives.iter().all(|(_, w)| *w <= 0.0));
            assert_eq!(at, PerpNeg::at(-(i as f32)));
        }
    }
}
