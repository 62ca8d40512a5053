//! The command line from outside: exit codes, messages, what is left on the disk.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

use assert_cmd::cargo::cargo_bin;

fn gen3d(dir: &Path, args: &[&str]) -> Output {
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    gen3d_os(dir, &args)
}

fn gen3d_os(dir: &Path, args: &[&OsStr]) -> Output {
    Command::new(cargo_bin("gen3d")).current_dir(dir).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Usage errors exit 2, say all of `parts` on stderr, nothing on stdout, and leave no file.
#[track_caller]
fn refused(args: &[&str], parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let output = gen3d(dir.path(), args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty());
    for part in parts {
        assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn help_and_version_are_data() {
    let dir = tempfile::tempdir().unwrap();
    let help = gen3d(dir.path(), &["--help"]);
    assert!(help.status.success() && help.stderr.is_empty());
    for part in ["generate", "--out", "--seed", "--scene", "--resume", "130"] {
        assert!(text(&help.stdout).contains(part), "{part}");
    }
    assert!(text(&gen3d(dir.path(), &["--version"]).stdout).starts_with("gen3d "));
    assert_eq!(gen3d(dir.path(), &[]).status.code(), Some(2));
}

#[test]
fn wrong_arguments() {
    refused(&["a jay"], &["--out"]);
    refused(&["a jay", "--out", "a.glb", "--stepz", "3"], &["--stepz", "--steps"]);
    refused(&["a jay", "--out", "a.glb", "--steps", "many"], &["many", "--steps"]);
    refused(&["generate"], &["<PROMPT>", "--out"]);
    refused(&["a", "blue", "jay", "--out", "a.glb"], &["blue"]);
    refused(&["a jay", "--out", "a.glb", "--threads", "0"], &["--threads"]);
    refused(&["a jay", "--out", "a.glb", "--quiet", "--verbose"], &["cannot be used with"]);
}

#[test]
fn bad_prompts() {
    refused(&["", "--out", "a.glb"], &["error: prompt: empty", "\n\nhint: "]);
    refused(&[&"x".repeat(10_000), "--out", "a.glb"], &["10000 characters", "hint: "]);
    refused(&["a\nb", "--out", "a.glb"], &["control character", "hint: "]);
    let dir = tempfile::tempdir().unwrap();
    let args = [OsStr::from_bytes(b"a \xff jay"), OsStr::new("--out"), OsStr::new("a.glb")];
    let output = gen3d_os(dir.path(), &args);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("error: prompt: not valid UTF-8"), "{}", text(&output.stderr));
}

#[test]
fn impossible_outputs() {
    refused(&["a jay", "--out", "a.stl"], &["unknown extension `.stl`", "hint: formats: .glb, .obj, .ply"]);
    refused(&["a jay", "--out", "jay"], &["no file extension"]);
    refused(
        &["a jay", "--out", "no/such/a.glb"],
        &["does not exist", "hint: create it first: mkdir -p no/such"],
    );
    // Not even root may create files there.
    let dir = tempfile::tempdir().unwrap();
    let output = gen3d(dir.path(), &["a jay", "--out", "/proc/a.glb"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: /proc: "), "{}", text(&output.stderr));
}

#[test]
fn unknown_names_come_with_suggestions() {
    refused(
        &["a jay", "--out", "a.glb", "--scene", "defualt"],
        &["there is no scene `defualt`", "did you mean `default`?", "default, draft, fine"],
    );
    refused(&["a jay", "--out", "a.glb", "--method", "vds"], &["no method `vds`", "prolificdreamer"]);
}

#[test]
fn the_configuration_is_strict() {
    let out = ["a jay", "--out", "a.glb"];
    let with = |more: &[&'static str]| [&out[..], more].concat();
    refused(
        &with(&["--set", "optim.stepz=3"]),
        &["unknown key: `optim.stepz`", "did you mean `optim.steps`?"],
    );
    refused(&with(&["--set", "steps"]), &["`steps` is not KEY=VALUE"]);
    refused(&with(&["--steps", "0"]), &["optim.steps: 0 is outside 1 … 100000", "comes from --steps"]);
    refused(&with(&["--steps", "-5"]), &["--steps", "-5"]);
    refused(&with(&["--seed", "-1"]), &["--seed", "-1"]);
    refused(&with(&["--set", "camera.size=100000"]), &["camera.size: 100000 is outside 16 … 512"]);
    refused(&with(&["--guidance-scale", "NaN"]), &["sds.guidance_scale: NaN is outside 0 … 1000"]);
}

#[test]
fn a_scene_file_is_named_in_its_errors() {
    let dir = tempfile::tempdir().unwrap();
    let run = |scene: &str| {
        fs::write(dir.path().join("my.toml"), scene).unwrap();
        let output = gen3d(dir.path(), &["a jay", "--out", "a.glb", "--scene", "my.toml"]);
        assert_eq!(output.status.code(), Some(2));
        text(&output.stderr)
    };
    assert!(run("[camera]\nviewz = 3\n").contains("error: my.toml: unknown key: `camera.viewz`"));
    assert!(run("[camera\n").contains("error: my.toml: TOML parse error at line 1"));
    assert!(run("[camera]\nviews = 900\n").contains("hint: the value comes from my.toml"));
    let output = gen3d(dir.path(), &["a jay", "--out", "a.glb", "--scene", "other.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("error: other.toml: No such file"));
    assert!(!dir.path().join("a.gen3d").exists());
}

/// A path of the repository, as an argument.
fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).to_str().unwrap().to_owned()
}

#[test]
fn pictures_can_be_steered_and_what_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let picture = image::RgbImage::from_fn(24, 16, |x, _| image::Rgb([if x < 12 { 20 } else { 230 }; 3]));
    picture.save(dir.path().join("p.png")).unwrap();
    let (tiny, net) =
        (repository("tests/parity/pipelines/sd"), repository("tests/parity/pipelines/controlnet0"));
    let base = ["image", "a (blue:1.3) jay", "--prior", &tiny, "--size", "24x16", "--steps", "2", "-q"];
    let run = |more: &[&str]| gen3d(dir.path(), &[&base[..], more].concat());
    let steered = ["--controlnet", &format!("{net}:0.7"), "--control-image", "canny:p.png"];
    for (out, more) in
        [("a.png", &steered[..]), ("b.png", &[]), ("c.png", &["--init", "p.png", "--mask", "p.png"])]
    {
        let output = run(&[&["--out", out], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), format!("{out}\n"));
    }
    let read = |name: &str| image::open(dir.path().join(name)).unwrap().to_rgb8();
    // A grid of four.
    assert_eq!(read("a.png").dimensions(), (48, 32));
    assert_ne!(read("a.png"), read("b.png"));
    let faults: [(&[&str], &str); 4] = [
        (&["--out", "d.png", "--controlnet", &net], "0 for 1 --controlnet"),
        (&["--out", "d.png", "--controlnet", &tiny, "--control-image", "p.png"], "config.json"),
        (&["--out", "d.png", "--vae", &net], "ControlNetModel"),
        (&["--out", "d.png", "--clip-skip", "9"], "clip skip"),
    ];
    for (more, part) in faults {
        let output = run(more);
        assert!(!output.status.success() && text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
    assert!(!dir.path().join("d.png").exists());
}

#[test]
fn priors_have_names() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = repository("tests/parity/pipelines/sd");
    let models = |args: &[&str]| {
        let args = [&["models"], args].concat();
        let run = Command::new(cargo_bin("gen3d")).args(args).env("GEN3D_HOME", dir.path()).output();
        let output = run.unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(models(&["list"]).1.lines().count(), 1);
    let words = models(&["words"]).1;
    let of = |kind: &str| words.lines().filter(|l| l.starts_with(&format!("{kind}\t"))).count();
    assert!(of("noun") >= 300 && of("color") >= 12 && of("material") >= 6 && of("relation") >= 3, "{words}");
    assert!(words.lines().any(|w| w == "noun\tmacarons"), "{words}");
    let all = models(&["words", "--all"]).1;
    assert!(all.lines().count() > 1000 && all.lines().any(|w| w == "macarons"), "{all}");
    let (code, _, stderr) = models(&["words", "--prior", &tiny]);
    assert!(code == Some(2) && stderr.contains("no list"), "{stderr}");
    assert_eq!(models(&["add", "tiny", &tiny]).0, Some(0));
    assert!(models(&["list"]).1.contains(&tiny));
    let (code, _, stderr) = models(&["add", "tiny", &tiny]);
    assert!(code == Some(2) && stderr.contains("already"), "{stderr}");
    let output = Command::new(cargo_bin("gen3d"))
        .args(["image", "a jay", "--prior", "tiny", "--size", "16", "--steps", "1", "--out", "a.png", "-q"])
        .env("GEN3D_HOME", dir.path())
        .current_dir(dir.path())
        .output();
    assert!(output.unwrap().status.success() && dir.path().join("a.png").exists());
    assert_eq!(models(&["remove", "tiny"]).0, Some(0));
    assert_eq!(models(&["remove", "tiny"]).0, Some(2));
}
