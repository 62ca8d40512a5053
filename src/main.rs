//! The `gen3d` command.

fn main() {}
