//! `gen3d convert IN --out OUT`: another format, fewer triangles, levels of detail, a collision shape.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::asset::{self, Asset, ExportOptions, lod, texture};
use crate::error::{Error, Result};

/// Arguments of `gen3d convert`.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// The model: .glb, .gltf, .obj, or a .toml recipe
    file: PathBuf,
    /// The model to write: .glb, .obj, .ply or .usda
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Simplify to at most so many triangles (as far as the topology allows)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..))]
    max_triangles: Option<u32>,
    /// Make larger textures so many texels wide and high
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(1..=16_384))]
    texture_size: Option<u32>,
    /// Stand on the ground at the origin, the largest side so many metres long
    #[arg(long, value_name = "METRES")]
    size: Option<f32>,
    #[command(flatten)]
    delivery: DeliveryArgs,
    /// What was written, as a JSON object
    #[arg(long)]
    json: bool,
}

/// What is made beside the asset.
#[derive(Debug, Args)]
pub(crate) struct DeliveryArgs {
    /// Coarser versions, each with half the triangles of the one before: within a GLB (MSFT_lod), else as files
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=8))]
    lods: u32,
    /// The coarser versions as files of their own (`<name>_lod1` …) also for GLB
    #[arg(long)]
    lod_files: bool,
    /// The convex hull as `<name>_collision` beside the file
    #[arg(long)]
    collision: bool,
    /// GLB with 16-bit positions and 8-bit normals (KHR_mesh_quantization)
    #[arg(long)]
    quantize: bool,
}

impl DeliveryArgs {
    fn options(&self) -> ExportOptions {
        let Self { lods, lod_files, collision, quantize } = *self;
        ExportOptions { lods, lod_files, collision, quantize }
    }
}

/// Reads, changes and writes.
///
/// # Errors
/// [`Error::Invalid`] for settings that make no sense together, [`Error::Io`] and [`Error::File`] about the model.
pub(crate) fn run(args: &ConvertArgs) -> Result<()> {
    let options = args.delivery.options();
    if options.quantize && !is_glb(&args.out) {
        return Err(Error::invalid("--quantize", "only a .glb can hold small integers")
            .hint("end --out in .glb, or leave --quantize out"));
    }
    if args.size.is_some_and(|s| !(s.is_finite() && s > 0.0)) {
        return Err(Error::invalid("--size", "must be a positive number of metres"));
    }
    let mut asset = asset::load(&args.file)?;
    let before = asset.triangle_count();
    if let Some(limit) = args.max_triangles {
        asset = lod::reduce(&asset, limit as usize);
    }
    if let Some(limit) = args.texture_size {
        texture::limit(&mut asset, limit);
    }
    if let Some(size) = args.size {
        stand(&mut asset, size);
    }
    let companions = asset::save_with(&asset, &args.out, &options)?;
    report(args, before, &asset, &companions)
}

fn is_glb(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("glb"))
}

/// On y = 0, centred over the origin, the largest side `size` metres.
fn stand(asset: &mut Asset, size: f32) {
    let Some((low, high)) = asset.bounds() else { return };
    let (centre, extent) = ((low + high) / 2.0, (high - low).max_element());
    let scale = if extent > 0.0 { size / extent } else { 1.0 };
    let foot = glam::Vec3::new(centre.x, low.y, centre.z);
    for p in asset.meshes.iter_mut().flat_map(|m| &mut m.positions) {
        *p = (*p - foot) * scale;
    }
}

fn report(args: &ConvertArgs, before: usize, asset: &Asset, companions: &[PathBuf]) -> Result<()> {
    let triangles = asset.triangle_count();
    if let Some(limit) = args.max_triangles.filter(|l| triangles > *l as usize) {
        let what =
            format!("{triangles} triangles are left, more than {limit}: the surface's topology needs them");
        super::report::warning(
            &what,
            Some("loose parts and holes keep triangles; a cleaner model has fewer"),
        );
    }
    let bytes = std::fs::metadata(&args.out).map_err(|e| Error::io(&args.out, e))?.len();
    let line = if args.json {
        json!({
            "file": args.out, "bytes": bytes, "triangles": triangles, "triangles_read": before,
            "companions": companions,
        })
        .to_string()
    } else {
        args.out.display().to_string()
    };
    // Whoever closed the pipe has seen enough.
    let _ = writeln!(std::io::stdout(), "{line}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: ConvertArgs,
    }

    fn convert(words: &[&str]) -> Result<()> {
        run(&Command::try_parse_from([&["convert"], words].concat()).unwrap().args)
    }

    #[test]
    fn a_recipe_becomes_a_family_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props/barrel.toml");
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let words = ["--max-triangles", "800", "--size", "2", "--lods", "2", "--collision"];
        convert(&[&[recipe.to_str().unwrap(), "--out", &at("b.obj")], &words[..]].concat()).unwrap();
        let counts: Vec<usize> = ["b", "b_lod1", "b_lod2", "b_collision"]
            .map(|n| asset::load(Path::new(&at(&format!("{n}.obj")))).unwrap().triangle_count())
            .to_vec();
        assert!(counts[0] <= 800 && counts[1] <= counts[0] / 2 && counts[2] <= counts[0] / 4, "{counts:?}");
        let (low, high) = asset::load(Path::new(&at("b.obj"))).unwrap().bounds().unwrap();
        assert!(low.y.abs() < 1e-5 && ((high - low).max_element() - 2.0).abs() < 1e-4);
        // A GLB holds its levels itself, and small integers make it smaller.
        for (name, more) in [("c.glb", &["--lods=2"][..]), ("d.glb", &["--lods=2", "--quantize"])] {
            convert(&[&[recipe.to_str().unwrap(), "--out", &at(name)], more].concat()).unwrap();
        }
        let size = |name: &str| std::fs::metadata(at(name)).unwrap().len() as f64;
        assert!(size("d.glb") < 0.7 * size("c.glb"), "{} {}", size("d.glb"), size("c.glb"));
        let mut names: Vec<String> = folder
            .path()
            .read_dir()
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|n| !n.ends_with(".mtl"));
        names.sort();
        assert_eq!(names, ["b.obj", "b_collision.obj", "b_lod1.obj", "b_lod2.obj", "c.glb", "d.glb"]);
        let error = convert(&[recipe.to_str().unwrap(), "--out", &at("e.ply"), "--quantize"]).unwrap_err();
        assert!(error.is_usage() && error.hint_text().is_some());
    }
}
