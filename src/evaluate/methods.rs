//! What is said of a method over many prompts and seeds: a row of the table that `gen3d eval methods` writes.

use palette::{IntoColor, LinSrgb, Oklab};
use serde::Serialize;

use crate::render::raster::Frame;

/// Pixels less covered than this show the background too.
const COVERED: f32 = 0.99;

/// A row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The method.
    pub method: String,
    /// Assets that were made.
    pub made: usize,
    /// Assets that were asked for: prompts times seeds.
    pub asked: usize,
    /// Share of assets whose own caption is the nearest of the list, what is missing counted as wrong.
    pub r_precision: Option<f64>,
    /// Mean share of pairs of views whose sides differ as the cameras do.
    pub consistency: Option<f64>,
    /// Assets that show more than one front.
    pub several_fronts: usize,
    /// Mean chroma of what is seen; see [`chroma`].
    pub chroma: Option<f64>,
    /// The same relative to the recipes' own answers to the same captions: 1 is as colourful as these.
    pub saturation: Option<f64>,
    /// How far the seeds' answers to a prompt lie apart; see [`diversity`].
    pub diversity: Option<f64>,
    /// Mean wall time of an asset in seconds.
    pub seconds: Option<f64>,
    /// The most memory a run held, in bytes.
    pub peak_memory: Option<u64>,
}

/// Mean `OKLab` chroma (0 grey, about 0.26 and 0.32 the most of sRGB's red and blue) of all pixels of `frames` that
/// the thing covers wholly; `None` if there are none.
pub fn chroma(frames: &[Frame]) -> Option<f64> {
    let covered = frames.iter().flat_map(|f| {
        f.rgb
            .iter()
            .zip(&f.opacity)
            .filter(|(_, o)| **o >= COVERED)
            .map(|(rgb, _)| rgb.clamp(glam::Vec3::ZERO, glam::Vec3::ONE))
    });
    let sizes = covered.map(|rgb| {
        let lab: Oklab = LinSrgb::new(rgb.x, rgb.y, rgb.z).into_color();
        f64::from(lab.a.hypot(lab.b))
    });
    mean(sizes)
}

/// Mean over prompts of the mean of 1 − cosine between the pairs of a prompt's unit vectors, one a seed (0: all
/// seeds give the same); `None` if no prompt has two.
pub fn diversity(prompts: &[Vec<Vec<f32>>]) -> Option<f64> {
    let of = |seeds: &Vec<Vec<f32>>| {
        let pairs = seeds.iter().enumerate().flat_map(|(i, a)| seeds[..i].iter().map(move |b| (a, b)));
        mean(pairs.map(|(a, b)| 1.0 - a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>()))
    };
    mean(prompts.iter().filter_map(of))
}

/// `None` of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0_u32), |(s, n), v| (s + v, n + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// The table in Markdown.
pub fn markdown(rows: &[Row]) -> String {
    let mut out = String::from(
        "| method | made | R-precision | view consistency | several fronts | saturation | diversity | seconds | \
         memory, GiB |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let number = |v: Option<f64>, digits: usize| v.map_or("–".into(), |v| format!("{v:.digits$}"));
    let percent = |v: Option<f64>| v.map_or("–".into(), |v| format!("{:.1} %", 100.0 * v));
    for r in rows {
        let memory = r.peak_memory.map(|b| b as f64 / f64::from(1 << 30));
        let cells = [
            r.method.clone(),
            format!("{}/{}", r.made, r.asked),
            percent(r.r_precision),
            percent(r.consistency),
            r.several_fronts.to_string(),
            number(r.saturation, 2),
            number(r.diversity, 3),
            number(r.seconds, 1),
            number(memory, 2),
        ];
        out += &format!("| {} |\n", cells.join(" | "));
    }
    out
}

#[cfg(test)]
mod tests {
    use glam::Vec3;

    use super::*;

    fn frame(pixels: &[(Vec3, f32)]) -> Frame {
        Frame {
            width: pixels.len() as u32,
            height: 1,
            rgb: pixels.iter().map(|p| p.0).collect(),
            opacity: pixels.iter().map(|p| p.1).collect(),
            depth: vec![0.0; pixels.len()],
            normal: vec![Vec3::ZERO; pixels.len()],
        }
    }

    #[test]
    fn chroma_is_of_what_is_covered() {
        assert_eq!(chroma(&[frame(&[(Vec3::ONE, 0.5)])]), None);
        let grey = chroma(&[frame(&[(Vec3::splat(0.3), 1.0), (Vec3::X, 0.2)])]).unwrap();
        assert!(grey < 1e-3, "{grey}");
        // Published values of sRGB's primaries in OKLab (Ottosson 2020).
        let red = chroma(&[frame(&[(Vec3::X, 1.0)])]).unwrap();
        let blue = chroma(&[frame(&[(Vec3::Z, 1.0)])]).unwrap();
        assert!((red - 0.2577).abs() < 1e-3 && (blue - 0.3132).abs() < 1e-3, "{red} {blue}");
        let half = chroma(&[frame(&[(Vec3::X, 1.0)]), frame(&[(Vec3::splat(0.5), 1.0)])]).unwrap();
        assert!((half - red / 2.0).abs() < 1e-3);
    }

    #[test]
    fn diversity_is_the_mean_distance_of_pairs() {
        let axis = |i: usize| (0..3).map(|j| f32::from(u8::from(i == j))).collect::<Vec<_>>();
        assert_eq!(diversity(&[vec![axis(0)], vec![]]), None);
        assert_eq!(diversity(&[vec![axis(0), axis(0)]]), Some(0.0));
        // Three seeds, of which two agree: pairs 0, 1, 1; and a prompt of opposite answers.
        let opposite = axis(0).iter().map(|v| -v).collect();
        let got = diversity(&[vec![axis(0), axis(0), axis(1)], vec![axis(0), opposite]]).unwrap();
        assert!((got - (2.0 / 3.0 + 2.0) / 2.0).abs() < 1e-6, "{got}");
    }

    #[test]
    fn a_table_has_a_line_a_method_and_says_what_is_not_known() {
        let row = Row {
            method: "vsd".into(),
            made: 3,
            asked: 4,
            r_precision: Some(0.5),
            consistency: None,
            several_fronts: 1,
            chroma: Some(0.1),
            saturation: Some(1.25),
            diversity: None,
            seconds: Some(61.25),
            peak_memory: Some(3 << 29),
        };
        let text = markdown(&[row]);
        assert!(text.ends_with("| vsd | 3/4 | 50.0 % | – | 1 | 1.25 | – | 61.2 | 1.50 |\n"), "{text}");
        let columns: Vec<usize> = text.lines().map(|l| l.matches('|').count()).collect();
        assert!(columns.iter().all(|n| *n == 10), "{text}");
    }
}
