//! The optimisation loop under a guide whose opinion is known in closed form: a Gaussian around the
//! pictures of a coloured sphere. Its noise prediction is exact, so score distillation must find
//! the sphere, and everything about the run (resume, threads, interruption) can be tested without
//! trained weights.

mod stages;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device as Tensors, Tensor};
use gen3d::config::Config;
use gen3d::distill::{Sds, TimestepRange};
use gen3d::generate::checkpoint::{CURRENT, Checkpoint, PREVIOUS};
use gen3d::generate::event::{Event, Summary};
use gen3d::generate::folder::RunFolder;
use gen3d::generate::guide::{Guidance, Guide, Shown, Views};
use gen3d::generate::timing::Timings;
use gen3d::generate::{Job, run_with};
use gen3d::gpu::backend::Device;
use gen3d::prior::schedule::{Config as ScheduleConfig, Schedule};
use gen3d::render::camera::Camera;
use gen3d::render::color::linear_to_srgb;
use gen3d::render::volume::{Background, Mode, RenderOptions, VolumeRenderer};
use gen3d::sample::NoisePredictor;
use gen3d::{Error, Result};
use glam::Vec3;

/// Off centre and smaller than the blob that the field starts as.
const CENTER: Vec3 = Vec3::new(0.15, -0.1, 0.1);
const RADIUS: f32 = 0.42;

/// Where a ray meets the sphere, from its centre.
fn hit(camera: &Camera, x: f32, y: f32) -> Option<Vec3> {
    let (o, d) = (camera.origin() - CENTER, camera.direction(x, y));
    let b = o.dot(d);
    let root = b * b - o.length_squared() + RADIUS * RADIUS;
    (root > 0.0).then(|| o + d * (-b - root.sqrt()))
}

/// Linear colour of the sphere: red on its right (+X), blue on its left, yellow in front.
fn color(p: Vec3) -> Vec3 {
    match p {
        p if p.z > 0.25 => Vec3::new(0.7, 0.6, 0.05),
        p if p.x > 0.0 => Vec3::new(0.6, 0.05, 0.05),
        _ => Vec3::new(0.05, 0.1, 0.6),
    }
}

/// Pictures `[B, 3, S, S]`, sRGB in [−1, 1], over each view's own background (its corner's colour); or normals
/// over −1, and coverage as a fourth channel.
fn pictures(views: &Views<'_>) -> Vec<f32> {
    let n = views.size * views.size;
    let channels = channels(views);
    let mut out = Vec::with_capacity(views.pixels.len());
    for (view, camera) in views.cameras.iter().enumerate() {
        for c in 0..channels {
            let corner = views.pixels[(view * channels + c) * n];
            for i in 0..n {
                let (x, y) = ((i % views.size) as f32 + 0.5, (i / views.size) as f32 + 0.5);
                let sphere = |p: Vec3| match (views.shown, c) {
                    (Shown::Colors, _) => 2.0 * linear_to_srgb(color(p)[c]) - 1.0,
                    (_, 3) => 1.0,
                    _ => p[c] / RADIUS,
                };
                out.push(hit(camera, x, y).map_or(corner, sphere));
            }
        }
    }
    out
}

fn channels(views: &Views<'_>) -> usize {
    if views.shown == Shown::NormalLatents { 4 } else { 3 }
}

/// ε̂ of the Gaussian N(μ, s²): σ (x − α μ) / (α² s² + σ²).
struct Gaussian<'a> {
    mean: Tensor,
    schedule: &'a Schedule,
}

impl NoisePredictor for Gaussian<'_> {
    fn predict(&self, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
        let s = 0.1;
        let rows = t.iter().enumerate().map(|(i, t)| {
            let (alpha, sigma) = (self.schedule.alpha(*t), self.schedule.sigma(*t));
            let offset = (x_t.get(i)? - (self.mean.get(i)? * alpha)?)?;
            offset * (sigma / (alpha * alpha * s * s + sigma * sigma))
        });
        Ok(Tensor::stack(&rows.collect::<Result<Vec<_>, _>>()?, 0)?)
    }
}

struct Sphere {
    schedule: Schedule,
    sds: Sds,
}

impl Sphere {
    fn new(config: &Config) -> Self {
        let schedule = Schedule::new(ScheduleConfig::default()).unwrap();
        let sds = Sds::new(schedule.clone(), config.sds.loss()).unwrap();
        Self { schedule, sds }
    }
}

