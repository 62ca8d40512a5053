//! The `gen3d` command: 0 done, 1 failed, 2 usage, 130 interrupted after saving a checkpoint.

use std::process::ExitCode;

fn main() -> ExitCode {
    gen3d::cli::main()
}
