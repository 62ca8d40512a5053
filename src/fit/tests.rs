//! The closed loop: a known model, its pictures, a fit, and the model again.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::dataset::{Up, write};
use super::{Job, preset, run_on};
use crate::asset::Asset;
use crate::asset::recipe::Recipe;
use crate::config::layers::{self, Layer};
use crate::generate::event::{Event, FitScore};
use crate::generate::folder::RunFolder;
use crate::gpu::backend::Device;
use crate::render::raster::Lighting;
use crate::{Error, Result};

const SMALL: &str = r#"
device = "cpu"
[camera]
size = 32
[field]
levels = 8
finest_resolution = 64
log2_table = 14
[volume]
bins = 96
occupancy_resolution = 32
[optim]
steps = 200
[refine]
steps = 0
resolution = 32
size = 32
supersample = 2
[mesh]
resolution = 64
triangles = 5000
texture_size = 256
[output]
preview_every = 0
checkpoint_every = 0
"#;

/// An apple of 3 m beside the origin, and its pictures.
fn apple(folder: &Path) -> Asset {
    let mut asset = Recipe::parse(include_str!("../../scenes/props/apple.toml")).unwrap().build(1).unwrap();
    for p in asset.meshes.iter_mut().flat_map(|m| &mut m.positions) {
        *p = *p * 3.0 + glam::Vec3::new(10.0, 2.0, -5.0);
    }
    let options = write::Options { views: 24, size: 32, background: None, lighting: Lighting::flat() };
    write::write(&asset, folder, &options).unwrap();
    asset
}

fn job(dir: &Path, out: &str, more: &str) -> Job {
    let layers =
        [preset().unwrap(), Layer::parse(SMALL, "small").unwrap(), Layer::parse(more, "more").unwrap()];
    Job {
        pictures: dir.join("apple"),
        up: Up::Z,
        folder: RunFolder::check(&dir.join(out)).unwrap(),
        config: layers::resolve(&layers).unwrap(),
        resume: false,
        truth: None,
    }
}

fn fit(job: &Job, truth: Option<&Asset>) -> Result<FitScore> {
    let mut score = None;
    let mut listen = |e: &Event| {
        if let Event::FitScore(s) = e {
            score = Some(s.clone());
        }
    };
    run_on(job, &Device::cpu(), truth, &AtomicBool::new(false), &mut listen)?;
    Ok(score.expect("every finished run is compared"))
}

#[test]
fn an_apple_comes_back_from_its_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let truth = apple(&dir.path().join("apple"));
    let job = job(dir.path(), "a.glb", "");
    let score = fit(&job, Some(&truth)).unwrap();
    eprintln!("{score:?}");
    assert!(score.held_out && score.pictures == 3);
    assert!(score.field_psnr > 25.0 && score.mesh_psnr.unwrap() > 23.0, "{score:?}");
    // The product lies where the model was, in its size.
    assert!(score.chamfer.unwrap() < 0.02, "{score:?}");
    let product = crate::asset::load(job.folder.product()).unwrap();
    let ((low, high), (l, h)) = (product.bounds().unwrap(), truth.bounds().unwrap());
    // All sides but the top, where the stalk is thinner than a pixel of these pictures and is lost.
    let sides = glam::Vec3::new(1.0, 0.0, 1.0);
    let off = (low - l).abs().max(((high - h) * sides).abs()).max_element();
    assert!(off < 0.1 && high.y > l.y + 2.0 && high.y < h.y + 0.1, "{low} {high}, not {l} {h}");
    assert!(job.folder.file("compare.png").is_file() && job.folder.file("log.jsonl").is_file());
}

#[test]
fn a_second_stage_brings_the_mesh_nearer_to_pictures_that_it_was_not_made_from() {
    let dir = tempfile::tempdir().unwrap();
    let truth = apple(&dir.path().join("apple"));
    let first = "[optim]\nsteps = 120\n";
    let before = fit(&job(dir.path(), "a.glb", first), Some(&truth)).unwrap();
    {
        let extractor = "dmtet";
        let more = format!("{first}[refine]\nsteps = 60\nextractor = \"{extractor}\"\n");
        let job = job(dir.path(), &format!("{extractor}.glb"), &more);
        let after = fit(&job, Some(&truth)).unwrap();
        eprintln!("{extractor}: {before:?} {after:?}");
        assert_eq!(before.field_psnr, after.field_psnr, "the field is left as it is");
        assert!(after.mesh_psnr.unwrap() > before.mesh_psnr.unwrap() + 0.5, "{before:?} {after:?}");
        assert!(after.chamfer.unwrap() < before.chamfer.unwrap() + 0.001, "{before:?} {after:?}");
        let product = crate::asset::load(job.folder.product()).unwrap();
        assert!(product.triangle_count() <= 5000);
    }
}

#[test]
fn an_interrupted_fit_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    apple(&dir.path().join("apple"));
    let short = "[optim]\nsteps = 24\n[camera]\nsize = 16\n[refine]\nsteps = 8\n[mesh]\nthreshold = 1.0\n";
    let whole = job(dir.path(), "whole.glb", short);
    fit(&whole, None).unwrap();
    let mut halves = job(dir.path(), "halves.glb", short);
    // In the first stage, on the border, and in the second.
    for last in [11, 24, 29] {
        let cancel = AtomicBool::new(false);
        let mut listen = |e: &Event| {
            if matches!(e, Event::FitStep(s) if s.step == last) {
                cancel.store(true, Ordering::Relaxed);
            }
        };
        let stopped = run_on(&halves, &Device::cpu(), None, &cancel, &mut listen);
        assert!(matches!(stopped, Err(Error::Interrupted)), "{last}: {stopped:?}");
        halves.resume = true;
    }
    fit(&halves, None).unwrap();
    let bytes = |job: &Job| std::fs::read(job.folder.product()).unwrap();
    assert!(bytes(&whole) == bytes(&halves));
    // Under other settings or pictures it is refused.
    let mut other = job(dir.path(), "halves.glb", "[optim]\nsteps = 24\n");
    other.resume = true;
    assert!(fit(&other, None).unwrap_err().to_string().contains("camera.size"));
    std::fs::copy(dir.path().join("apple/train/001.png"), dir.path().join("apple/train/000.png")).unwrap();
    let e = fit(&halves, None).unwrap_err();
    assert!(e.to_string().contains("other pictures"), "{e}");
}

#[test]
fn a_scene_with_its_background_is_learned_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("apple");
    let asset = Recipe::parse(include_str!("../../scenes/props/apple.toml")).unwrap().build(1).unwrap();
    let blue = glam::Vec3::new(0.2, 0.4, 0.8);
    let options = write::Options { views: 24, size: 32, background: Some(blue), lighting: Lighting::flat() };
    write::write(&asset, &folder, &options).unwrap();
    // A mesh cannot show what is behind it: there is a warning, and no second stage.
    let job = job(dir.path(), "b.glb", "[optim]\nsteps = 150\n[refine]\nsteps = 5\n");
    let score = fit(&job, None).unwrap();
    let log = std::fs::read_to_string(job.folder.file("log.jsonl")).unwrap();
    assert!(log.contains("there is no second stage") && !log.contains("\"refine\""), "{log}");
    eprintln!("{score:?}");
    assert!(score.field_psnr > 22.0 && score.mesh_psnr.is_none(), "{score:?}");
}
