//! The program killed at its work (SIGKILL, at several moments), and run again: the same frames as without.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn gen3d(dir: &Path, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gen3d"));
    command.current_dir(dir).args(args.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn succeed(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn clip(path: &Path, source: &str) {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y", "-bitexact"]).args(source.split_whitespace()).arg(path);
    succeed(command);
}

/// Hashes of the decoded frames.
fn frames(path: &Path) -> String {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i", path.to_str().unwrap(), "-f", "framemd5", "-"])
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|e| if e.path().is_dir() { files(&e.path()) } else { vec![e.path()] })
        .collect()
}

/// Runs `args` and kills it as soon as `at` holds of the files in `folder`. True if it was still at work.
fn killed(dir: &Path, args: &str, folder: &Path, at: impl Fn(&[PathBuf]) -> bool) -> bool {
    let mut child = gen3d(dir, args).spawn().unwrap();
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(60), "never came so far");
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if at(&files(folder)) {
            // SIGKILL: nothing of the program runs any more.
            child.kill().unwrap();
            return !child.wait().unwrap().success();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn count(files: &[PathBuf], part: &str) -> usize {
    files.iter().filter(|f| f.to_string_lossy().contains(part)).count()
}

/// What is in the folder after all but the clips: nothing.
#[track_caller]
fn nothing_left(dir: &Path) {
    let left: Vec<_> = files(dir)
        .into_iter()
        .filter(|f| f.extension().is_none_or(|e| e != "mkv") || f.to_string_lossy().contains(".gen3d"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_interpolation_goes_on_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    clip(&dir.join("a.mkv"), "-f lavfi -i testsrc2=size=160x120:rate=10:duration=1 -c:v ffv1 -pix_fmt bgr0");
    let args =
        |out: &str, more: &str| format!("interpolate a.mkv --out {out} --factor 3 --codec ffv1 -q {more}");
    succeed(gen3d(dir, &args("whole.mkv", "")));
    for made in [1, 7, 14] {
        let at = |files: &[PathBuf]| count(files, ".frame") >= made;
        let args = args("b.mkv", if made == 1 { "" } else { "--resume" });
        assert!(killed(dir, &args, &dir.join("b.gen3d"), at), "finished before {made} frames");
        assert!(!dir.join("b.mkv").exists(), "an output appears only when it is complete");
        let waiting = count(&files(&dir.join("b.gen3d")), ".frame");
        assert!((made..18).contains(&waiting), "{waiting}");
    }
    // What waits is used: a frame that is changed shows.
    succeed(gen3d(dir, &args("b.mkv", "--resume")));
    assert_eq!(frames(&dir.join("b.mkv")), frames(&dir.join("whole.mkv")));
    nothing_left(dir);
    // Another factor is other work.
    assert!(killed(dir, &args("c.mkv", ""), &dir.join("c.gen3d"), |f| count(f, ".frame") >= 2));
    let other =
        gen3d(dir, "interpolate a.mkv --out c.mkv --factor 4 --codec ffv1 -q --resume").output().unwrap();
    let text = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(!other.status.success() && text.contains("holds other work"), "{text}");
}

#[test]
fn an_edit_goes_on_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    clip(&dir.join("a.mkv"), "-f lavfi -i testsrc2=size=64x64:rate=10:duration=0.4 -c:v ffv1 -pix_fmt bgr0");
    let args = |out: &str, more: &str| {
        format!(
            "edit a.mkv --out {out} --source car --prompt horse --kind style --steps 3 --window 2 --codec ffv1 --set inversion.refinements=0 -q {more}"
        )
    };
    succeed(gen3d(dir, &args("whole.mkv", "")));
    // While reading, inverting, editing, and with the first edited frame there.
    let moments: [(&str, usize); 4] =
        [("source/000001", 1), ("inverted/0001", 1), ("work/edited/0002", 1), ("edited/000000.frame", 1)];
    for (i, (part, least)) in moments.iter().enumerate() {
        let at = |files: &[PathBuf]| count(files, part) >= *least;
        let args = args("b.mkv", if i == 0 { "" } else { "--resume" });
        let killed = killed(dir, &args, &dir.join("b.gen3d"), at);
        // From the first edited frame to the end is a moment: a fast machine may be through.
        assert!(killed || i + 1 == moments.len(), "finished before {part}");
        assert!(!killed || !dir.join("b.mkv").exists());
    }
    succeed(gen3d(dir, &args("b.mkv", "--resume")));
    assert_eq!(frames(&dir.join("b.mkv")), frames(&dir.join("whole.mkv")));
    nothing_left(dir);
}
