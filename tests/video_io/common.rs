//! What the tests share: the `ffmpeg` program as maker and judge of clips.

use std::path::{Path, PathBuf};
use std::process::Command;

use gen3d::Result;
use gen3d::video::io::{Codec, Damage, Encoding, Flow, Info, ReadOptions, Reader, Written, transcode};

/// Runs a program and returns its stdout; it must succeed.
#[track_caller]
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes a clip: inputs and options before the name.
#[track_caller]
pub(crate) fn make(path: &Path, args: &str) -> PathBuf {
    let mut all = vec!["-v", "error", "-y", "-bitexact"];
    all.extend(args.split_whitespace());
    all.push(path.to_str().unwrap());
    run("ffmpeg", &all);
    path.to_owned()
}

pub(crate) fn identity(input: &Path, output: &Path, encoding: &Encoding) -> Result<(Info, Damage, Written)> {
    let mut same = |_, picture| Ok(picture);
    transcode(input, output, ReadOptions::default(), encoding, &mut same, &mut |_| Flow::Continue)
}

pub(crate) fn with(codec: Codec) -> Encoding {
    Encoding { codec, ..Encoding::default() }
}

pub(crate) fn near_lossless() -> Encoding {
    Encoding { crf: Some(10.0), preset: Some("veryfast".into()), ..Encoding::default() }
}

/// MD5 of all raw frames as ffmpeg decodes them (turned for display).
pub(crate) fn frames_md5(path: &Path, pixels: &str) -> String {
    run(
        "ffmpeg",
        &[
            "-v",
            "error",
            "-i",
            path.to_str().unwrap(),
            "-map",
            "0:v:0",
            "-pix_fmt",
            pixels,
            "-f",
            "rawvideo",
            "-fps_mode",
            "passthrough",
            "-f",
            "md5",
            "-",
        ],
    )
}

/// Hash of the packets of each stream of a kind.
pub(crate) fn packet_hashes(path: &Path, kind: &str) -> String {
    let text = run(
        "ffmpeg",
        &[
            "-v",
            "error",
            "-i",
            path.to_str().unwrap(),
            "-map",
            &format!("0:{kind}?"),
            "-c",
            "copy",
            "-f",
            "streamhash",
            "-",
        ],
    );
    // Streams are numbered from 0 here whatever else the file holds.
    text
}

/// Presentation times in seconds as exact fractions, by ffprobe.
pub(crate) fn times(path: &Path, stream: &str) -> Vec<(i64, i64)> {
    let path = path.to_str().unwrap();
    let base = run(
        "ffprobe",
        &[
            "-v",
            "error",
            "-select_streams",
            stream,
            "-show_entries",
            "stream=time_base",
            "-of",
            "csv=p=0",
            path,
        ],
    );
    // Of a transport stream it is told twice, for its program, too.
    let (num, den) = base.lines().next().unwrap().trim().split_once('/').unwrap();
    let (num, den): (i64, i64) = (num.parse().unwrap(), den.trim_end_matches(',').parse().unwrap());
    let list = run(
        "ffprobe",
        &["-v", "error", "-select_streams", stream, "-show_entries", "frame=pts", "-of", "csv=p=0", path],
    );
    let reduced = |pts: i64| {
        let (mut a, mut b) = ((pts * num).abs(), den);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        (pts * num / a.max(1), den / a.max(1))
    };
    list.lines().filter_map(|l| l.trim_end_matches(',').parse().ok()).map(reduced).collect()
}

/// PSNR over all planes between two clips, by ffmpeg; infinite if equal.
pub(crate) fn psnr(a: &Path, b: &Path) -> f64 {
    let output = Command::new("ffmpeg")
        .args([
            "-i",
            a.to_str().unwrap(),
            "-i",
            b.to_str().unwrap(),
            "-lavfi",
            "[0:v]settb=AVTB,setpts=N[a];[1:v]settb=AVTB,setpts=N[b];[a][b]psnr",
            "-f",
            "null",
            "-",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let at = text.rfind("average:").unwrap_or_else(|| panic!("{text}"));
    let value = text[at + 8..].split_whitespace().next().unwrap();
    if value == "inf" { f64::INFINITY } else { value.parse().unwrap() }
}

pub(crate) const TEST: &str = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=1";

pub(crate) const SOUND: &str = "-f lavfi -i sine=frequency=440:sample_rate=44100:duration=1";

/// Largest difference of any colour of any frame.
pub(crate) fn worst(a: &Path, b: &Path) -> f32 {
    let open = |p| Reader::open(p, ReadOptions::default()).unwrap();
    let (mut a, mut b, mut worst) = (open(a), open(b), 0f32);
    while let Some(x) = a.next_frame().unwrap() {
        let y = b.next_frame().unwrap().unwrap();
        worst = x.picture.rgb.iter().zip(&y.picture.rgb).map(|(x, y)| (x - y).abs()).fold(worst, f32::max);
    }
    assert!(b.next_frame().unwrap().is_none());
    worst
}
