//! Run configuration: one struct is both the TOML file and the flags.
