//! `gen3d eval r-precision`.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde_json::json;

use super::{Common, Sampling, load_prior, models_in, percent, say};
use crate::asset::{self, Asset};
use crate::cli::train::Bars;
use crate::error::{Error, Result};
use crate::evaluate::config::EvaluatorConfig;
use crate::evaluate::r_precision::{Judged, judge, mean_embedding, top1};
use crate::evaluate::{Evaluator, View, captions, pictures, train};
use crate::train::data::split::Split;
use crate::train::data::{DataConfig, Dataset};

/// Options of `gen3d eval r-precision`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("judged").required(true).args(["assets", "recipes", "prior", "truth"]))]
pub(crate) struct RPrecisionArgs {
    /// The captions: TOML with `[[prompt]]` tables, or text with one a line
    #[arg(long, value_name = "FILE", required_unless_present = "truth", conflicts_with = "truth")]
    captions: Option<PathBuf>,
    /// Folder of models named after their captions (a_blue_jay_on_macarons.glb), seen from all around
    #[arg(long, value_name = "DIR")]
    assets: Option<PathBuf>,
    /// The recipes' own answers to the captions, seen like assets: what a perfect generator would reach
    #[arg(long)]
    recipes: bool,
    /// Plain samples of this prior: `mini` or a folder in diffusers' layout
    #[arg(long, value_name = "NAME")]
    prior: Option<String>,
    /// That many pictures of the data engine with captions of their own: how good the judge itself is
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=10_000))]
    truth: Option<u32>,
    /// Side of the split from which --truth is drawn
    #[arg(long, value_enum, default_value = "objects")]
    split: Split,
    /// Unpacked corpus of named 3D models for --truth; recipes alone if absent
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Folder of parametric recipes for --truth and --recipes
    #[arg(long, value_name = "DIR", default_value = "scenes/props")]
    props: PathBuf,
    /// Views a caption, all around at equal angles [default: 8 of a model, 4 of a prior]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    views: Option<u32>,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    common: Common,
}

/// Judges and prints: a line a caption, then the score.
pub(super) fn run(args: &RPrecisionArgs) -> Result<()> {
    let evaluator = args.common.open()?;
    let (list, seen, note) = match (&args.assets, &args.prior, args.truth) {
        _ if args.recipes => recipes(args, &evaluator)?,
        (Some(dir), ..) => assets(args, &evaluator, dir)?,
        (None, Some(prior), _) => samples(args, &evaluator, prior)?,
        (None, None, count) => truth(args, &evaluator, count.unwrap_or(2) as usize)?,
    };
    let texts: Vec<String> = list.iter().map(|c| c.0.clone()).collect();
    let judged = judge(&list, &evaluator.texts(&texts)?, &seen);
    print(&judged, &note);
    args.common.write_json(&json!({
        "top1": top1(&judged, |_| true),
        "top1_trained": top1(&judged, |j| !j.unseen),
        "top1_unseen": top1(&judged, |j| j.unseen),
        "chance": 1.0 / judged.len() as f64,
        "rows": judged,
    }))
}

/// Captions, what is seen of each, and a remark on the result.
type Material = (Vec<(String, bool)>, Vec<Option<Vec<f32>>>, String);

fn list(args: &RPrecisionArgs) -> Result<Vec<(String, bool)>> {
    let path = args.captions.as_deref().ok_or_else(|| Error::invalid("--captions", "is missing"))?;
    captions::read(path)
}

fn mean(views: &[View]) -> Option<Vec<f32>> {
    mean_embedding(views.iter().map(|v| v.embedding.as_slice()))
}

fn assets(args: &RPrecisionArgs, evaluator: &Evaluator, dir: &Path) -> Result<Material> {
    let files = models_in(dir)?;
    let of = |caption: &str| {
        let name = captions::slug(caption);
        let file = files.iter().find(|f| f.file_stem().is_some_and(|s| s == name.as_str()));
        file.map(|f| asset::load(f)).transpose()
    };
    let material = models(args, evaluator, &of)?;
    if material.1.iter().all(Option::is_none) {
        let why = format!("{} holds no model of the list", dir.display());
        let first = captions::slug(&material.0[0].0);
        return Err(Error::invalid("--assets", why).hint(format!("the first would be {first}.glb")));
    }
    Ok(material)
}