impl Guide for Sphere {
    fn identity(&self) -> String {
        "sphere".into()
    }

    fn guide(&mut self, views: &Views<'_>, _timings: &mut Timings) -> Result<Guidance> {
        let shape = (views.cameras.len(), channels(views), views.size, views.size);
        let z = Tensor::from_slice(views.pixels, shape, &Tensors::Cpu)?;
        let mean = Tensor::from_vec(pictures(views), shape, &Tensors::Cpu)?;
        let predictor = Gaussian { mean, schedule: &self.schedule };
        let sds = self.sds.gradient(&z, &predictor, views.step, views.progress, views.seed)?;
        Ok(Guidance {
            gradient: sds.gradient.flatten_all()?.to_vec1()?,
            rms: sds.rms[0] as f32,
            timestep: sds.t[0],
            learned: 0.0,
        })
    }
}

fn config(steps: u32) -> Config {
    let mut c = Config { seed: 3, ..Config::default() };
    c.camera.size = 32;
    c.field.levels = 6;
    c.field.finest_resolution = 64;
    c.field.log2_table = 13;
    c.field.hidden = 16;
    c.volume.bins = 64;
    c.volume.occupancy_resolution = 32;
    c.optim.steps = steps;
    c.optim.warmup = 0;
    // The timesteps of the method's paper, not those that suit the embedded prior.
    c.sds.timesteps = TimestepRange::default();
    // A short run: the small MLP must move faster than over a thousand steps.
    c.adam.lr_mlp = 0.01;
    c.mesh.resolution = 48;
    c.mesh.triangles = 2000;
    c.mesh.texture_size = 128;
    c.output.preview_size = 32;
    c.output.preview_every = 7;
    c.output.checkpoint_every = 5;
    c
}

fn job(dir: &Path, config: Config, resume: bool) -> Job {
    Job { prompt: "a ball".into(), folder: RunFolder::check(&dir.join("ball.glb")).unwrap(), config, resume }
}

fn go(job: &Job, listener: &mut dyn FnMut(&Event)) -> Result<Summary> {
    let never = AtomicBool::new(false);
    run_with(job, &Device::cpu(), &mut Sphere::new(&job.config), Timings::default(), &never, listener)
}

/// Runs until `steps` steps are done, then asks for a stop.
fn stopped_after(steps: u32, job: &Job) -> Vec<Event> {
    let cancel = AtomicBool::new(false);
    let mut events = Vec::new();
    let result =
        run_with(job, &Device::cpu(), &mut Sphere::new(&job.config), Timings::default(), &cancel, &mut |e| {
            if matches!(e, Event::Step(s) if s.step == steps) {
                cancel.store(true, Ordering::Relaxed);
            }
            events.push(e.clone());
        });
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    assert!(!job.folder.product().exists(), "no product of half a run");
    events
}

#[test]
fn distillation_from_an_exact_prior_recovers_the_sphere() {
    let dir = tempfile::tempdir().unwrap();
    // Greys tell less than colours would what is behind the field: 150 steps do not suffice before them.
    let job = job(dir.path(), config(300), false);
    let summary = go(&job, &mut |_| {}).unwrap();
    assert!(summary.mesh.watertight && summary.mesh.manifold);
    assert!(job.folder.file("preview.png").exists() && job.folder.file("config.toml").exists());

    let checkpoint = Checkpoint::read(&job.folder.file(CURRENT)).unwrap();
    let (c, device) = (&job.config, Device::cpu());
    let mut renderer = VolumeRenderer::new(&device, &c.field, &c.volume, c.seed).unwrap();
    renderer.load_state(&checkpoint.state).unwrap();
    // A view that the loop's random cameras did not draw, from above and behind.
    for azimuth in [33.0, 123.0, 213.0] {
        let camera = Camera::orbit(azimuth, 35.0, 2.4, Vec3::ZERO, 40f32.to_radians(), 48);
        let options = RenderOptions { step: 299, mode: Mode::Eval, normals: false };
        let picture = renderer.render(&[camera], Background::Solid(&[Vec3::ONE]), options).unwrap();
        let (mut both, mut either, mut error) = (0, 0, 0.0);
        for i in 0..48 * 48 {
            let truth = hit(&camera, (i % 48) as f32 + 0.5, (i / 48) as f32 + 0.5);
            let solid = picture.opacity[i] > 0.5;
            both += usize::from(solid && truth.is_some());
            either += usize::from(solid || truth.is_some());
            let want = truth.map_or(Vec3::ONE, color);
            let got = Vec3::from_slice(&picture.rgb[3 * i..]);
            error += (got - want).abs().element_sum() / 3.0;
        }
        // Half a pixel of the 32 of training around the silhouette costs a tenth of its area;
        // the field begins at IoU .55 and error .11.
        let (iou, error) = (both as f32 / either as f32, error / (48.0 * 48.0));
        assert!(iou > 0.87 && error < 0.05, "azimuth {azimuth}: IoU {iou}, error {error}");
    }
}

