//! The `gen3d` command.

use clap::Parser;

#[derive(Parser)]
enum Cli {
    #[command(subcommand)]
    Train(gen3d::cli::train::TrainCommand),
}

fn main() {
    let Cli::Train(c) = Cli::parse();
    if let Err(e) = gen3d::cli::train::run(c) {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}
