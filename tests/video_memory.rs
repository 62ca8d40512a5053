//! The program's memory does not grow with the clip: peaks of resident memory for 16, 64 and 320 frames.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn clip(path: &Path, frames: usize) {
    let args = format!(
        "-v error -y -f lavfi -i testsrc2=size=64x48:rate=25 -frames:v {frames} -c:v libx264 -preset ultrafast -pix_fmt yuv420p"
    );
    let status = Command::new("ffmpeg").args(args.split_whitespace()).arg(path).status().unwrap();
    assert!(status.success());
}

/// Peak of resident memory, KiB. The number of threads is fixed: each brings its own buffers.
fn peak(dir: &Path, args: &str) -> u64 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gen3d"))
        .current_dir(dir)
        // With several, which of them met the largest task decides how much of its scratch memory each has.
        .env("RAYON_NUM_THREADS", "1")
        .args(args.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        if let Ok(text) = std::fs::read_to_string(&status) {
            let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
            most = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(most).max(most);
        }
        if let Some(code) = child.try_wait().unwrap() {
            assert!(code.success(), "{args}");
            return most;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
fn flat(command: &str) {
    let dir = tempfile::tempdir().unwrap();
    let peaks = [16, 64, 320].map(|frames| {
        let name = format!("{frames}.mp4");
        clip(&dir.path().join(&name), frames);
        peak(dir.path(), &format!("{command} {name} --out out.mp4 --preset ultrafast -q"))
    });
    println!("{command}: {peaks:?} KiB");
    let [least, _, most] = peaks;
    assert!(peaks.iter().all(|p| *p > 10_000), "{peaks:?}");
    assert!(most as f64 <= 1.05 * least as f64, "grows with the clip: {peaks:?} KiB");
}

#[test]
fn an_edit_takes_the_same_for_any_length() {
    let prior = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/pipelines/sd");
    flat(&format!(
        "edit --prior {} --source car --prompt horse --kind style --steps 2 --size 16 --set inversion.refinements=0",
        prior.display()
    ));
}

#[test]
fn an_interpolation_takes_the_same_for_any_length() {
    flat("interpolate");
}