fn recipes(args: &RPrecisionArgs, evaluator: &Evaluator) -> Result<Material> {
    let data = Dataset::open(None, &args.props, DataConfig::default(), args.sampling.seed)?;
    models(args, evaluator, &|caption| data.asset_of(caption))
}

/// What `of` gives for each caption, seen from all around.
fn models(
    args: &RPrecisionArgs,
    evaluator: &Evaluator,
    of: &dyn Fn(&str) -> Result<Option<Asset>>,
) -> Result<Material> {
    let list = list(args)?;
    let (views, mut bars) = (args.views.unwrap_or(8), Bars::new(args.common.quiet));
    let (mut seen, mut missing) = (Vec::new(), Vec::new());
    for (i, (caption, _)) in list.iter().enumerate() {
        seen.push(match of(caption)? {
            Some(asset) => {
                let drawn = pictures::views(&asset, views, evaluator.image_size());
                mean(&evaluator.pictures(&drawn)?)
            }
            None => {
                missing.push(captions::slug(caption));
                None
            }
        });
        bars.show("assets", i as u32 + 1, list.len() as u32, 0.0);
    }
    let note = match missing.len() {
        0 => String::new(),
        n => format!("{n} missing, counted as wrong: {}", missing.join(", ")),
    };
    Ok((list, seen, note))
}

fn samples(args: &RPrecisionArgs, evaluator: &Evaluator, name: &str) -> Result<Material> {
    let (list, prior) = (list(args)?, load_prior(name)?);
    let (views, mut bars) = (args.views.unwrap_or(4), Bars::new(args.common.quiet));
    let mut seen = Vec::new();
    for (i, (caption, _)) in list.iter().enumerate() {
        let drawn = args.sampling.pictures(&prior, caption, views, i)?;
        seen.push(mean(&evaluator.pictures(&drawn)?));
        bars.show("samples", i as u32 + 1, list.len() as u32, 0.0);
    }
    Ok((list, seen, String::new()))
}

/// Added to the seed of what --truth draws, so that a seed of training is not met by chance.
const TRUTH_SEED: u64 = 500_000;

fn truth(args: &RPrecisionArgs, evaluator: &Evaluator, count: usize) -> Result<Material> {
    let size = evaluator.image_size();
    let config = EvaluatorConfig { image_size: size as usize, ..EvaluatorConfig::default() };
    let seed = TRUTH_SEED + args.sampling.seed;
    let data = train::dataset(&config, args.corpus.as_deref(), &args.props, args.split, seed)?;
    let samples = pictures::truth(&data, count)?;
    let shown: Vec<_> = samples.iter().map(|s| crate::paint::picture(&s.rgb, size)).collect();
    let views = evaluator.pictures(&shown)?;
    let azimuths: Vec<[f32; 2]> = views.iter().map(|v| v.azimuth).collect();
    let note = pictures::median_azimuth_error(&samples, &azimuths)
        .map_or_else(String::new, |e| format!("azimuth: median error {e:.0} degrees"));
    let unseen = args.split == Split::Compositions;
    let list = samples.into_iter().map(|s| (s.caption, unseen)).collect();
    Ok((list, views.into_iter().map(|v| Some(v.embedding)).collect(), note))
}

fn print(judged: &[Judged], note: &str) {
    say(&format!("{:>5} {:>10}  {:<44} nearest other", "rank", "similarity", "caption"));
    for j in judged {
        let rank = j.rank.map_or_else(|| "-".into(), |r| r.to_string());
        let near = j.similarity.map_or_else(|| "missing".into(), |s| format!("{s:.3}"));
        let rival = j.rival.as_deref().unwrap_or_default();
        say(&format!("{rank:>5} {near:>10}  {:<44} {rival}", j.caption));
    }
    if !note.is_empty() {
        say(note);
    }
    let mut line = format!("top-1 of {}: {}", judged.len(), percent(top1(judged, |_| true)));
    if judged.iter().any(|j| j.unseen) && judged.iter().any(|j| !j.unseen) {
        let sides = [top1(judged, |j| !j.unseen), top1(judged, |j| j.unseen)].map(percent);
        line += &format!(" (trained {}, unseen {})", sides[0], sides[1]);
    }
    say(&format!("{line}; by chance {:.1} %", 100.0 / judged.len() as f64));
}