#[test]
fn a_resumed_run_writes_the_bytes_of_an_uninterrupted_one() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = job(a.path(), config(17), false);
    go(&whole, &mut |_| {}).unwrap();

    let mut parts = job(b.path(), config(17), false);
    // Reporting may differ between the parts.
    parts.config.output.preview_every = 0;
    stopped_after(8, &parts);
    parts.resume = true;
    let events = stopped_after(13, &parts);
    assert!(events.iter().any(|e| matches!(e, Event::Resumed { step: 8 })));
    parts.config.output.preview_every = 3;
    go(&parts, &mut |_| {}).unwrap();
    let read = |job: &Job| fs::read(job.folder.product()).unwrap();
    assert!(read(&whole) == read(&parts), "the assets differ");
    let state = |job: &Job| Checkpoint::read(&job.folder.file(CURRENT)).unwrap().state;
    assert!(state(&whole) == state(&parts), "the states differ");

    // Another mesh from the finished optimisation takes no step more.
    parts.config.mesh.texture_size = 64;
    let mut steps = 0;
    go(&parts, &mut |e| steps += u32::from(matches!(e, Event::Step(_)))).unwrap();
    assert_eq!(steps, 0);
    assert!(read(&whole) != read(&parts), "the texture is smaller");
}

#[test]
fn the_number_of_threads_does_not_change_a_byte() {
    let bytes = |threads: usize| {
        let dir = tempfile::tempdir().unwrap();
        let job = job(dir.path(), config(6), false);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| go(&job, &mut |_| {})).unwrap();
        fs::read(job.folder.product()).unwrap()
    };
    let one = bytes(1);
    assert!(one == bytes(2), "1 and 2 threads differ");
    assert!(one == bytes(3), "1 and 3 threads differ");
}

#[test]
fn damaged_checkpoints_and_other_settings() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(dir.path(), config(30), false);
    stopped_after(12, &job);
    job.resume = true;

    let mut other = job.clone();
    other.config.seed = 4;
    other.config.adam.lr_grid = 0.02;
    let e = go(&other, &mut |_| {}).unwrap_err();
    assert!(e.is_usage() && e.hint_text().is_some());
    assert_eq!(e.to_string(), "--resume: the interrupted run had another adam.lr_grid, seed");
    other = job.clone();
    other.prompt = "a cube".into();
    assert!(go(&other, &mut |_| {}).unwrap_err().to_string().contains("prompt was \"a ball\""));

    // A sketch that has another shape by now is another run, whatever its file is called.
    let sketch = dir.path().join("sketch.obj");
    let block = |width: f32| {
        let corner = |i: usize| {
            let side = |bit: usize| if i >> bit & 1 == 1 { 1.0 } else { -1.0 };
            format!("v {} {} {}\n", width * side(0), side(1), side(2))
        };
        let faces = "f 1 3 4 2\nf 5 6 8 7\nf 1 2 6 5\nf 3 7 8 4\nf 1 5 7 3\nf 2 4 8 6\n";
        fs::write(&sketch, (0..8).map(corner).collect::<String>() + faces).unwrap();
    };
    block(0.3);
    let sketched_in = tempfile::tempdir().unwrap();
    let mut sketched = self::job(sketched_in.path(), config(30), false);
    sketched.config.sketch.file = sketch.display().to_string();
    stopped_after(3, &sketched);
    sketched.resume = true;
    let events = stopped_after(5, &sketched);
    assert!(events.iter().any(|e| matches!(e, Event::Resumed { step: 3 })));
    block(0.6);
    let e = go(&sketched, &mut |_| {}).unwrap_err();
    assert!(e.is_usage() && e.to_string().contains("sketch"), "{e}");

    // The newest is cut short: the one before serves, with a warning.
    let current = job.folder.file(CURRENT);
    let bytes = fs::read(&current).unwrap();
    fs::write(&current, &bytes[..bytes.len() - 7]).unwrap();
    let events = stopped_after(11, &job);
    assert!(events.iter().any(|e| matches!(e, Event::Resumed { step: 10 })));
    let warned = |e: &Event| matches!(e, Event::Warning { message, .. } if message.contains("damaged"));
    assert!(events.iter().any(warned));

    // Both are: an error that names the file.
    fs::write(&current, b"no").unwrap();
    fs::write(job.folder.file(PREVIOUS), b"").unwrap();
    let e = go(&job, &mut |_| {}).unwrap_err();
    assert!(e.to_string().contains(CURRENT) && e.hint_text().is_some(), "{e}");

    // Starting anew says what it replaces, and nothing of the old run is left.
    job.resume = false;
    let events = stopped_after(3, &job);
    let log = fs::read_to_string(job.folder.file("log.jsonl")).unwrap();
    assert_eq!(log.matches("\"event\":\"step\"").count(), 3);
    assert!(events.len() >= 5 && !job.folder.file(PREVIOUS).exists());
    let mut replaced = false;
    let again = |e: &Event| matches!(e, Event::Warning { message, .. } if message.contains("3 of 30 steps"));
    let cancel = AtomicBool::new(true);
    let result = run_with(
        &job,
        &Device::cpu(),
        &mut Sphere::new(&job.config),
        Timings::default(),
        &cancel,
        &mut |e| replaced |= again(e),
    );
    assert!(matches!(result, Err(Error::Interrupted)) && replaced);
}

