//! Build script: embeds the prior.

#[path = "build/mini.rs"]
mod mini;

fn main() -> std::io::Result<()> {
    mini::embed()
}
