//! `gen3d "prompt" --prior DIR` under tiny random priors of every layout, from end to end; the table of methods;
//! what is said of memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use tempfile::TempDir;

/// Pictures of 16² pixels are latents of 8² to these priors, which halve once.
const SCENE: &str = r#"
device = "cpu"
[camera]
size = 16
views = 2
[field]
levels = 4
start_levels = 4
finest_resolution = 32
log2_table = 10
hidden = 16
[volume]
bins = 32
occupancy_resolution = 16
[optim]
steps = 3
[mesh]
resolution = 24
triangles = 400
texture_size = 64
[output]
preview_every = 0
history_every = 2
preview_size = 16
sheet_size = 16
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn prior(name: &str) -> PathBuf {
    root().join("tests/parity/pipelines").join(name)
}

fn place() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("scene.toml"), SCENE).unwrap();
    dir
}

fn gen3d(dir: &Path, prior: &Path, more: &[&str]) -> Output {
    Command::new(cargo_bin("gen3d"))
        .current_dir(dir)
        .args(["a red apple", "--out", "a.glb", "--scene", "scene.toml", "--prior"])
        .arg(prior)
        .args(more)
        .output()
        .unwrap()
}

#[track_caller]
fn finished(dir: &Path, output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let asset = gen3d::asset::load(&dir.join("a.glb")).unwrap();
    assert!(asset.triangle_count() > 20, "{}", asset.triangle_count());
    let log = fs::read_to_string(dir.join("a.gen3d/log.jsonl")).unwrap();
    log.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// All methods that a prior without a camera takes, and the ways of working in little memory.
#[test]
fn every_method_runs_under_a_prior_of_the_first_layout() {
    let cases: [(&str, &[&str]); 9] = [
        ("sds", &[]),
        ("sds", &["--set", "sds.recompute=always", "--set", "sds.prior_size=32"]),
        ("sds", &["--set", "sds.perp_neg=true"]),
        ("sds", &["--set", "sds.score_clip=[0.5, 2.0]", "--set", "sds.debias_prompt=true"]),
        ("vsd", &[]),
        ("vsd", &["--set", "sds.recompute=always"]),
        ("nfsd", &[]),
        ("ism", &[]),
        ("latent-nerf", &["--set", "camera.size=16", "--set", "camera.late_size=0"]),
    ];
    for (method, more) in cases {
        let dir = place();
        let output = gen3d(dir.path(), &prior("sd"), &[&["--method", method, "--steps", "3"], more].concat());
        let events = finished(dir.path(), &output);
        let count = |name: &str| events.iter().filter(|e| e["event"] == name).count();
        assert_eq!((count("started"), count("step"), count("finished")), (1, 3, 1), "{method}");
        let last = &events[events.len() - 1];
        assert!(last["peak_memory"].as_u64().unwrap() > 1 << 20);
        let step = events.iter().find(|e| e["event"] == "step").unwrap();
        assert!(step["guidance"].as_f64().unwrap() > 0.0 && step["gradient"].as_f64().unwrap() > 0.0);
        assert_eq!(step["learned"].as_f64().unwrap() > 0.0, method == "vsd");
        // A row after two of three steps, eight views wide.
        let history = image::open(dir.path().join("a.gen3d/history.png")).unwrap();
        assert_eq!((history.width(), history.height()), (8 * 16, 16));
    }
}

#[test]
fn recomputing_changes_no_byte_of_the_asset() {
    let asset = |recompute: &str| {
        let dir = place();
        let set = format!("sds.recompute={recompute}");
        finished(dir.path(), &gen3d(dir.path(), &prior("sd"), &["--set", &set]));
        let mut asset = gen3d::asset::load(&dir.path().join("a.glb")).unwrap();
        // The configuration itself is part of the file.
        asset.extras.clear();
        gen3d::asset::glb::to_bytes(&asset).unwrap()
    };
    assert!(asset("never") == asset("always"));
}

#[test]
fn two_encoders_of_text_and_single_files_are_priors_too() {
    let dir = place();
    finished(dir.path(), &gen3d(dir.path(), &prior("xl"), &[]));
    let dir = place();
    finished(dir.path(), &gen3d(dir.path(), &prior("xl/single.safetensors"), &[]));
    // VSD tells the U-Net the camera where this one is told sizes.
    let output = gen3d(dir.path(), &prior("xl"), &["--method", "vsd"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("hint: SD 1.x"), "{text}");
}

#[test]
fn memory_is_told_before_and_after_and_refused_if_it_is_too_much() {
    let dir = place();
    let output = gen3d(dir.path(), &prior("sd"), &["--verbose"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("needs about") && text.contains("GiB at most"), "{text}");
    let huge = ["--set", "camera.size=512", "--set", "camera.views=64", "--set", "sds.recompute=never"];
    let output = gen3d(dir.path(), &prior("sd"), &huge);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("GiB are available"), "{text}");
}

/// Two prompts, two methods, two seeds: made once, judged twice, and what is lost is made again.
#[test]
fn the_table_of_methods_is_resumable() {
    let dir = place();
    fs::write(dir.path().join("list.txt"), "a red apple\na banana\n").unwrap();
    let run = || {
        let output = Command::new(cargo_bin("gen3d"))
            .current_dir(dir.path())
            .args(["eval", "methods", "list.txt", "--out-dir", "table", "--methods", "sds,vsd"])
            .args(["--quiet", "--views", "4", "--evaluator"])
            .arg(root().join("models/evaluator"))
            .arg("--props")
            .arg(root().join("scenes/props"))
            .args(["--json", "all.json", "--", "--scene", "scene.toml", "--prior"])
            .arg(prior("sd"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let first = run();
    assert_eq!(first, fs::read_to_string(dir.path().join("table/table.md")).unwrap());
    assert!(first.contains("| sds | 4/4 | ") && first.contains("| vsd | 4/4 | "), "{first}");
    let json: Value =
        serde_json::from_str(&fs::read_to_string(dir.path().join("all.json")).unwrap()).unwrap();
    for row in json["rows"].as_array().unwrap() {
        for key in ["r_precision", "saturation", "diversity", "seconds", "peak_memory"] {
            assert!(row[key].as_f64().is_some_and(|v| v >= 0.0), "{key}: {row}");
        }
        assert!(row["diversity"].as_f64().unwrap() > 0.0, "seeds that differ: {row}");
    }
    let asset = dir.path().join("table/vsd/seed-1/a_banana.glb");
    let kept = dir.path().join("table/vsd/seed-0/a_banana.glb");
    let (bytes, before) = (fs::read(&asset).unwrap(), fs::metadata(&kept).unwrap().modified().unwrap());
    fs::remove_file(&asset).unwrap();
    let second = run();
    assert!(fs::read(&asset).unwrap() == bytes, "the same asset again");
    assert_eq!(fs::metadata(&kept).unwrap().modified().unwrap(), before, "what is there is not made again");
    // But for the time it took.
    let but_time = |t: &str| -> Vec<String> {
        t.lines().map(|l| l.split(" | ").take(7).collect::<Vec<_>>().join(" | ")).collect()
    };
    assert_eq!(but_time(&first), but_time(&second));
}