/// A guide that answers with nothing but NaN at some steps.
struct Nonsense {
    /// Steps without an answer.
    broken: std::ops::Range<u32>,
    /// Through the gradient instead of the log's number.
    hidden: bool,
    /// Steps it was asked for.
    asked: Vec<u32>,
}

impl Guide for Nonsense {
    fn identity(&self) -> String {
        "nonsense".into()
    }

    fn guide(&mut self, views: &Views<'_>, _timings: &mut Timings) -> Result<Guidance> {
        self.asked.push(views.step);
        let bad = self.broken.contains(&views.step);
        let mut gradient = vec![1e-3; views.pixels.len()];
        if bad && self.hidden {
            gradient[7] = f32::NAN;
        }
        let rms = if bad && !self.hidden { f32::NAN } else { 1.0 };
        Ok(Guidance { gradient, rms, timestep: 1.0, learned: 0.0 })
    }
}

fn nonsense(broken: std::ops::Range<u32>, hidden: bool) -> Nonsense {
    Nonsense { broken, hidden, asked: Vec::new() }
}

#[test]
fn a_diverging_run_is_stopped_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let job = job(dir.path(), config(30), false);
    let never = AtomicBool::new(false);
    let mut guide = nonsense(2..30, false);
    let run = run_with(&job, &Device::cpu(), &mut guide, Timings::default(), &never, &mut |_| {});
    let e = run.unwrap_err();
    assert!(e.to_string().starts_with("the optimisation diverged at step 12: "), "{e}");
    assert!(e.to_string().ends_with("(seed 3)"), "{e}");
    assert!(e.hint_text().is_some() && !job.folder.product().exists());
}

#[test]
fn a_step_without_a_gradient_is_left_out_and_told_and_the_rest_is_as_if_it_had_not_been() {
    for hidden in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let job = job(dir.path(), config(9), false);
        let never = AtomicBool::new(false);
        let (mut warnings, mut steps) = (Vec::new(), Vec::new());
        let mut guide = nonsense(4..6, hidden);
        run_with(&job, &Device::cpu(), &mut guide, Timings::default(), &never, &mut |e| match e {
            Event::Warning { message, .. } => warnings.push(message.clone()),
            Event::Step(s) => steps.push(s.step),
            _ => {}
        })
        .unwrap();
        assert_eq!(steps, [1, 2, 3, 4, 7, 8, 9]);
        let told: Vec<_> = warnings.iter().filter(|w| w.contains("is left out")).collect();
        assert_eq!(told.len(), 2, "{warnings:?}");
        assert!(told[0].starts_with("step 5 is left out: ") && told[0].ends_with("(seed 3)"), "{told:?}");
        let state = Checkpoint::read(&job.folder.file(CURRENT)).unwrap().state;
        assert!(state.values().flatten().all(|x| x.is_finite()));
        // Adam has taken as many steps as there were gradients.
        assert_eq!(state["progress"][0], 7.0);
    }
}

