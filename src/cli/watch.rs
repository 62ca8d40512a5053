//! `gen3d watch RUN`: the page of a run, on this machine alone.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::progress::print_line;
use super::report;
use crate::watch::Server;
use crate::{Error, Result};

/// Arguments of `gen3d watch`.
#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    /// A run folder (jay.gen3d), its product (jay.glb), or a folder of runs.
    run: PathBuf,
    /// The port; 0 takes any that is free.
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
    /// Open the page in the browser.
    #[arg(long)]
    open: bool,
}

pub(crate) fn run(args: &WatchArgs) -> Result<()> {
    let server = Server::bind(&args.run, args.port)?;
    let url = server.url();
    // Nothing has to be saved: a stop is the ordinary end.
    ctrlc::set_handler(|| std::process::exit(0))
        .map_err(|e| Error::Failed(format!("cannot catch Ctrl-C: {e}")))?;
    print_line(&url);
    if args.open
        && let Err(e) = open(&url)
    {
        report::warning(&format!("no browser was found ({e})"), Some(&format!("open {url}")));
    }
    server.run()
}

/// Asks the desktop to show `url`.
fn open(url: &str) -> std::io::Result<()> {
    let program = match std::env::consts::OS {
        "macos" => "open",
        "windows" => "explorer",
        _ => "xdg-open",
    };
    let silent = Stdio::null;
    Command::new(program).arg(url).stdin(silent()).stdout(silent()).stderr(silent()).spawn().map(drop)
}
