//! Runs of two stages: the surface after the field.

use std::fs;

use gen3d::config::{Config, RefineConfig, RefineStart};
use gen3d::generate::Job;
use gen3d::generate::checkpoint::{CURRENT, Checkpoint};
use gen3d::generate::event::{Event, Stage};
use gen3d::refine::{Extractor, SurfaceModel};
use glam::Vec3;

use super::{CENTER, RADIUS, config, go, job, stopped_after};

/// A second stage of `steps` steps, small.
fn refined(mut c: Config, steps: u32) -> Config {
    c.refine.steps = steps;
    c.refine.resolution = 24;
    c.refine.size = 32;
    c.refine.supersample = 2;
    c.refine.lr_sdf = 0.004;
    c.refine.lr_grid = 0.02;
    c.refine.lr_mlp = 0.01;
    c
}

/// Mean distance of the second stage's surface from the sphere.
fn off_the_sphere(job: &Job) -> f32 {
    let state = Checkpoint::read(&job.folder.file(CURRENT)).unwrap().state;
    let own = |(name, x): (&String, &Vec<f32>)| {
        Some((name.strip_prefix("refined.surface.")?.to_owned(), x.clone()))
    };
    let state = state.iter().filter_map(own).collect();
    let mesh = SurfaceModel::from_state(job.config.refine.extractor, &state).unwrap().mesh().unwrap();
    let off = mesh.positions.iter().map(|p| (p.distance(CENTER) - RADIUS).abs()).sum::<f32>();
    off / mesh.positions.len() as f32
}

#[test]
fn a_ball_finds_the_sphere_by_colours_and_by_normals() {
    let dir = tempfile::tempdir().unwrap();
    // A ball around the origin, of another radius.
    let before = (0..6).map(|i| {
        let out = (Vec3::AXES[i % 3] * if i < 3 { 0.5 } else { -0.5 }).distance(CENTER) - RADIUS;
        out.abs()
    });
    let before = before.sum::<f32>() / 6.0;
    // By colours it takes longer: until they are learned, silhouettes before a background say little.
    let mut found = Vec::new();
    for (latents, normals, steps) in [(0.0, 0.0, 240), (0.3, 0.8, 100)] {
        let mut c = refined(config(0), steps);
        c.refine.start = RefineStart::Ball;
        c.refine.extractor = if normals > 0.0 { Extractor::Dmtet } else { Extractor::Flexicubes };
        (c.refine.latents_until, c.refine.normals_until) = (latents, normals);
        c.refine.lr_sdf = 0.01;
        c.output.preview_every = 0;
        c.output.checkpoint_every = 0;
        let job = job(dir.path(), c, false);
        let summary = go(&job, &mut |_| {}).unwrap();
        assert!(summary.mesh.watertight && summary.mesh.manifold);
        let after = off_the_sphere(&job);
        eprintln!("off by {before:.4} before, {after:.4} after, normals until {normals}");
        found.push(after / before);
    }
    assert!(found.iter().all(|f| *f < 0.5), "{found:?}");
}

#[test]
fn a_run_of_two_stages_goes_on_across_their_border_to_the_same_bytes() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let c = refined(config(12), 10);
    let whole = job(dirs[0].path(), c.clone(), false);
    go(&whole, &mut |_| {}).unwrap();
    // In the first stage, on the border, in the second, and after its last step.
    let mut resume = false;
    for steps in [7, 12, 17, 22] {
        let events = stopped_after(steps, &job(dirs[1].path(), c.clone(), resume));
        let refined =
            events.iter().any(|e| matches!(e, Event::StageStarted { stage } if *stage == Stage::Refine));
        assert_eq!(refined, steps > 12, "{steps}");
        resume = true;
    }
    let parts = job(dirs[1].path(), c.clone(), true);
    go(&parts, &mut |_| {}).unwrap();
    let state = |job: &Job| Checkpoint::read(&job.folder.file(CURRENT)).unwrap();
    assert!(state(&whole).state == state(&parts).state, "the states differ");
    assert_eq!(state(&whole).step, 22);
    assert!(fs::read(whole.folder.product()).unwrap() == fs::read(parts.folder.product()).unwrap());
    // Another second stage is another run.
    let other = Config { refine: RefineConfig { lr_sdf: 0.1, ..c.refine.clone() }, ..c };
    let e = go(&job(dirs[1].path(), other, true), &mut |_| {}).unwrap_err();
    assert!(e.to_string().contains("refine.lr_sdf"), "{e}");
}
