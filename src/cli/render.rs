//! `gen3d render MODEL --out FILE`: a model from all sides in one picture, as a turntable clip or as a
//! folder of pictures; with `--dataset FOLDER` posed pictures, for `gen3d fit` and other programs.

mod pictures;

use std::path::{Path, PathBuf};

use clap::Args;
use glam::Vec3;

use crate::{
    asset,
    error::{Error, Result},
    fit::dataset::write,
    generate::memory,
    render::{
        color::srgb8_to_linear,
        material::{Studio, Tone},
        raster::Lighting,
        show::{Eye, Illumination, Lens, Show, Style, View},
    },
};

/// Pictures beyond this many pixels are refused before anything is drawn.
const MAX_PIXELS: u64 = 1 << 26;
/// The same for all pictures of a clip or a folder, of which only few are held at a time.
const MAX_CLIP_PIXELS: u64 = 1 << 31;

/// Arguments of `gen3d render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// The model: .glb, .gltf, .obj, or a .toml recipe.
    file: PathBuf,
    /// What to write: one picture of all views (.png), a turntable clip (.mp4, .mov, .mkv), or a folder
    /// of pictures (a name without an ending).
    #[arg(short, long, value_name = "FILE", required_unless_present = "dataset")]
    out: Option<PathBuf>,
    /// Write posed pictures and `transforms.json` (the layout of NeRF-synthetic and instant-ngp) into
    /// this folder instead: cameras on a sphere around the model, an eighth more of them held out.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = [
        "out", "elevation", "azimuth", "distance", "fov", "turntable", "view", "transparent", "tone", "exposure",
        "samples", "light_turn", "fps",
    ])]
    dataset: Option<PathBuf>,
    /// Light on the model [default: studio; flat for a dataset, which takes flat and studio alone].
    #[arg(long, value_name = "NAME")]
    light: Option<LightName>,
    /// Degrees by which the light is turned about the vertical axis.
    #[arg(long, value_name = "DEG", default_value_t = 0.0, allow_negative_numbers = true, value_parser = angle)]
    light_turn: f32,
    /// Factor on the light.
    #[arg(long, value_name = "F", default_value_t = 1.0, value_parser = exposure)]
    exposure: f32,
    /// How light is brought into the screen's range.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Tone::Neutral)]
    tone: Tone,
    /// What pictures show.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = View::Shaded)]
    view: View,
    /// Number of views, all around at equal angles [default: 8; 72 for a clip or a folder; 64 for a
    /// dataset].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    views: Option<u32>,
    /// Width and height of each view in pixels: one number, or WxH.
    #[arg(long, value_name = "PX", default_value = "256", value_parser = size)]
    size: (u32, u32),
    /// Direction of the first view, in degrees: 0 in front, 90 from +X.
    #[arg(long, value_name = "DEG", default_value_t = 0.0, allow_negative_numbers = true, value_parser = angle)]
    azimuth: f32,
    /// Height of the camera above the horizon, in degrees from -90 to 90.
    #[arg(long, value_name = "DEG", default_value_t = 15.0, allow_negative_numbers = true, value_parser = elevation)]
    elevation: f32,
    /// Distance of the camera from the model's middle, in radii of its bounding sphere [default: all of
    /// the model fits].
    #[arg(long, value_name = "R", value_parser = distance)]
    distance: Option<f32>,
    /// Vertical field of view in degrees.
    #[arg(long, value_name = "DEG", default_value_t = 40.0, value_parser = fov)]
    fov: f32,
    /// Samples across a pixel, 1 to 8.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=8))]
    samples: u32,
    /// One strip of all views instead of rows of four.
    #[arg(long)]
    turntable: bool,
    /// Frames a second of a clip.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=240))]
    fps: u32,
    /// Colour behind the model, as #rrggbb [default: #e6e6e6; an alpha channel for a dataset].
    #[arg(long, value_name = "#RRGGBB", value_parser = background)]
    background: Option<Vec3>,
    /// Nothing behind the model: pictures with an alpha channel.
    #[arg(long, conflicts_with = "background")]
    transparent: bool,
}

/// Light on the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LightName {
    /// Surfaces in their own colour
    Flat,
    /// Softboxes in a room (in a dataset: a key lamp, a fill and a hemisphere)
    Studio,
    /// Even white light from everywhere
    White,
    /// A clouded sky
    Overcast,
    /// A low sun
    Sunset,
    /// A moonlit sky and street lamps
    Night,
}

/// Draws, and puts what was drawn in place in one step: on an error, what was there stays.
///
/// # Errors
/// [`Error::Invalid`] for sizes or names that cannot be used, [`Error::Io`] and [`Error::File`]
/// about the model or the picture, [`Error::Failed`] if there is too little memory.
pub fn run(args: RenderArgs) -> Result<()> {
    match (&args.dataset, &args.out) {
        (Some(folder), _) => dataset(&args, folder),
        (None, Some(out)) => pictures(&args, out),
        // One of the two is required.
        (None, None) => Ok(()),
    }
}

fn dataset(args: &RenderArgs, folder: &Path) -> Result<()> {
    let lighting = match args.light.unwrap_or(LightName::Flat) {
        LightName::Flat => Lighting::flat(),
        LightName::Studio => Lighting::studio(),
        other => {
            return Err(Error::invalid(
                "--light",
                format!("{other:?} is no light of a dataset").to_lowercase(),
            )
            .hint("a dataset takes flat or studio"));
        }
    };
    let (size, height) = args.size;
    if size != height {
        return Err(Error::invalid("--size", "pictures of a dataset are square"));
    }
    let views = args.views.unwrap_or(64);
    limit(views, args.size, MAX_PIXELS)?;
    let options = write::Options { views, size, background: args.background, lighting };
    write::write(&asset::load(&args.file)?, folder, &options)
}

