//! `gen3d batch PROMPTS --out-dir DIR`: an asset for each prompt of a list.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use super::generate::{Choices, cancel_on_ctrl_c};
use super::progress::{Display, Mode};
use super::report;
use crate::config::{layers, presets};
use crate::generate::batch::{Batch, Entry, News};
use crate::generate::folder::EXTENSIONS;
use crate::generate::{batch, prompt};
use crate::{Error, Result, prompts};

/// Arguments of `gen3d batch`.
#[derive(Debug, clap::Args)]
pub(crate) struct BatchArgs {
    /// The list: TOML with `[[prompt]]` tables (text, id, group), or text with one prompt a line.
    list: PathBuf,
    /// Folder of the assets, the journal `batch.jsonl` and `manifest.json`. The same command again makes what is
    /// missing.
    #[arg(short, long, value_name = "DIR")]
    out_dir: PathBuf,
    /// Format of the assets.
    #[arg(long, default_value = "glb", value_parser = clap::builder::PossibleValuesParser::new(EXTENSIONS))]
    format: String,
    /// Only the prompts of this group; may be repeated.
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// At most so many prompts.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// How often a prompt that failed is tried again, each time with the next seed.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    retries: u32,
    #[command(flatten)]
    choices: Choices,
    /// Only errors on stderr.
    #[arg(short, long, help_heading = "Where and how")]
    quiet: bool,
    /// An entry of the manifest for each prompt on stdout, one JSON object a line, instead of the assets' paths.
    #[arg(long, help_heading = "Where and how")]
    json: bool,
}

pub(crate) fn run(args: &BatchArgs) -> anyhow::Result<()> {
    let batch = plan(args)?;
    args.choices.threads()?;
    let cancel = cancel_on_ctrl_c()?;
    let (count, start) = (batch.prompts.len(), Instant::now());
    let mut made = 0;
    let mut make = |job: &crate::generate::Job| {
        let mut display = Display::new(if args.quiet { Mode::Quiet } else { Mode::Normal }, false);
        let result = crate::generate::run(job, &cancel, &mut |event| display.show(event));
        display.close();
        result
    };
    let entries = batch::run(&batch, &mut make, &cancel, &mut |news| match news {
        News::Begins(i, prompt) if !args.quiet => eprintln!("[{}/{count}] {}", i + 1, prompt.text),
        News::Retries(error) if !args.quiet => {
            report::warning(&format!("{error}; trying another seed"), None)
        }
        News::Ended(i, entry) => {
            made += 1;
            ended(args, entry);
            if !args.quiet && i + 1 < count {
                let left = start.elapsed().as_secs_f64() / f64::from(made) * (count - i - 1) as f64;
                eprintln!("about {} min left", (left / 60.0).ceil());
            }
        }
        News::Known(_, entry) => ended(args, entry),
        _ => {}
    })
    .map_err(|e| match e {
        Error::Interrupted => e.hint("the same command goes on from there"),
        other => other,
    })?;
    let failed: Vec<&str> = entries.iter().filter(|e| e.file.is_none()).map(|e| e.id.as_str()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let what = format!("{} of {count} prompts failed: {}", failed.len(), failed.join(", "));
    Err(Error::Failed(what).hint("manifest.json says why; the same command tries them again").into())
}

/// Everything is checked before anything is made.
fn plan(args: &BatchArgs) -> Result<Batch> {
    let mut list = prompts::read(&args.list)?;
    if !args.group.is_empty() {
        list.retain(|p| args.group.contains(&p.group));
    }
    list.truncate(args.limit.unwrap_or(usize::MAX));
    if list.is_empty() {
        let why = format!("{} has no prompt in {}", args.list.display(), args.group.join(", "));
        return Err(Error::invalid("--group", why).hint("the list's `group` keys name the groups"));
    }
    for p in &list {
        prompt::check(p.text.as_ref())?;
    }
    let mut all = presets::layers(args.choices.scene())?;
    all.extend(args.choices.layers(false)?);
    let config = layers::resolve(&all)?;
    let (dir, format) = (args.out_dir.clone(), args.format.clone());
    Ok(Batch { prompts: list, dir, format, config, retries: args.retries })
}

fn ended(args: &BatchArgs, entry: &Entry) {
    let line = if args.json {
        serde_json::to_string(entry).unwrap_or_default()
    } else {
        match (&entry.file, &entry.error) {
            (Some(file), _) => args.out_dir.join(file).display().to_string(),
            (None, error) => {
                report::warning(&format!("{}: {}", entry.id, error.as_deref().unwrap_or("failed")), None);
                return;
            }
        }
    };
    // Whoever closed the pipe has seen enough.
    let _ = writeln!(std::io::stdout(), "{line}");
}
