//! The curves of a training run as an SVG picture: what a model card shows.

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// A line of `metrics.jsonl`.
#[derive(Debug, Deserialize)]
struct Point {
    stage: String,
    step: u32,
    loss: f64,
}

/// Size of one diagram.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 220.0;
const MARGIN: f64 = 44.0;

/// One diagram a stage, below each other: loss (logarithmic) over steps.
///
/// # Errors
/// [`Error::File`] if `metrics` is no log of a training run, or an empty one.
pub fn svg(metrics: &Path) -> Result<String> {
    let text = std::fs::read_to_string(metrics).map_err(|e| Error::io(metrics, e))?;
    let points: Vec<Point> = text
        .lines()
        .filter(|l| !l.trim().is_empty())
        .map(|l| serde_json::from_str(l).map_err(|e| Error::file(metrics, e.to_string())))
        .collect::<Result<_>>()?;
    let stages: Vec<&str> =
        ["vae", "unet", "evaluator"].into_iter().filter(|s| points.iter().any(|p| p.stage == *s)).collect();
    if stages.is_empty() {
        return Err(Error::file(metrics, "holds no losses of a training run"));
    }
    let total = HEIGHT * stages.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{total}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (i, stage) in stages.iter().enumerate() {
        let curve: Vec<(f64, f64)> = points
            .iter()
            .filter(|p| p.stage == *stage && p.loss > 0.0 && p.loss.is_finite())
            .map(|p| (f64::from(p.step), p.loss))
            .collect();
        diagram(&mut out, stage, &curve, HEIGHT * i as f64);
    }
    out += "</svg>\n";
    Ok(out)
}

fn diagram(out: &mut String, name: &str, curve: &[(f64, f64)], top: f64) {
    let last = curve.iter().map(|p| p.0).fold(1.0, f64::max);
    let low = curve.iter().map(|p| p.1).fold(f64::INFINITY, f64::min).max(1e-12).ln();
    let high = curve.iter().map(|p| p.1).fold(1e-12, f64::max).ln().max(low + 1e-6);
    let x = |step: f64| MARGIN + step / last * (WIDTH - 2.0 * MARGIN);
    let y = |loss: f64| top + HEIGHT - MARGIN - (loss.ln() - low) / (high - low) * (HEIGHT - 2.0 * MARGIN);
    let mut path = String::new();
    for (i, (step, loss)) in curve.iter().enumerate() {
        let _ = write!(path, "{}{:.1},{:.1} ", if i == 0 { "M" } else { "L" }, x(*step), y(*loss));
    }
    let (left, right, bottom) = (MARGIN, WIDTH - MARGIN, top + HEIGHT - MARGIN);
    let _ = writeln!(
        out,
        "<path d=\"M{left},{} V{bottom} H{right}\" fill=\"none\" stroke=\"#888\"/>",
        top + MARGIN
    );
    let _ = writeln!(out, "<path d=\"{}\" fill=\"none\" stroke=\"#1f6feb\"/>", path.trim_end());
    for loss in [low.exp(), (0.5 * (low + high)).exp(), high.exp()] {
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{loss:.3}</text>",
            left - 4.0,
            y(loss) + 4.0
        );
    }
    for step in [0.0, 0.5 * last, last] {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{step:.0}</text>",
            x(step),
            bottom + 16.0
        );
    }
    let _ = writeln!(out, "<text x=\"{left}\" y=\"{}\">{name}: loss over steps</text>", top + MARGIN - 10.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_falls_in_the_picture() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let lines: String = (1..=3)
            .map(|i| {
                format!(
                    "{{\"stage\":\"unet\",\"step\":{},\"loss\":{},\"lr\":1e-3}}\n",
                    50 * i,
                    1.0 / f64::from(i)
                )
            })
            .collect();
        std::fs::write(&path, lines).unwrap();
        let svg = svg(&path).unwrap();
        // From the top left to the bottom right of the axes.
        assert!(svg.contains(&format!("L{:.1},{:.1}", WIDTH - MARGIN, HEIGHT - MARGIN)), "{svg}");
        assert!(svg.contains(&format!(",{MARGIN:.1} L")) && svg.ends_with("</svg>\n"), "{svg}");
        std::fs::write(&path, "{\"stage\":\"else\",\"step\":1,\"loss\":1}\n").unwrap();
        assert!(super::svg(&path).is_err());
        std::fs::write(&path, "no json").unwrap();
        assert!(super::svg(&path).is_err());
    }
}