/// A guide that wants nothing to be seen, until the scene is begun anew; counts what it has learned.
struct Eraser {
    seed: u64,
    learned: f32,
}

impl Guide for Eraser {
    fn identity(&self) -> String {
        "eraser".into()
    }

    fn guide(&mut self, views: &Views<'_>, _timings: &mut Timings) -> Result<Guidance> {
        self.learned += 1.0;
        let n = views.size * views.size;
        let first = views.seed == self.seed;
        // Towards the corner, which shows the background; afterwards the sphere.
        let want = pictures(views);
        let gradient = views.pixels.iter().enumerate().map(|(i, p)| {
            let corner = views.pixels[i / n * n];
            let to = if first { corner } else { want[i] };
            p - to
        });
        Ok(Guidance { gradient: gradient.collect(), rms: 1.0, timestep: 1.0, learned: self.learned })
    }

    fn state(&self) -> Result<gen3d::generate::checkpoint::State> {
        Ok([("learned".to_owned(), vec![self.learned])].into())
    }

    fn load_state(&mut self, state: &gen3d::generate::checkpoint::State) -> Result<()> {
        self.learned = state["learned"][0];
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        self.learned = 0.0;
        Ok(())
    }
}

#[test]
fn an_empty_scene_is_begun_anew_and_resumes_like_any_other() {
    let mut c = config(150);
    c.adam.lr_grid = 0.1;
    c.regularize.sparsity = 3.0;
    let go = |job: &Job, cancel_at: Option<u32>| {
        let (cancel, mut events) = (AtomicBool::new(false), Vec::new());
        let mut steps = 0;
        let mut guide = Eraser { seed: 3, learned: 0.0 };
        let result = run_with(job, &Device::cpu(), &mut guide, Timings::default(), &cancel, &mut |e| {
            steps += u32::from(matches!(e, Event::Step(_)));
            cancel.store(cancel_at.is_some_and(|at| steps >= at), Ordering::Relaxed);
            events.push(e.clone());
        });
        (result, events)
    };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let whole = job(dirs[0].path(), c.clone(), false);
    let (result, events) = go(&whole, None);
    result.unwrap();
    let restarts: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            Event::Restarted { step, reason, seed } => Some((*step, reason.clone(), *seed)),
            _ => None,
        })
        .collect();
    assert_eq!(restarts.len(), 1, "{restarts:?}");
    let (at, reason, seed) = &restarts[0];
    assert!(*at >= 20 && reason == "the scene is empty" && *seed != 3);
    // Interrupted in the second attempt and resumed: the same bytes, the guide's memory included.
    let mut parts = job(dirs[1].path(), c, false);
    assert!(matches!(go(&parts, Some(at + 30)).0, Err(Error::Interrupted)));
    parts.resume = true;
    go(&parts, None).0.unwrap();
    let state = |job: &Job| Checkpoint::read(&job.folder.file(CURRENT)).unwrap().state;
    assert!(state(&whole) == state(&parts), "the states differ");
    assert_eq!(state(&whole)["guide.learned"], [150.0], "forgotten with the first attempt");
    assert!(fs::read(whole.folder.product()).unwrap() == fs::read(parts.folder.product()).unwrap());
}

#[test]
fn particles_are_different_assets_of_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(12);
    c.method = gen3d::config::Method::Vsd;
    c.vsd.particles = 2;
    let job = job(dir.path(), c, false);
    let summary = go(&job, &mut |_| {}).unwrap();
    assert_eq!(summary.others, [dir.path().join("ball-2.glb")]);
    let [first, second] = ["ball.glb", "ball-2.glb"].map(|n| fs::read(dir.path().join(n)).unwrap());
    assert!(first != second && job.folder.file("sheet-2.png").exists());
    let state = Checkpoint::read(&job.folder.file(CURRENT)).unwrap().state;
    assert!(state["particle1.progress"][0] == 12.0 && state["progress"][0] == 12.0);
}