fn pictures(args: &RenderArgs, out: &Path) -> Result<()> {
    let kind = pictures::Kind::of(out)?;
    kind.check(out, args.transparent)?;
    let views = args.views.unwrap_or(if kind == pictures::Kind::Sheet { 8 } else { 72 });
    limit(views, args.size, if kind == pictures::Kind::Sheet { MAX_PIXELS } else { MAX_CLIP_PIXELS })?;
    let show = Show::new(&asset::load(&args.file)?);
    let (width, height) = args.size;
    let pixels = u64::from(width) * u64::from(height);
    let at_a_time = u64::from(views).min(rayon::current_num_threads() as u64);
    // The sheet holds all views, twice; a clip some, and as planes of floats.
    let held = if kind == pictures::Kind::Sheet { 8 * u64::from(views) } else { 24 * at_a_time };
    memory::require(at_a_time * show.memory(width, height, args.samples) + held * pixels)
        .map_err(|e| e.hint("ask for smaller or fewer views, or fewer --samples"))?;
    let lens = Lens { width, height, fov: args.fov };
    let eye = Eye { azimuth: args.azimuth, elevation: args.elevation, distance: args.distance };
    let columns = if args.turntable { views as usize } else { 4 };
    let shoot = pictures::Shoot {
        show: &show,
        style: style(args),
        cameras: lens.turntable(&eye, views),
        columns,
        fps: args.fps,
    };
    shoot.write(kind, out)
}

fn style(args: &RenderArgs) -> Style {
    let studio = |studio: Studio| {
        Illumination::Environment(studio.environment(), f64::from(args.light_turn).to_radians())
    };
    Style {
        view: args.view,
        light: match args.light.unwrap_or(LightName::Studio) {
            // Pictures of other properties need no environment.
            _ if args.view != View::Shaded => Illumination::Flat,
            LightName::Flat => Illumination::Flat,
            LightName::Studio => studio(Studio::Softboxes),
            LightName::White => studio(Studio::White),
            LightName::Overcast => studio(Studio::Overcast),
            LightName::Sunset => studio(Studio::Sunset),
            LightName::Night => studio(Studio::Night),
        },
        exposure: args.exposure,
        tone: args.tone,
        background: match args.transparent {
            true => None,
            false => Some(args.background.unwrap_or_else(|| srgb8_to_linear([0xe6; 3]))),
        },
        samples: args.samples,
    }
}

fn limit(views: u32, (width, height): (u32, u32), most: u64) -> Result<()> {
    let pixels = u64::from(views) * u64::from(width) * u64::from(height);
    if pixels <= most {
        return Ok(());
    }
    Err(Error::invalid(
        "--size",
        format!("{views} views of {width}x{height} pixels are {pixels} pixels; the limit is {most}"),
    )
    .hint("ask for fewer or smaller views"))
}

/// A number within limits.
fn number(text: &str, low: f32, high: f32) -> std::result::Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        Ok(_) => Err(format!("it must be between {low} and {high}")),
        Err(_) => Err("it is not a number".into()),
    }
}

fn elevation(text: &str) -> std::result::Result<f32, String> {
    number(text, -90.0, 90.0)
}

fn angle(text: &str) -> std::result::Result<f32, String> {
    number(text, -3600.0, 3600.0)
}

fn fov(text: &str) -> std::result::Result<f32, String> {
    number(text, 1.0, 150.0)
}

fn distance(text: &str) -> std::result::Result<f32, String> {
    number(text, 0.01, 1000.0)
}

fn exposure(text: &str) -> std::result::Result<f32, String> {
    number(text, 0.0, 1000.0)
}

fn size(text: &str) -> std::result::Result<(u32, u32), String> {
    let side = |t: &str| match t.parse::<u32>() {
        Ok(side) if (8..=4096).contains(&side) => Ok(side),
        Ok(_) => Err("a side must be between 8 and 4096".to_owned()),
        Err(_) => Err("write it as 512 or 640x360".to_owned()),
    };
    match text.split_once(['x', 'X']) {
        Some((width, height)) => Ok((side(width)?, side(height)?)),
        None => side(text).map(|side| (side, side)),
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
        assert_eq!((args.views, args.size, args.elevation), (None, (256, 256), -20.0));
        assert!(
            (args.background.unwrap() - Vec3::new(1.0, 0.0, srgb8_to_linear([128; 3]).z)).length() < 1e-6
        );
        for bad in [
            "--views=0",
            "--size=9999",
            "--elevation=91",
            "--elevation=nan",
            "--size=64x",
            "--size=64x9999",
            "--fov=0",
            "--distance=-1",
            "--samples=9",
            "--transparent --background=#ffffff",
            "--background=#12345",
            "--background=+12345",
        ] {
            let words: Vec<&str> = ["a.glb", "-o", "b.png"].into_iter().chain(bad.split(' ')).collect();
            assert!(parse(&words).is_err(), "{bad}");
        }
        assert!(parse(&["a.glb"]).is_err() && parse(&["a.glb", "-o", "b.png", "--dataset", "d"]).is_err());
        assert_eq!(
            parse(&["a.glb", "--dataset", "d", "--light", "studio"]).unwrap().light,
            Some(LightName::Studio)
        );
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
            run(parse(&[model, "-o", out, "--views=360", "--size=4096x2048"]).unwrap())
                .is_err_and(|e| e.is_usage())
        );
        assert_eq!(fs::read_to_string(&picture).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half-written");
    }
}
