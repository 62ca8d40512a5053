//! `gen3d models`: what priors there are, and whether one gives the right numbers.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::{Error, Result};
use crate::prior::files::Folder;
use crate::prior::verify::{self, Report};
use crate::prior::vocabulary::Vocabulary;
use crate::prior::{random, registry};

/// What to do with models.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// The priors that `--prior` knows by name.
    List(ListArgs),
    /// The words a prior was trained on, one a line
    Words(WordsArgs),
    /// Give a folder or checkpoint a name, after checking that it loads.
    Add(AddArgs),
    /// Forget a name; what was pulled is deleted, what lies elsewhere stays.
    Remove(RemoveArgs),
    /// Download a prior from a model hub (going on where an earlier attempt was cut off).
    #[cfg(feature = "hub")]
    Pull(PullArgs),
    /// Write a model of Stable Diffusion's size with random weights, to try memory and speed.
    Random(RandomArgs),
    /// Compare a model's outputs with reference outputs of another program.
    ///
    /// FILE is a safetensors file of f32 inputs and expected outputs: any of `input_ids` →
    /// `text_hidden_states`, `pooled`; `sample`, `timestep`, `encoder_hidden_states` (and
    /// `class_labels`, `added.text_embeds`, `added.time_ids`, `down_residuals.N`, `mid_residual`) →
    /// `noise_pred`; `image` → `latent_mean`; `latent` → `decoded`; with `controlnet_cond`,
    /// → `control.down.N`, `control.mid`; `image`, `grad_latent` → `grad_image`.
    Verify(VerifyArgs),
}

/// Options of `gen3d models list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Options of `gen3d models words`.
#[derive(Debug, Args)]
pub(crate) struct WordsArgs {
    /// `mini` (the embedded prior), a name of `gen3d models list`, or a folder
    #[arg(long, default_value = "mini")]
    prior: String,
    /// Every single word that was seen in training, even once, one a line
    #[arg(long)]
    all: bool,
}

/// Options of `gen3d models add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// What `--prior` will take
    name: String,
    /// Folder in diffusers' layout, or a .safetensors checkpoint
    path: PathBuf,
}

/// Options of `gen3d models remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// As `gen3d models list` shows it
    name: String,
}

/// Options of `gen3d models pull`.
#[cfg(feature = "hub")]
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// sd15, sd21, sd21-base, sdxl, taesd, or OWNER/REPOSITORY
    source: String,
    /// What `--prior` will take; the source's last part if not given
    #[arg(long)]
    name: Option<String>,
    /// Branch, tag or commit
    #[arg(long, default_value = "main")]
    revision: String,
    /// Weights of a variant, such as fp16 (half the download)
    #[arg(long)]
    variant: Option<String>,
    /// Hubs to ask, in this order, instead of the usual one; may be given several times
    #[arg(long, value_name = "URL", env = "HF_ENDPOINT", value_delimiter = ',')]
    mirror: Vec<String>,
    /// No progress bar
    #[arg(short, long)]
    quiet: bool,
}

