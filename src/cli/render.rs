//! `gen3d render FILE --out sheet.png`: a model from all sides in one picture; with `--dataset FOLDER`
//! in many, with their cameras, for `gen3d fit` and other programs.

use std::{
    io::Cursor,
    path::{Path, PathBuf},
};

use clap::Args;
use glam::Vec3;
use image::{ImageFormat, RgbImage};

use crate::{
    asset,
    error::{Error, Result},
    fit::dataset::write,
    render::{
        color::srgb8_to_linear,
        raster::Lighting,
        sheet::{self, Views},
    },
};

/// Pictures beyond this many pixels are refused before anything is drawn.
const MAX_PIXELS: u64 = 1 << 26;

/// Arguments of `gen3d render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// The model: .glb, .gltf, .obj, or a .toml recipe.
    file: PathBuf,
    /// The picture to write, a .png.
    #[arg(short, long, value_name = "FILE", required_unless_present = "dataset")]
    out: Option<PathBuf>,
    /// Write posed pictures and `transforms.json` (the layout of NeRF-synthetic and instant-ngp) into
    /// this folder instead: cameras on a sphere around the model, an eighth more of them held out.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["out", "elevation", "turntable"])]
    dataset: Option<PathBuf>,
    /// Light of a dataset's pictures: flat (surfaces in their own colour) or studio.
    #[arg(long, value_name = "NAME", default_value = "flat", requires = "dataset")]
    light: Light,
    /// Number of views, all around at equal angles, the first from the front [default: 8; 64 for a
    /// dataset].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=360))]
    views: Option<u32>,
    /// Width and height of each view in pixels.
    #[arg(long, value_name = "PX", default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..=4096))]
    size: u32,
    /// Height of the camera above the horizon, in degrees from -90 to 90.
    #[arg(long, value_name = "DEG", default_value_t = 15.0, allow_negative_numbers = true, value_parser = elevation)]
    elevation: f32,
    /// One strip of all views instead of rows of four.
    #[arg(long)]
    turntable: bool,
    /// Colour behind the model, as #rrggbb [default: #e6e6e6; an alpha channel for a dataset].
    #[arg(long, value_name = "#RRGGBB", value_parser = background)]
    background: Option<Vec3>,
}

/// Light on a dataset's model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Light {
    /// Even light from everywhere.
    Flat,
    /// A key lamp, a fill and a hemisphere.
    Studio,
}

/// Draws the sheet and puts it in place in one step: on an error, what was there stays.
///
/// # Errors
/// [`Error::Invalid`] for sizes or names that cannot be used, [`Error::Io`] and [`Error::File`]
/// about the model or the picture.
pub fn run(args: RenderArgs) -> Result<()> {
    let views = args.views.unwrap_or(if args.dataset.is_some() { 64 } else { 8 });
    let pixels = u64::from(views) * u64::from(args.size).pow(2);
    if pixels > MAX_PIXELS {
        return Err(Error::invalid(
            "--size",
            format!("{views} views of {} pixels are {pixels} pixels; the limit is {MAX_PIXELS}", args.size),
        )
        .hint("ask for fewer or smaller views"));
    }
    match (&args.dataset, &args.out) {
        (Some(folder), _) => dataset(&args, folder, views),
        (None, Some(out)) => sheet(&args, out, views),
        // One of the two is required.
        (None, None) => Ok(()),
    }
}

fn dataset(args: &RenderArgs, folder: &Path, views: u32) -> Result<()> {
    let lighting = match args.light {
        Light::Flat => Lighting::flat(),
        Light::Studio => Lighting::studio(),
    };
    let options = write::Options { views, size: args.size, background: args.background, lighting };
    write::write(&asset::load(&args.file)?, folder, &options)
}

fn sheet(args: &RenderArgs, out: &Path, views: u32) -> Result<()> {
    let extension = out.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if !extension.eq_ignore_ascii_case("png") {
        return Err(Error::invalid("--out", format!("{} does not end in .png", out.display()))
            .hint("pictures are written as PNG"));
    }
    let asset = asset::load(&args.file)?;
    let background = args.background.unwrap_or_else(|| srgb8_to_linear([0xe6; 3]));
    let options = Views { count: views, size: args.size, elevation: args.elevation, background };
    let columns = if args.turntable { views as usize } else { 4 };
    let picture = sheet::contact_sheet(&sheet::views(&asset, &options), columns);
    asset::replace(out, &png(&picture)?)
}

fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|e| Error::Failed(format!("the picture cannot be encoded: {e}")))?;
    Ok(bytes.into_inner())
}

fn elevation(text: &str) -> std::result::Result<f32, String> {
    match text.parse::<f32>() {
        Ok(degrees) if (-90.0..=90.0).contains(&degrees) => Ok(degrees),
        Ok(_) => Err("it must be between -90 and 90".into()),
        Err(_) => Err("it is not a number".into()),
    }
}

fn background(text: &str) -> std::result::Result<Vec3, String> {
    let digits = text.strip_prefix('#').unwrap_or(text);
    let code = u32::from_str_radix(digits, 16).ok().filter(|_| {
        // A sign would parse, too.
        digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit())
    });
    let [_, r, g, b] = code.ok_or("write it as #rrggbb, for example #ffffff")?.to_be_bytes();
    Ok(srgb8_to_linear([r, g, b]))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::asset::{Asset, Material, Mesh};

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: RenderArgs,
    }

    fn parse(words: &[&str]) -> std::result::Result<RenderArgs, clap::Error> {
        Command::try_parse_from([&["render"], words].concat()).map(|c| c.args)
    }

    #[test]
    fn arguments() {
        let args = parse(&["a.glb", "-o", "b.png", "--elevation", "-20", "--background", "#ff0080"]).unwrap();
        assert_eq!((args.views, args.size, args.elevation), (None, 256, -20.0));
        assert!(
            (args.background.unwrap() - Vec3::new(1.0, 0.0, srgb8_to_linear([128; 3]).z)).length() < 1e-6
        );
        for bad in [
            "--views=0",
            "--size=9999",
            "--elevation=91",
            "--elevation=nan",
            "--background=#12345",
            "--background=+12345",
        ] {
            assert!(parse(&["a.glb", "-o", "b.png", bad]).is_err(), "{bad}");
        }
        assert!(parse(&["a.glb"]).is_err() && parse(&["a.glb", "-o", "b.png", "--dataset", "d"]).is_err());
        assert_eq!(parse(&["a.glb", "--dataset", "d", "--light", "studio"]).unwrap().light, Light::Studio);
    }

    #[test]
    fn a_sheet_and_a_strip_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let (model, picture) = (folder.path().join("m.glb"), folder.path().join("p.png"));
        let mesh = Mesh {
            positions: vec![Vec3::ZERO, Vec3::X, Vec3::Y],
            normals: vec![Vec3::Z; 3],
            triangles: vec![[0, 1, 2]],
            ..Mesh::default()
        };
        let material = Material { base_color: [1.0, 0.0, 0.0, 1.0], ..Material::default() };
        asset::save(&Asset { meshes: vec![mesh], materials: vec![material], ..Asset::default() }, &model)
            .unwrap();
        let (model, out) = (model.to_str().unwrap(), picture.to_str().unwrap());
        for (more, size) in [
            (&["--size", "32"][..], (128, 64)),
            (&["--size", "32", "--turntable", "--views", "5"], (160, 32)),
        ] {
            run(parse(&[&[model, "--out", out], more].concat()).unwrap()).unwrap();
            let image = image::open(&picture).unwrap().into_rgb8();
            assert_eq!(image.dimensions(), size);
            assert_eq!(image.get_pixel(0, 0).0, [0xe6; 3]);
            assert!(image.pixels().any(|p| p[0] > 150 && p[1] < 60), "the red triangle");
        }
    }

    #[test]
    fn failures_leave_the_old_picture() {
        let folder = tempfile::tempdir().unwrap();
        let (model, picture) = (folder.path().join("m.glb"), folder.path().join("p.png"));
        fs::write(&model, "hello").unwrap();
        fs::write(&picture, "old").unwrap();
        let (model, out) = (model.to_str().unwrap(), picture.to_str().unwrap());
        assert!(matches!(run(parse(&[model, "-o", out]).unwrap()), Err(Error::Hinted { .. })));
        assert!(run(parse(&[model, "-o", "x.jpg"]).unwrap()).is_err_and(|e| e.is_usage()));
        assert!(
            run(parse(&[model, "-o", out, "--views=360", "--size=4096"]).unwrap())
                .is_err_and(|e| e.is_usage())
        );
        assert_eq!(fs::read_to_string(&picture).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half-written");
    }
}
