//! The command line: one file a command; parsing, progress, hints and exit codes.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 usage,
//! 130 interrupted after saving a checkpoint.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod batch;
mod bench;
mod convert;
mod doctor;
mod edit;
mod eval;
mod fit;
mod generate;
mod image;
mod interpolate;
mod models;
mod progress;
pub mod render;
mod report;
mod texture;
pub mod train;
mod watch;

/// Words into things: a prompt into a game-ready 3D asset.
#[derive(Debug, Parser)]
#[command(
    name = "gen3d",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted after saving a checkpoint."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    generate: Option<generate::Args>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an asset from a prompt (what a bare prompt does, too).
    Generate(generate::Args),
    /// Make an asset for each prompt of a list.
    Batch(batch::BatchArgs),
    /// Paint pictures of a prompt, from noise or from a picture.
    Image(image::ImageArgs),
    /// Write a model in another format, with fewer triangles, levels of detail or a collision shape.
    Convert(convert::ConvertArgs),
    /// Edit clips by a prompt; all but the picture stays as it was.
    Edit(edit::EditArgs),
    /// Give a clip more frames, by a flow network.
    Interpolate(interpolate::InterpolateArgs),
    /// Make an asset from posed pictures of a thing.
    Fit(fit::Args),
    /// Draw a model: from all sides in one picture, as a turntable clip, or as posed pictures.
    Render(render::RenderArgs),
    /// Give a model materials from a prompt; its shape stays.
    Texture(texture::TextureArgs),
    /// Train the embedded models, or look at what they have learned.
    #[command(subcommand)]
    Train(train::TrainCommand),
    /// Judge assets and priors with an encoder that had no part in making them.
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    /// Name, download and check priors.
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// Time what gen3d does, here.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Watch runs in the browser: pictures, curves, and the finished asset to turn around.
    Watch(watch::WatchArgs),
    /// Tell what this machine offers: adapters, processor, memory, FFmpeg, priors.
    Doctor(doctor::Args),
}

/// Parses the process's arguments, runs the command, reports errors.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no error; a closed pipe is nobody's fault.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { report::USAGE } else { 0 });
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error);
            ExitCode::from(report::exit_code(&error))
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match (cli.command, cli.generate) {
        (Some(Command::Batch(args)), _) => batch::run(&args),
        (Some(Command::Bench(command)), _) => Ok(bench::run(command)?),
        (Some(Command::Convert(args)), _) => Ok(convert::run(&args)?),
        (Some(Command::Doctor(args)), _) => doctor::run(&args),
        (Some(Command::Edit(args)), _) => Ok(edit::run(&args)?),
        (Some(Command::Eval(command)), _) => Ok(eval::run(command)?),
        (Some(Command::Fit(args)), _) => fit::run(&args),
        (Some(Command::Generate(args)), _) | (None, Some(args)) => generate::run(&args),
        (Some(Command::Models(command)), _) => Ok(models::run(command)?),
        (Some(Command::Image(args)), _) => Ok(image::run(&args)?),
        (Some(Command::Interpolate(args)), _) => Ok(interpolate::run(&args)?),
        (Some(Command::Render(args)), _) => Ok(render::run(args)?),
        (Some(Command::Texture(args)), _) => texture::run(&args),
        (Some(Command::Train(command)), _) => Ok(train::run(command)?),
        (Some(Command::Watch(args)), _) => Ok(watch::run(&args)?),
        // `arg_required_else_help` leaves nothing else.
        (None, None) => Ok(()),
    }
}
