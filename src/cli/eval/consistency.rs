//! `gen3d eval consistency`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Common, Sampling, load_prior, models_in, percent, say};
use crate::asset;
use crate::cli::train::Bars;
use crate::error::{Error, Result};
use crate::evaluate::consistency::{Consistency, consistency};
use crate::evaluate::{Evaluator, View, captions, pictures};

/// Options of `gen3d eval consistency`.
#[derive(Debug, Args)]
pub(crate) struct ConsistencyArgs {
    /// Models (.glb, .gltf, .obj, .toml recipes) or folders of them
    #[arg(required_unless_present = "prior", conflicts_with = "prior")]
    models: Vec<PathBuf>,
    /// Plain samples of this prior instead: `mini` or a folder in diffusers' layout
    #[arg(long, value_name = "NAME", requires = "captions")]
    prior: Option<String>,
    /// What to sample: TOML with `[[prompt]]` tables, or text with one caption a line
    #[arg(long, value_name = "FILE", requires = "prior")]
    captions: Option<PathBuf>,
    /// Views of each, all around at equal angles
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(4..=64))]
    views: u32,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    common: Common,
}

/// Judges and prints: a line a thing, then the mean of those that have a front.
pub(super) fn run(args: &ConsistencyArgs) -> Result<()> {
    let evaluator = args.common.open()?;
    let rows = match (&args.prior, &args.captions) {
        (Some(prior), Some(list)) => samples(args, &evaluator, prior, list)?,
        _ => models(args, &evaluator)?,
    };
    say(&format!("{:>7} {:>6} {:>9}  {:<40} sides seen, degrees", "score", "fronts", "confident", "what"));
    for (name, c) in &rows {
        let sides: Vec<String> =
            c.azimuths.iter().map(|a| a.map_or_else(|| "?".into(), |a| format!("{a:.0}"))).collect();
        let (score, sure) = (percent(c.score), format!("{}/{}", c.confident, c.views));
        say(&format!("{score:>7} {:>6} {sure:>9}  {name:<40} {}", c.fronts, sides.join(" ")));
    }
    let scores: Vec<f64> = rows.iter().filter_map(|r| r.1.score).collect();
    let mean = (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64);
    let janus = rows.iter().filter(|r| r.1.fronts > 1).count();
    say(&format!(
        "view consistency of {}: {}; {janus} with more than one front; {} show no front",
        scores.len(),
        percent(mean),
        rows.len() - scores.len()
    ));
    let all: Vec<_> = rows.iter().map(|(name, c)| json!({"name": name, "consistency": c})).collect();
    args.common.write_json(&json!({"score": mean, "several_fronts": janus, "rows": all}))
}

type Rows = Vec<(String, Consistency)>;

fn judged(views: &[View]) -> Consistency {
    consistency(&views.iter().map(|v| v.azimuth).collect::<Vec<_>>())
}

fn models(args: &ConsistencyArgs, evaluator: &Evaluator) -> Result<Rows> {
    let mut files = Vec::new();
    for path in &args.models {
        if path.is_dir() {
            files.extend(models_in(path)?);
        } else {
            files.push(path.clone());
        }
    }
    if files.is_empty() {
        return Err(Error::invalid("models", "the folder holds none")
            .hint("models end in .glb, .gltf or .obj, recipes in .toml"));
    }
    let (mut rows, mut bars) = (Vec::new(), Bars::new(args.common.quiet));
    for (i, file) in files.iter().enumerate() {
        let drawn = pictures::views(&asset::load(file)?, args.views, evaluator.image_size());
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        rows.push((name, judged(&evaluator.pictures(&drawn)?)));
        bars.show("models", i as u32 + 1, files.len() as u32, 0.0);
    }
    Ok(rows)
}

fn samples(
    args: &ConsistencyArgs,
    evaluator: &Evaluator,
    prior: &str,
    list: &std::path::Path,
) -> Result<Rows> {
    let (list, prior) = (captions::read(list)?, load_prior(prior)?);
    let (mut rows, mut bars) = (Vec::new(), Bars::new(args.common.quiet));
    for (i, (caption, _)) in list.iter().enumerate() {
        let drawn = args.sampling.pictures(&prior, caption, args.views, i)?;
        rows.push((caption.clone(), judged(&evaluator.pictures(&drawn)?)));
        bars.show("samples", i as u32 + 1, list.len() as u32, 0.0);
    }
    Ok(rows)
}
