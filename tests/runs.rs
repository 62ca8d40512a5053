//! Whole runs of the binary under a tiny prior that is trained here in a second: it knows nothing,
//! but it is a real one, loaded and asked by the code that loads and asks every prior.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use tempfile::TempDir;

const TRAINING: &str = r#"
image_size = 32
pictures = 8
text_width = 32
text_layers = 1
[vae]
channels = [16, 32]
steps = 1
batch = 2
[unet]
channels = [32, 64]
heads = 2
steps = 1
batch = 2
"#;

const SCENE: &str = r#"
device = "cpu"
[camera]
size = 32
views = 2
[field]
levels = 6
finest_resolution = 64
log2_table = 12
hidden = 16
[volume]
bins = 48
occupancy_resolution = 32
[optim]
steps = 12
[mesh]
resolution = 32
triangles = 1000
texture_size = 64
[output]
preview_every = 6
preview_size = 16
sheet_size = 32
checkpoint_every = 4
"#;

/// The tiny prior, trained once for all tests of this file.
fn prior() -> &'static Path {
    static PRIOR: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &PRIOR
        .get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("tiny.toml"), TRAINING).unwrap();
            let props = concat!(env!("CARGO_MANIFEST_DIR"), "/scenes/props");
            let output = Command::new(cargo_bin("gen3d"))
                .current_dir(dir.path())
                .args(["train", "prior", "--config", "tiny.toml", "--props", props])
                .args(["--run", "run", "--out", "model", "--quiet"])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let model = dir.path().join("model");
            (dir, model)
        })
        .1
}