/// Options of `gen3d models random`.
#[derive(Debug, Args)]
pub(crate) struct RandomArgs {
    /// Whose shapes
    version: random::Version,
    /// The folder to make (2 GB)
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Key of the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Options of `gen3d models verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Folder in diffusers' layout (parts that FILE does not need may be absent), or a checkpoint
    dir: PathBuf,
    /// Inputs and expected outputs (safetensors)
    #[arg(long, value_name = "FILE.safetensors")]
    against: PathBuf,
    /// Largest relative error ‖a−b‖/‖b‖ that passes
    #[arg(long, default_value_t = 1e-4)]
    tolerance: f64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Files that cannot be read; [`Error::Failed`] if a quantity is out of tolerance.
pub(crate) fn run(command: ModelsCommand) -> Result<()> {
    match command {
        ModelsCommand::List(args) => list(&args),
        ModelsCommand::Words(args) => words(&args),
        ModelsCommand::Add(args) => {
            let entry = registry::add(&args.name, &args.path)?;
            eprintln!("{} is {}", entry.name, place(&entry));
            Ok(())
        }
        ModelsCommand::Remove(args) => registry::remove(&args.name),
        #[cfg(feature = "hub")]
        ModelsCommand::Pull(args) => pull(&args),
        ModelsCommand::Random(args) => random::write(args.version, &args.out, args.seed),
        ModelsCommand::Verify(args) => verify(&args),
    }
}

fn place(entry: &registry::Entry) -> String {
    entry.path.as_ref().map_or("embedded in this program".into(), |p| p.display().to_string())
}

fn list(args: &ListArgs) -> Result<()> {
    let entries = registry::list();
    let width = entries.iter().map(|e| e.name.len()).max().unwrap_or(0);
    for entry in &entries {
        let line = if args.json {
            serde_json::to_string(entry).map_err(|e| Error::Failed(e.to_string()))?
        } else {
            let missing = if entry.present { "" } else { " (no longer there)" };
            format!("{:<width$}  {}{missing}", entry.name, place(entry))
        };
        // Whoever closed the pipe has seen enough.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    Ok(())
}

fn words(args: &WordsArgs) -> Result<()> {
    let folder = Folder::named(&args.prior)?;
    let unknown = |_| {
        Error::invalid("--prior", format!("{:?} keeps no list of its words", args.prior))
            .hint("only priors that `gen3d train prior` made do; Stable Diffusion knows most words")
    };
    let listed = if args.all {
        folder.text("words.txt").map_err(unknown)?
    } else {
        let vocabulary: Vocabulary = folder.config("vocabulary.json").map_err(unknown)?;
        vocabulary.entries().map(|(kind, word)| format!("{kind}\t{word}\n")).collect()
    };
    // Whoever closed the pipe has seen enough.
    let _ = write!(std::io::stdout(), "{listed}");
    Ok(())
}

#[cfg(feature = "hub")]
fn pull(args: &PullArgs) -> Result<()> {
    use crate::prior::hub::{ENDPOINT, Pull, pull};
    use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

    let usual = vec![ENDPOINT.to_owned()];
    let what = Pull {
        source: args.source.clone(),
        revision: args.revision.clone(),
        variant: args.variant.clone(),
        endpoints: if args.mirror.is_empty() { usual } else { args.mirror.clone() },
    };
    let last = args.source.rsplit('/').next().unwrap_or(&args.source);
    let name = args.name.as_deref().unwrap_or(last);
    let target = if args.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}, {eta} left") {
        bar.set_style(style);
    }
    let path = pull(name, &what, &mut |file, done, of| {
        bar.set_message(file.to_owned());
        bar.set_length(of);
        bar.set_position(done);
        Ok(())
    })?;
    bar.finish_and_clear();
    println!("{}", path.display());
    Ok(())
}

fn verify(args: &VerifyArgs) -> Result<()> {
    if !(args.tolerance.is_finite() && args.tolerance >= 0.0) {
        return Err(Error::invalid("--tolerance", "must be a number, 0 or more"));
    }
    let reports = verify::against(&args.dir, &args.against)?;
    let width = reports.iter().map(|r| r.quantity.len()).max().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    // NaN is no success.
    let passes = |r: &Report| r.relative_error <= args.tolerance;
    for report in &reports {
        let line = if args.json {
            serde_json::json!({
                "quantity": report.quantity,
                "relative_error": report.relative_error,
                "passed": passes(report),
            })
            .to_string()
        } else {
            let verdict = if passes(report) { "ok" } else { "TOO LARGE" };
            format!("{:<width$}  {:.3e}  {verdict}", report.quantity, report.relative_error)
        };
        // Whoever closed the pipe has seen enough.
        let _ = writeln!(out, "{line}");
    }
    let failed = reports.iter().filter(|r| !passes(r)).count();
    if failed > 0 {
        let why = format!("{failed} of {} quantities differ by more than {}", reports.len(), args.tolerance);
        return Err(Error::Failed(why));
    }
    Ok(())
}
