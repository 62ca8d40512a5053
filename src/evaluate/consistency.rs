//! View consistency: does the side that is seen advance as the camera does? Repeated fronts are Janus faces.

use std::f32::consts::{PI, TAU};

use serde::Serialize;

/// A predicted azimuth of less than this length says nothing: the picture could be from anywhere.
pub const CONFIDENT: f32 = 0.5;
/// Two views agree if the step between them is predicted within this angle, radians. Half of it would be
/// the noise of single predictions; a face that repeats is off by an eighth of a circle or more.
const TOLERANCE: f32 = 2.0 * PI / 9.0;
/// What is seen from within this angle of the front shows a face, radians.
const FACE: f32 = PI / 3.0;

/// The sides that the views of one thing show.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Consistency {
    /// Share of pairs of confident views whose azimuths differ as the cameras do, 0 … 1; `None` with fewer
    /// than three confident views (such as of an apple, which has no front).
    pub score: Option<f64>,
    /// Separate runs of views, around the circle, that show the front. More than one is a Janus face.
    pub fronts: usize,
    /// Confident views.
    pub confident: usize,
    /// Views.
    pub views: usize,
    /// Predicted azimuths in degrees, −180 … 180, `None` where not confident.
    pub azimuths: Vec<Option<f32>>,
}

/// Judges views at equal steps around the circle (any first azimuth), given for each the predicted cosine
/// and sine times confidence.
///
/// Where the front points does not matter, only that the side advances with the camera.
pub fn consistency(predicted: &[[f32; 2]]) -> Consistency {
    let angle = |p: &[f32; 2]| (p[0].hypot(p[1]) >= CONFIDENT).then(|| p[1].atan2(p[0]));
    let azimuths: Vec<Option<f32>> = predicted.iter().map(angle).collect();
    let n = azimuths.len();
    let sure: Vec<(usize, f32)> = azimuths.iter().enumerate().filter_map(|(i, a)| Some((i, (*a)?))).collect();
    let (mut pairs, mut right) = (0_u32, 0_u32);
    for (k, (i, a)) in sure.iter().enumerate() {
        for (j, b) in &sure[k + 1..] {
            let step = TAU * (j - i) as f32 / n as f32;
            pairs += 1;
            right += u32::from(wrapped(b - a - step).abs() < TOLERANCE);
        }
    }
    let face: Vec<bool> = azimuths.iter().map(|a| a.is_some_and(|a| a.abs() < FACE)).collect();
    Consistency {
        score: (sure.len() >= 3).then(|| f64::from(right) / f64::from(pairs.max(1))),
        fronts: runs(&face),
        confident: sure.len(),
        views: n,
        azimuths: azimuths.iter().map(|a| a.map(f32::to_degrees)).collect(),
    }
}

/// Runs of `true` around a circle.
fn runs(circle: &[bool]) -> usize {
    let n = circle.len();
    let starts = (0..n).filter(|&i| circle[i] && !circle[(i + n - 1) % n]).count();
    // All alike, all the way round: one.
    if starts == 0 && circle.first() == Some(&true) { 1 } else { starts }
}

/// An angle in −π … π.
pub(super) fn wrapped(angle: f32) -> f32 {
    (angle + PI).rem_euclid(TAU) - PI
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(azimuths: &[f32]) -> Vec<[f32; 2]> {
        azimuths
            .iter()
            .map(|a| {
                let (s, c) = a.to_radians().sin_cos();
                [0.9 * c, 0.9 * s]
            })
            .collect()
    }

    const TRUE: [f32; 8] = [0., 45., 90., 135., 180., 225., 270., 315.];

    #[test]
    fn perfect_azimuths_score_full_wherever_the_front_points() {
        for offset in [0.0, 45.0, 90.0, 200.0] {
            let found = consistency(&views(&TRUE.map(|a| a + offset)));
            assert_eq!((found.score, found.fronts, found.confident), (Some(1.0), 1, 8), "{offset}");
        }
        let noisy = [8., 38., 99., 128., 190., 215., 280., 310.];
        assert_eq!(consistency(&views(&noisy)).score, Some(1.0));
    }

    #[test]
    fn a_repeated_face_is_found() {
        let two = [0., 45., 90., -45., 0., 45., 90., -45.];
        let found = consistency(&views(&two));
        assert_eq!(found.fronts, 2);
        // Views agree within either half only.
        assert!(found.score.is_some_and(|s| s < 0.5), "{found:?}");
        let everywhere = consistency(&views(&[0.0; 8]));
        assert_eq!((everywhere.score, everywhere.fronts), (Some(0.0), 1));
        let backwards = consistency(&views(&TRUE.map(|a| -a)));
        assert!(backwards.score.is_some_and(|s| s < 0.2), "{backwards:?}");
    }

    #[test]
    fn views_that_say_nothing_are_left_out() {
        let mut some = views(&TRUE);
        some[2] = [-0.3, 0.2];
        some[5] = [0.1, 0.0];
        let found = consistency(&some);
        assert_eq!((found.score, found.confident, found.fronts), (Some(1.0), 6, 1));
        assert_eq!((found.azimuths[1].map(f32::round), found.azimuths[2]), (Some(45.0), None));
        let apple = consistency(&[[0.1, 0.2]; 8]);
        assert_eq!((apple.score, apple.fronts, apple.confident), (None, 0, 0));
        assert_eq!(consistency(&[]).score, None);
    }
}