/// A folder to run in.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("scene.toml"), SCENE).unwrap();
        Self(dir)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(cargo_bin("gen3d"));
        command.current_dir(self.0.path()).args(["a blue jay", "--out", "jay.glb"]);
        if !more.contains(&"--resume") {
            command.args(["--scene", "scene.toml", "--prior"]).arg(prior());
        }
        command.args(more);
        command
    }

    fn run(&self, more: &[&str]) -> Output {
        self.command(more).output().unwrap()
    }

    #[track_caller]
    fn done(&self, more: &[&str]) -> Vec<u8> {
        let output = self.run(more);
        assert!(output.status.success(), "{}", text(&output.stderr));
        fs::read(self.at("jay.glb")).unwrap()
    }

    /// Starts a run that is too long to end by itself and waits until `steps` steps are in its log.
    fn started(&self, steps: usize) -> Child {
        self.started_with(steps, &["--steps", "80"])
    }

    fn started_with(&self, steps: usize, more: &[&str]) -> Child {
        let mut child = self.command(more).stderr(Stdio::piped()).spawn().unwrap();
        let log = self.at("jay.gen3d/log.jsonl");
        let patience = Instant::now();
        while fs::read_to_string(&log).unwrap_or_default().matches("\"event\":\"step\"").count() < steps {
            assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
            assert!(patience.elapsed() < Duration::from_secs(120), "no steps");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[test]
fn stdout_is_the_product_or_the_events() {
    let place = Place::new();
    let output = place.run(&["--verbose"]);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(text(&output.stdout), "jay.glb\n");
    // Neither a bar nor a colour where there is no terminal.
    assert!(!stderr.contains('\u{1b}') && !stderr.contains('\r'), "{stderr}");
    for part in ["step 12 of 12 (100 %)", "optimize.unet", "mesh.bake", "export.save"] {
        assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
    }
    for file in ["config.toml", "log.jsonl", "preview.png", "sheet.png", "checkpoint.safetensors"] {
        assert!(place.at("jay.gen3d").join(file).exists(), "{file}");
    }
    let asset = gen3d::asset::load(&place.at("jay.glb")).unwrap();
    assert_eq!(asset.extras["prompt"], "a blue jay");
    assert_eq!(asset.extras["settings"]["optim"]["steps"], 12);

    let output = place.run(&["--json", "--quiet"]);
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    let events: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let count = |name: &str| events.iter().filter(|e| e["event"] == name).count();
    assert_eq!((count("step"), count("preview"), count("checkpoint"), count("finished")), (12, 2, 3, 1));
    let last = &events[events.len() - 1];
    assert!(last["timings"].as_array().unwrap().len() > 8 && last["mesh"]["watertight"] == true);
}

#[test]
fn words_the_prior_has_not_learned_are_named() {
    let place = Place::new();
    let mut command = place.command(&["--steps", "1"]);
    let output = command.args(["--out", "x.ply"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "an option twice is a mistake");
    let output = Command::new(cargo_bin("gen3d"))
        .current_dir(place.0.path())
        .args(["a blue flurbel", "--out", "x.ply", "--scene", "scene.toml", "--steps", "1", "--prior"])
        .arg(prior())
        .output()
        .unwrap();
    assert!(output.status.success());
    let stderr = text(&output.stderr);
    assert!(stderr.contains("warning: the prior has not learned `flurbel`"), "{stderr}");
    assert!(!stderr.contains("`blue`"));
}

#[test]
fn interrupted_or_killed_and_resumed_it_writes_the_same_bytes() {
    let (whole, stopped, killed) = (Place::new(), Place::new(), Place::new());
    let expected = whole.done(&["--steps", "80"]);

    let child = stopped.started(6);
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("interrupted: progress is saved\n\nhint: the same command with --resume"));
    assert!(!stopped.at("jay.glb").exists() && stopped.at("jay.gen3d/checkpoint.safetensors").exists());
    // The interrupted run's own settings are used; no flag needs to be given again.
    assert!(stopped.done(&["--resume"]) == expected, "interrupted");

    let mut child = killed.started(6);
    signal(&child, "-KILL");
    child.wait().unwrap();
    assert!(!killed.at("jay.glb").exists());
    assert!(killed.done(&["--resume", "--threads", "1"]) == expected, "killed");
}

/// What VSD has learned of its particles goes through the checkpoint.
#[test]
fn vsd_makes_different_assets_of_one_run_and_resumes_to_the_same_bytes() {
    let method = ["--method", "vsd", "--set", "vsd.particles=2", "--set", "vsd.learning_rate=0.01"];
    let all = [&method[..], &["--steps", "30"]].concat();
    let (whole, killed) = (Place::new(), Place::new());
    let expected = whole.done(&all);
    let second = |place: &Place| fs::read(place.at("jay-2.glb")).unwrap();
    assert!(expected != second(&whole), "two particles, two assets");
    let mut child = killed.started_with(20, &all);
    signal(&child, "-KILL");
    child.wait().unwrap();
    assert!(killed.done(&["--resume", "--threads", "1"]) == expected);
    assert!(second(&killed) == second(&whole));
    let log = fs::read_to_string(killed.at("jay.gen3d/log.jsonl")).unwrap();
    assert!(log.contains("\"event\":\"resumed\""), "it was resumed, not begun anew");
    let learned = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["learned"].as_f64();
    assert!(log.lines().filter_map(learned).all(|l| l > 0.0));
    // Without the estimate's state it would be another asset: SDS is.
    assert!(Place::new().done(&["--steps", "30"]) != expected);
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let place = Place::new();
    let one = place.done(&["--threads", "1"]);
    assert!(one == place.done(&["--threads", "2"]), "1 and 2 threads differ");
    assert!(one != place.done(&["--seed", "1"]), "another seed is another asset");
}

#[test]
fn what_cannot_be_resumed_is_refused() {
    let place = Place::new();
    place.done(&[]);
    let refused = place.run(&["--resume", "--guidance-scale", "3"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("had another sds.guidance_scale"), "{}", text(&refused.stderr));

    for name in ["checkpoint.safetensors", "checkpoint.previous.safetensors"] {
        let path = place.at("jay.gen3d").join(name);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 9;
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let refused = place.run(&["--resume"]);
    assert_eq!(refused.status.code(), Some(1));
    let stderr = text(&refused.stderr);
    assert!(stderr.contains("damaged checkpoint: its checksum does not match"), "{stderr}");
    assert!(stderr.contains("hint: start anew without --resume"), "{stderr}");
}

#[test]
fn priors_that_cannot_be_used() {
    let place = Place::new();
    let fails = |prior: &Path| {
        let output = Command::new(cargo_bin("gen3d"))
            .current_dir(place.0.path())
            .args(["a jay", "--out", "jay.glb", "--scene", "scene.toml", "--prior"])
            .arg(prior)
            .output()
            .unwrap();
        let stderr = text(&output.stderr);
        assert!(!place.at("jay.glb").exists() && !place.at("jay.gen3d").exists(), "{stderr}");
        (output.status.code(), stderr)
    };
    let (code, stderr) = fails(Path::new("nowhere"));
    assert!(code == Some(2) && stderr.contains("nowhere") && stderr.contains("hint: "), "{stderr}");

    let broken = place.at("broken");
    let copied = Command::new("cp").arg("-r").arg(prior()).arg(&broken).status().unwrap();
    assert!(copied.success());
    let weights = fs::read_dir(broken.join("unet"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "safetensors"))
        .unwrap();
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let (code, stderr) = fails(&broken);
    assert!(code == Some(1) && stderr.contains("safetensors"), "{stderr}");
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let place = Place::new();
    // Files of at most 8 KiB stand for a disk that is full: no checkpoint and no asset fits.
    let run = format!(
        "trap '' XFSZ; ulimit -f 8; exec {} 'a jay' --out jay.glb --scene scene.toml --prior {}",
        cargo_bin("gen3d").display(),
        prior().display()
    );
    let output = Command::new("bash").current_dir(place.0.path()).args(["-c", &run]).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("warning: ") && stderr.contains("error: jay.glb: File too large"), "{stderr}");
    assert!(!place.at("jay.glb").exists());
    let left: Vec<_> = fs::read_dir(place.at("jay.gen3d")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("checkpoint")), "{left:?}");
}
