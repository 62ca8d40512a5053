//! `gen3d eval methods`: prompts × methods × seeds, made by `gen3d batch` and judged into one table.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::Value;

use super::{Common, say};
use crate::asset::{self, Asset};
use crate::cli::generate::cancel_on_ctrl_c;
use crate::cli::train::Bars;
use crate::config::methods;
use crate::error::{Error, Result};
use crate::evaluate::consistency::consistency;
use crate::evaluate::methods::{Row, chroma, diversity, markdown, mean};
use crate::evaluate::r_precision::{judge, mean_embedding, top1};
use crate::evaluate::{Evaluator, pictures};
use crate::generate::batch::Entry;
use crate::prompts::{self, Prompt};
use crate::train::data::{DataConfig, Dataset};

/// Options of `gen3d eval methods`.
#[derive(Debug, Args)]
pub(crate) struct MethodsArgs {
    /// The prompts: TOML with `[[prompt]]` tables, or text with one a line; at least two
    list: PathBuf,
    /// Where assets and table are kept; the same command again makes what is missing
    #[arg(short, long, value_name = "DIR")]
    out_dir: PathBuf,
    /// What `--method` may name, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "sds,sjc,vsd,csd,nfsd,ism")]
    methods: Vec<String>,
    /// Seeds of each, separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0,1")]
    seeds: Vec<u32>,
    /// At most so many prompts
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Make nothing: judge what is there
    #[arg(long)]
    judge_only: bool,
    /// Views of each asset, all around at equal angles
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(4..=64))]
    views: u32,
    /// Folder of parametric recipes: whose answers to the captions are what saturation is relative to
    #[arg(long, value_name = "DIR", default_value = "scenes/props")]
    props: PathBuf,
    #[command(flatten)]
    common: Common,
    /// Goes to `gen3d batch` (--scene, --steps, --prior, --set, --device …)
    #[arg(last = true)]
    batch: Vec<String>,
}

/// One run of a batch.
struct Cell<'a> {
    method: &'a str,
    seed: u32,
    dir: PathBuf,
}

/// Makes, judges, prints and writes `table.md` and `table.json`.
pub(super) fn run(args: &MethodsArgs) -> Result<()> {
    let evaluator = args.common.open()?;
    let list = list(args)?;
    for (i, method) in args.methods.iter().enumerate() {
        methods::layer(method, false)?;
        if args.methods[..i].contains(method) {
            return Err(Error::invalid("--methods", format!("{method} twice")));
        }
    }
    if !args.judge_only {
        let cancel = cancel_on_ctrl_c()?;
        for method in &args.methods {
            for seed in &args.seeds {
                if cancel.load(std::sync::atomic::Ordering::Relaxed) {
                    return Err(Error::Interrupted.hint("the same command goes on from there"));
                }
                make(args, &cell(args, method, *seed))?;
            }
        }
    }
    let judge = Judge::new(args, &evaluator, list)?;
    let rows = args.methods.iter().map(|m| judge.row(args, m)).collect::<Result<Vec<_>>>()?;
    let table = markdown(&rows);
    say(table.trim_end());
    std::fs::create_dir_all(&args.out_dir).map_err(|e| Error::io(&args.out_dir, e))?;
    asset::replace(&args.out_dir.join("table.md"), table.as_bytes())?;
    let json = serde_json::json!({ "views": args.views, "seeds": args.seeds, "rows": rows });
    asset::replace(&args.out_dir.join("table.json"), format!("{json:#}\n").as_bytes())?;
    args.common.write_json(&json)
}

fn list(args: &MethodsArgs) -> Result<Vec<Prompt>> {
    let mut list = prompts::read(&args.list)?;
    list.truncate(args.limit.unwrap_or(usize::MAX));
    if list.len() < 2 {
        return Err(Error::invalid("prompts", "fewer than two: nothing can be told apart"));
    }
    Ok(list)
}

fn cell<'a>(args: &MethodsArgs, method: &'a str, seed: u32) -> Cell<'a> {
    Cell { method, seed, dir: args.out_dir.join(method).join(format!("seed-{seed}")) }
}

/// A process of its own a batch: what one holds or breaks is not the next one's, and its memory is its own.
fn make(args: &MethodsArgs, cell: &Cell<'_>) -> Result<()> {
    std::fs::create_dir_all(&cell.dir).map_err(|e| Error::io(&cell.dir, e))?;
    let program = std::env::current_exe().map_err(|e| Error::Failed(format!("where am I? {e}")))?;
    let mut command = Command::new(program);
    command.arg("batch").arg(&args.list).arg("--out-dir").arg(&cell.dir);
    command.args(["--method", cell.method, "--seed", &cell.seed.to_string(), "--retries", "0"]);
    if let Some(limit) = args.limit {
        command.args(["--limit", &limit.to_string()]);
    }
    if args.common.quiet {
        command.arg("--quiet");
    } else {
        eprintln!("{}, seed {}", cell.method, cell.seed);
    }
    let status = command.args(&args.batch).stdout(Stdio::null()).status();
    match status.map_err(|e| Error::Failed(format!("gen3d batch cannot be started: {e}")))?.code() {
        // Prompts that failed are missing, and counted so.
        Some(0 | 1) => Ok(()),
        Some(2) => {
            let what = format!("gen3d batch refused the settings of {}", cell.method);
            Err(Error::invalid("eval methods", what).hint("what follows `--` goes to `gen3d batch`"))
        }
        Some(130) => Err(Error::Interrupted.hint("the same command goes on from there")),
        code => Err(Error::Failed(format!("gen3d batch ended with {code:?} at {}", cell.method))),
    }
}

