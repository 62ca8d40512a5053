//! `gen3d models`: what priors there are, and whether one gives the right numbers.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::{Error, Result};
use crate::prior::verify::{self, Report};

/// What to do with models.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Compare a model's outputs with reference outputs of another program.
    ///
    /// FILE is a safetensors file of f32 inputs and expected outputs: any of `input_ids` →
    /// `text_hidden_states`, `pooled`; `sample`, `timestep`, `encoder_hidden_states` (and
    /// `class_labels`, `added.text_embeds`, `added.time_ids`, `down_residuals.N`, `mid_residual`) →
    /// `noise_pred`; `image` → `latent_mean`; `latent` → `decoded`; with `controlnet_cond`,
    /// → `control.down.N`, `control.mid`; `image`, `grad_latent` → `grad_image`.
    Verify(VerifyArgs),
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
        ModelsCommand::Verify(args) => verify(&args),
    }
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