struct Judge<'a> {
    evaluator: &'a Evaluator,
    list: Vec<Prompt>,
    texts: Vec<Vec<f32>>,
    /// Chroma of the recipes' answer to each prompt, where they have one.
    truth: Vec<Option<f64>>,
}

/// What is seen of one asset.
struct Seen {
    embedding: Option<Vec<f32>>,
    score: Option<f64>,
    fronts: usize,
    chroma: Option<f64>,
}

impl<'a> Judge<'a> {
    fn new(args: &MethodsArgs, evaluator: &'a Evaluator, list: Vec<Prompt>) -> Result<Self> {
        let texts: Vec<String> = list.iter().map(|p| p.text.clone()).collect();
        let data = Dataset::open(None, &args.props, DataConfig::default(), 0)?;
        let of = |text: &String| -> Result<Option<f64>> {
            let asset = data.asset_of(text)?;
            Ok(asset.and_then(|a| chroma(&pictures::frames(&a, args.views, evaluator.image_size()))))
        };
        let truth = texts.iter().map(of).collect::<Result<_>>()?;
        Ok(Self { evaluator, texts: evaluator.texts(&texts)?, list, truth })
    }

    fn see(&self, asset: &Asset, views: u32) -> Result<Seen> {
        let frames = pictures::frames(asset, views, self.evaluator.image_size());
        let shown: Vec<_> = frames.iter().map(crate::render::raster::Frame::to_srgb8).collect();
        let seen = self.evaluator.pictures(&shown)?;
        let sides = consistency(&seen.iter().map(|v| v.azimuth).collect::<Vec<_>>());
        let embedding = mean_embedding(seen.iter().map(|v| v.embedding.as_slice()));
        Ok(Seen { embedding, score: sides.score, fronts: sides.fronts, chroma: chroma(&frames) })
    }

    /// All prompts and seeds of a method.
    fn row(&self, args: &MethodsArgs, method: &str) -> Result<Row> {
        let captions: Vec<_> = self.list.iter().map(|p| (p.text.clone(), p.unseen)).collect();
        let (mut judged, mut seen_by_prompt) = (Vec::new(), vec![Vec::new(); self.list.len()]);
        let (mut scores, mut fronts, mut chromas, mut ratios) = (Vec::new(), 0, Vec::new(), Vec::new());
        let (mut seconds, mut memory, mut made) = (Vec::new(), None, 0);
        let (mut bars, all) = (Bars::new(args.common.quiet), args.seeds.len() * self.list.len());
        for (number, seed) in args.seeds.iter().enumerate() {
            let dir = cell(args, method, *seed).dir;
            let entries = manifest(&dir)?;
            let mut images = Vec::new();
            for (i, prompt) in self.list.iter().enumerate() {
                bars.show(method, (number * self.list.len() + i) as u32 + 1, all as u32, 0.0);
                let entry = entries.iter().find(|e| e.id == prompt.id && e.prompt == prompt.text);
                let Some((entry, file)) = entry.and_then(|e| Some((e, dir.join(e.file.as_ref()?)))) else {
                    images.push(None);
                    continue;
                };
                let seen = self.see(&asset::load(&file)?, args.views)?;
                made += 1;
                seconds.push(entry.seconds);
                memory = memory.max(peak_memory(&file));
                scores.extend(seen.score);
                fronts += usize::from(seen.fronts > 1);
                chromas.extend(seen.chroma);
                ratios.extend(seen.chroma.zip(self.truth[i]).filter(|(_, t)| *t > 0.0).map(|(c, t)| c / t));
                seen_by_prompt[i].extend(seen.embedding.clone());
                images.push(seen.embedding);
            }
            judged.extend(judge(&captions, &self.texts, &images));
        }
        Ok(Row {
            method: method.to_owned(),
            made,
            asked: all,
            r_precision: top1(&judged, |_| true),
            consistency: mean(scores),
            several_fronts: fronts,
            chroma: mean(chromas),
            saturation: mean(ratios),
            diversity: diversity(&seen_by_prompt),
            seconds: mean(seconds),
            peak_memory: memory,
        })
    }
}

/// What a batch says of its assets; nothing where it has not begun.
fn manifest(dir: &Path) -> Result<Vec<Entry>> {
    let path = dir.join("manifest.json");
    let text = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(|e| Error::io(&path, e))?,
    };
    serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))
}

/// The most that the run of an asset held, as its log says at its end.
fn peak_memory(product: &Path) -> Option<u64> {
    let log = std::fs::read_to_string(product.with_extension("gen3d").join("log.jsonl")).ok()?;
    let last = log.lines().rev().find(|l| l.contains("\"event\":\"finished\""))?;
    let event: Value = serde_json::from_str(last).ok()?;
    event["peak_memory"].as_u64().filter(|b| *b > 0)
}
