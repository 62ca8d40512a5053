//! Clips in and out: what an edit that changes nothing must leave as it was, and hostile files.
//!
//! The clips are made by the `ffmpeg` program, which is also the judge: it decodes what is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gen3d::video::io::{
    Codec, Damage, Encoding, Flow, Info, Picture, ReadOptions, Reader, Written, stamps, transcode,
};
use gen3d::{Error, Result};

/// Runs a program and returns its stdout; it must succeed.
#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes a clip: inputs and options before the name.
#[track_caller]
fn make(path: &Path, args: &str) -> PathBuf {
    let mut all = vec!["-v", "error", "-y", "-bitexact"];
    all.extend(args.split_whitespace());
    all.push(path.to_str().unwrap());
    run("ffmpeg", &all);
    path.to_owned()
}

fn identity(input: &Path, output: &Path, encoding: &Encoding) -> Result<(Info, Damage, Written)> {
    let mut same = |_, picture| Ok(picture);
    transcode(input, output, ReadOptions::default(), encoding, &mut same, &mut |_| Flow::Continue)
}

fn with(codec: Codec) -> Encoding {
    Encoding { codec, ..Encoding::default() }
}

fn near_lossless() -> Encoding {
    Encoding { crf: Some(10.0), preset: Some("veryfast".into()), ..Encoding::default() }
}

/// MD5 of all raw frames as ffmpeg decodes them (turned for display).
fn frames_md5(path: &Path, pixels: &str) -> String {
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
fn packet_hashes(path: &Path, kind: &str) -> String {
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
fn times(path: &Path, stream: &str) -> Vec<(i64, i64)> {
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
fn psnr(a: &Path, b: &Path) -> f64 {
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

const TEST: &str = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=1";
const SOUND: &str = "-f lavfi -i sine=frequency=440:sample_rate=44100:duration=1";

#[test]
fn everything_but_the_picture_is_copied_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a.srt"), "1\n00:00:00,100 --> 00:00:00,600\nHello\n").unwrap();
    fs::write(at("meta.txt"), ";FFMETADATA1\ntitle=A clip\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=one\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=500\nEND=1000\ntitle=two\n").unwrap();
    let inputs = format!(
        "{TEST} {SOUND} -f lavfi -i sine=frequency=880:duration=1 -i {} -i {} -map 0:v -map 1:a -map 2:a -map 3:s -map_metadata 4 -map_chapters 4 -metadata:s:a:1 language=deu -c:v libx264 -preset ultrafast -pix_fmt yuv420p",
        at("a.srt").display(),
        at("meta.txt").display()
    );
    for (name, codecs) in
        [("a.mp4", "-c:a aac -c:s mov_text"), ("a.mkv", "-c:a:0 libopus -c:a:1 flac -c:s srt")]
    {
        let source = make(&at(name), &format!("{inputs} {codecs}"));
        let before = fs::read(&source).unwrap();
        let out = at(&format!("out-{name}"));
        let (_, damage, written) = identity(&source, &out, &near_lossless()).unwrap();
        assert_eq!((damage, written.frames, written.left_out.len()), (Damage::default(), 25, 0));
        for kind in ["a", "s"] {
            let hashes = packet_hashes(&source, kind);
            assert_eq!(hashes.lines().count(), if kind == "a" { 2 } else { 1 });
            assert_eq!(packet_hashes(&out, kind), hashes, "{name} {kind}");
        }
        for stream in ["v:0", "a:0", "a:1"] {
            assert_eq!(times(&out, stream), times(&source, stream), "{name} {stream}");
        }
        let described = |p: &Path| {
            run(
                "ffprobe",
                &[
                    "-v",
                    "error",
                    "-show_entries",
                    "format_tags=title:stream_tags=language:chapter=start_time,end_time:chapter_tags=title",
                    "-of",
                    "csv",
                    p.to_str().unwrap(),
                ],
            )
        };
        assert_eq!(described(&out), described(&source));
        assert!(described(&out).contains("two") && described(&out).contains("deu"));
        assert_eq!(fs::read(&source).unwrap(), before, "the source is never touched");
        assert!(psnr(&source, &out) > 45.0, "{}", psnr(&source, &out));
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(!left.iter().any(|f| f.to_string_lossy().starts_with(".gen3d")), "{left:?}");
}

/// Largest difference of any colour of any frame.
fn worst(a: &Path, b: &Path) -> f32 {
    let open = |p| Reader::open(p, ReadOptions::default()).unwrap();
    let (mut a, mut b, mut worst) = (open(a), open(b), 0f32);
    while let Some(x) = a.next_frame().unwrap() {
        let y = b.next_frame().unwrap().unwrap();
        worst = x.picture.rgb.iter().zip(&y.picture.rgb).map(|(x, y)| (x - y).abs()).fold(worst, f32::max);
    }
    assert!(b.next_frame().unwrap().is_none());
    worst
}

#[test]
fn without_loss_every_code_is_the_sources() {
    let dir = tempfile::tempdir().unwrap();
    let clips = [
        ("420.mkv", "yuv420p", "-c:v ffv1 -pix_fmt yuv420p -color_range tv -colorspace bt709"),
        ("422-10.mkv", "yuv422p10le", "-c:v ffv1 -pix_fmt yuv422p10le -colorspace smpte170m"),
        ("full.mkv", "yuvj420p", "-c:v libx264 -preset ultrafast -pix_fmt yuvj420p"),
        (
            "2020.mkv",
            "yuv420p10le",
            "-c:v libx265 -x265-params log-level=none -preset ultrafast -pix_fmt yuv420p10le -colorspace bt2020nc -color_primaries bt2020 -color_trc bt2020-10",
        ),
        ("vp9.webm", "yuv420p", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
        ("av1.mp4", "yuv420p", "-c:v libsvtav1 -preset 13 -pix_fmt yuv420p"),
        ("prores.mov", "yuv422p10le", "-c:v prores_ks"),
        ("prores4.mov", "yuva444p12le", "-c:v prores_ks -pix_fmt yuva444p10le"),
        ("a.gif", "bgra", ""),
        ("rgb.mkv", "bgr0", "-c:v ffv1 -pix_fmt bgr0"),
        ("gray.mkv", "gray", "-c:v ffv1 -pix_fmt gray"),
        ("mjpeg.mov", "yuvj422p", "-c:v mjpeg -pix_fmt yuvj422p -q:v 3"),
    ];
    for (name, pixels, options) in clips {
        let source = make(
            &dir.path().join(name),
            &format!("-f lavfi -i testsrc2=size=96x66:rate=10:duration=0.5 {options}"),
        );
        let out = dir.path().join(format!("{name}.out.mkv"));
        let (info, ..) =
            identity(&source, &out, &with(Codec::Ffv1)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(info.size, (96, 66));
        assert_eq!(info.pixel_format, pixels, "{name}");
        if pixels == "yuva444p12le" {
            // FFV1 has no such format; in 16 bit every code is 16 times what it was.
            assert!(worst(&source, &out) < 1e-6, "{name}");
        } else {
            assert_eq!(frames_md5(&out, pixels), frames_md5(&source, pixels), "{name}");
        }
        let tags = |p: &Path| {
            run(
                "ffprobe",
                &[
                    "-v",
                    "error",
                    "-select_streams",
                    "v",
                    "-show_entries",
                    "stream=color_space,color_primaries,color_transfer",
                    "-of",
                    "csv=p=0",
                    p.to_str().unwrap(),
                ],
            )
        };
        if !["a.gif", "rgb.mkv"].contains(&name) {
            assert_eq!(tags(&out), tags(&source), "{name}");
        }
    }
}

#[test]
fn odd_sizes_keep_their_size() {
    let dir = tempfile::tempdir().unwrap();
    let source = make(
        &dir.path().join("a.mkv"),
        "-f lavfi -i testsrc=size=97x53:rate=10:duration=0.5 -c:v ffv1 -pix_fmt yuv420p",
    );
    let out = dir.path().join("b.mkv");
    identity(&source, &out, &with(Codec::Ffv1)).unwrap();
    assert_eq!(frames_md5(&out, "yuv420p"), frames_md5(&source, "yuv420p"));
    let out = dir.path().join("b.mp4");
    identity(&source, &out, &near_lossless()).unwrap();
    let (info, _) = (Reader::open(&out, ReadOptions::default()).unwrap().info().clone(), ());
    assert_eq!((info.size, info.pixel_format.as_str()), ((97, 53), "yuv444p"));
    let one = make(
        &dir.path().join("1.mkv"),
        "-f lavfi -i testsrc=size=16x16:rate=10:duration=0.5,scale=1:1 -c:v ffv1 -pix_fmt yuv444p",
    );
    let out = dir.path().join("1.mp4");
    identity(&one, &out, &near_lossless()).unwrap();
    assert_eq!(times(&out, "v:0"), times(&one, "v:0"));
}

/// A matrix that turns the picture by `degrees` clockwise, written over the one in the file's header.
fn turn(source: &Path, degrees: i32, to: &Path) {
    let mut bytes = fs::read(source).unwrap();
    let one = 0x1_0000i32;
    let (a, b, c, d) = match degrees {
        90 => (0, one, -one, 0),
        180 => (-one, 0, 0, -one),
        270 => (0, -one, one, 0),
        _ => (one, 0, 0, one),
    };
    // tkhd of the video track is the first; its matrix starts 40 bytes into the body.
    let at = bytes.windows(4).position(|w| w == b"tkhd").unwrap() + 4 + 40;
    for (i, value) in [a, b, 0, c, d, 0, 0, 0, 1 << 30].into_iter().enumerate() {
        bytes[at + 4 * i..at + 4 * i + 4].copy_from_slice(&value.to_be_bytes());
    }
    fs::write(to, bytes).unwrap();
}

#[test]
fn rotation_is_applied_and_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let upright = make(
        &dir.path().join("a.mp4"),
        &format!("{TEST} -t 0.2 -c:v libx264 -preset ultrafast -pix_fmt yuv444p"),
    );
    for degrees in [0, 90, 180, 270] {
        let source = dir.path().join(format!("{degrees}.mp4"));
        turn(&upright, degrees, &source);
        let out = dir.path().join(format!("{degrees}.mkv"));
        let (info, ..) = identity(&source, &out, &with(Codec::Ffv1)).unwrap();
        assert_eq!(info.size, if degrees % 180 == 0 { (160, 120) } else { (120, 160) });
        // ffmpeg turns the source by its matrix; the output has none and must look the same.
        assert_eq!(frames_md5(&out, "yuv444p"), frames_md5(&source, "yuv444p"), "{degrees}");
        let matrix = run("ffprobe", &["-v", "error", "-show_streams", out.to_str().unwrap()]);
        assert!(!matrix.contains("displaymatrix"), "{matrix}");
        if degrees != 0 {
            assert_ne!(frames_md5(&out, "yuv444p"), frames_md5(&upright, "yuv444p"));
        }
    }
}

#[test]
fn times_are_kept_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let x264 = "-c:v libx264 -preset ultrafast -bf 2 -pix_fmt yuv420p";
    let clips = [
        ("cfr.mp4", format!("{TEST} {SOUND} {x264} -c:a aac")),
        ("film.mp4", format!("-f lavfi -i testsrc2=size=64x48:rate=24000/1001:duration=1 {x264}")),
        ("film.mkv", format!("-f lavfi -i testsrc2=size=64x48:rate=24000/1001:duration=1 {x264}")),
        ("vfr.mp4", format!("{TEST} -vf select='not(mod(n,3))+not(mod(n,7))' -fps_mode vfr {x264}")),
        ("vfr.mkv", format!("{TEST} -vf select='not(mod(n,3))+not(mod(n,7))' -fps_mode vfr {x264}")),
        ("late.mp4", format!("{TEST} {SOUND} -vf setpts=PTS+0.7/TB {x264} -c:a aac")),
        ("early.mp4", format!("{TEST} {SOUND} -af asetpts=PTS+0.5/TB {x264} -c:a aac")),
        ("negative.nut", format!("{TEST} -vf setpts=PTS-0.4/TB -avoid_negative_ts disabled {x264}")),
        ("ts.ts", format!("{TEST} {SOUND} {x264} -c:a aac")),
    ];
    for (name, options) in clips {
        let source = make(&dir.path().join(name), &options);
        let out = dir.path().join(format!("out-{name}"));
        let (_, damage, _) =
            identity(&source, &out, &near_lossless()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(damage, Damage::default(), "{name}");
        let expected = times(&source, "v:0");
        assert!(expected.len() > 9, "{name}: {expected:?}");
        assert_eq!(times(&out, "v:0"), expected, "{name}");
        if options.contains("aac") {
            assert_eq!(times(&out, "a:0"), times(&source, "a:0"), "{name}");
            assert_eq!(packet_hashes(&out, "a"), packet_hashes(&source, "a"), "{name}");
        }
        // The last frame lasts as long, too.
        let (last, kept) = (stamps(&source).unwrap(), stamps(&out).unwrap());
        let seconds = |(base, all): &(gen3d::video::io::Ratio, Vec<gen3d::video::io::Stamp>)| {
            all.last().unwrap().duration as f64 * base.value()
        };
        assert!(
            (seconds(&last) - seconds(&kept)).abs() < 2e-3,
            "{name}: {} {}",
            seconds(&last),
            seconds(&kept)
        );
    }
}

#[test]
fn an_edit_list_is_honoured_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let whole = make(
        &dir.path().join("a.mp4"),
        &format!("{TEST} {SOUND} -c:v libx264 -g 25 -bf 0 -preset ultrafast -pix_fmt yuv420p -c:a aac"),
    );
    // A cut without a key frame at its start: an edit list hides the frames before.
    let source = dir.path().join("cut.mp4");
    run(
        "ffmpeg",
        &["-v", "error", "-ss", "0.4", "-i", whole.to_str().unwrap(), "-c", "copy", source.to_str().unwrap()],
    );
    let shown = times(&source, "v:0");
    assert_eq!(shown.len(), 15, "ten of 25 frames are hidden");
    let out = dir.path().join("out.mp4");
    identity(&source, &out, &near_lossless()).unwrap();
    assert_eq!(times(&out, "v:0"), shown);
    assert_eq!(times(&out, "a:0"), times(&source, "a:0"));
    assert!(psnr(&source, &out) > 45.0);
}

#[test]
fn ten_generations_do_not_drift() {
    let dir = tempfile::tempdir().unwrap();
    let first = make(
        &dir.path().join("0.mp4"),
        "-f lavfi -i testsrc2=size=128x96:rate=10:duration=0.5 -c:v libx264 -crf 10 -pix_fmt yuv420p",
    );
    let mut source = first.clone();
    for generation in 1..=10 {
        let out = dir.path().join(format!("{generation}.mp4"));
        identity(&source, &out, &near_lossless()).unwrap();
        source = out;
    }
    assert!(psnr(&first, &source) > 40.0, "{}", psnr(&first, &source));
    let mean = |path: &Path| {
        let (mut reader, mut sums, mut n) =
            (Reader::open(path, ReadOptions::default()).unwrap(), [0.0; 3], 0.0);
        while let Some(frame) = reader.next_frame().unwrap() {
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum += frame.picture.plane(c).iter().map(|v| f64::from(*v)).sum::<f64>();
            }
            n += (frame.picture.width * frame.picture.height) as f64;
        }
        sums.map(|s| s / n)
    };
    let (was, is) = (mean(&first), mean(&source));
    for c in 0..3 {
        // A fifth of a step of 8 bit.
        assert!((was[c] - is[c]).abs() < 0.2 / 255.0, "{was:?} {is:?}");
    }
}

#[test]
fn every_encoder() {
    let dir = tempfile::tempdir().unwrap();
    let source = make(
        &dir.path().join("a.mp4"),
        &format!("{TEST} {SOUND} -t 0.4 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac"),
    );
    for (codec, name, floor) in [
        (Codec::X264, "x.mp4", 30.0),
        (Codec::X265, "x5.mp4", 30.0),
        // ProRes at its standard profile.
        (Codec::Prores, "p.mov", 35.0),
        (Codec::Ffv1, "f.mkv", f64::INFINITY),
        (Codec::SvtAv1, "s.mp4", 28.0),
    ] {
        let out = dir.path().join(name);
        let (_, _, written) = identity(&source, &out, &with(codec)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(written.frames, 10);
        assert!(psnr(&source, &out) >= floor, "{name}: {}", psnr(&source, &out));
        assert_eq!(times(&out, "v:0"), times(&source, "v:0"), "{name}");
        assert_eq!(packet_hashes(&out, "a"), packet_hashes(&source, "a"), "{name}");
    }
    let pictures = dir.path().join("pictures");
    identity(&source, &pictures, &with(Codec::Png)).unwrap();
    assert_eq!(fs::read_to_string(pictures.join("times.csv")).unwrap().lines().count(), 11);
    // And the folder as a clip again.
    let (info, _, written) = identity(&pictures, &dir.path().join("again.mkv"), &with(Codec::Ffv1)).unwrap();
    assert_eq!((info.size, written.frames), ((160, 120), 10));
}

#[test]
fn transparency_is_carried_or_its_loss_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let source = make(
        &dir.path().join("a.mov"),
        "-f lavfi -i color=red@0.5:size=64x48:rate=10:duration=0.3,format=yuva444p10le -c:v prores_ks -pix_fmt yuva444p10le",
    );
    let first = |path: &Path| {
        Reader::open(path, ReadOptions::default()).unwrap().next_frame().unwrap().unwrap().picture
    };
    let alpha = |p: &Picture| p.alpha.as_ref().map(|a| a[100]);
    let was = alpha(&first(&source)).unwrap();
    assert!((was - 0.5).abs() < 0.01);
    let kept = dir.path().join("b.mov");
    assert!(identity(&source, &kept, &with(Codec::Prores)).unwrap().2.left_out.is_empty());
    assert!((alpha(&first(&kept)).unwrap() - was).abs() < 2e-3);
    let flat = dir.path().join("b.mp4");
    let (.., written) =
        identity(&source, &flat, &Encoding { background: [0.0, 0.0, 1.0], ..near_lossless() }).unwrap();
    assert!(written.left_out[0].contains("transparency"));
    let picture = first(&flat);
    assert_eq!(alpha(&picture), None);
    assert!((picture.plane(2)[100] - 0.5).abs() < 0.03 && (picture.plane(0)[100] - 0.5).abs() < 0.03);
}

#[test]
fn high_dynamic_range_is_refused_or_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let hdr = "-color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc";
    let source = make(
        &dir.path().join("a.mp4"),
        &format!(
            "{TEST} -t 0.2 -c:v libx265 -x265-params log-level=none -preset ultrafast -pix_fmt yuv420p10le {hdr}"
        ),
    );
    let out = dir.path().join("b.mp4");
    let error = identity(&source, &out, &near_lossless()).unwrap_err();
    assert!(
        error.to_string().contains("high dynamic range") && error.hint_text().unwrap().contains("--tonemap")
    );
    assert!(!out.exists());
    let mut same = |_, picture| Ok(picture);
    transcode(&source, &out, ReadOptions { tonemap: true }, &near_lossless(), &mut same, &mut |_| {
        Flow::Continue
    })
    .unwrap();
    let mut reader = Reader::open(&out, ReadOptions::default()).unwrap();
    assert!(reader.next_frame().unwrap().is_some() && !reader.info().tags.is_hdr());
}

/// The error's text; nothing may be left behind but the source.
#[track_caller]
fn refused(source: &Path, part: &str) {
    let before = fs::read_dir(source.parent().unwrap()).unwrap().count();
    let out = source.with_extension("out.mkv");
    let error = identity(source, &out, &with(Codec::Ffv1)).unwrap_err();
    assert!(error.to_string().contains(part), "`{part}` is not in: {error}");
    assert_eq!(fs::read_dir(source.parent().unwrap()).unwrap().count(), before, "something was left behind");
}

#[test]
fn hostile_files_are_refused_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    refused(&at("missing.mp4"), "No such file");
    fs::write(at("empty.mp4"), "").unwrap();
    refused(&at("empty.mp4"), "empty");
    fs::write(at("text.mp4"), "This is no clip.\n".repeat(100)).unwrap();
    refused(&at("text.mp4"), "text.mp4");
    let whole = make(
        &at("whole.mp4"),
        &format!("{TEST} {SOUND} -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac"),
    );
    let bytes = fs::read(&whole).unwrap();
    fs::write(at("cut.mp4"), &bytes[..bytes.len() / 2]).unwrap();
    refused(&at("cut.mp4"), "cut off");
    make(&at("sound.m4a"), &format!("{SOUND} -c:a aac"));
    refused(&at("sound.m4a"), "no video stream");
    fs::write(
        at("noise.mp4"),
        (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    refused(&at("noise.mp4"), "noise.mp4");
    fs::create_dir(at("folder")).unwrap();
    refused(&at("folder"), "no pictures");
    let none = make(&at("none.mkv"), &format!("{TEST} -frames:v 0 -c:v ffv1"));
    refused(&none, "none.mkv");
    // Two sizes in one stream.
    make(
        &at("1.ts"),
        "-f lavfi -i testsrc2=size=64x48:rate=25:duration=0.4 -c:v libx264 -preset ultrafast -pix_fmt yuv420p",
    );
    make(
        &at("2.ts"),
        "-f lavfi -i testsrc2=size=96x64:rate=25:duration=0.4 -c:v libx264 -preset ultrafast -pix_fmt yuv420p",
    );
    fs::write(at("two.ts"), [fs::read(at("1.ts")).unwrap(), fs::read(at("2.ts")).unwrap()].concat()).unwrap();
    refused(&at("two.ts"), "changes from 64x48 to 96x64");
    // The output is the source, under another name.
    fs::hard_link(&whole, at("link.mp4")).unwrap();
    let error = identity(&whole, &at("link.mp4"), &near_lossless()).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("it is the source"), "{error}");
    assert_eq!(fs::read(&whole).unwrap(), bytes);
}

#[test]
fn odd_but_readable_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // One frame.
    let one = make(&at("one.mp4"), &format!("{TEST} -frames:v 1 -c:v libx264 -pix_fmt yuv420p"));
    assert_eq!(identity(&one, &at("one-out.mp4"), &near_lossless()).unwrap().2.frames, 1);
    assert_eq!(stamps(&at("one-out.mp4")).unwrap().1.len(), 1);
    // A wrong ending.
    let mkv = make(&at("a.mkv"), &format!("{TEST} -c:v ffv1"));
    fs::rename(&mkv, at("a.avi")).unwrap();
    assert_eq!(identity(&at("a.avi"), &at("a.mkv"), &with(Codec::Ffv1)).unwrap().2.frames, 25);
    // A name with a colon and with a percent sign, which are a protocol's and a pattern's elsewhere.
    for name in ["http:x.mkv", "100%d.mkv", "ä b.mkv"] {
        fs::rename(at("a.mkv"), at(name)).unwrap();
        assert_eq!(identity(&at(name), &at("a.mkv"), &with(Codec::Ffv1)).unwrap().2.frames, 25, "{name}");
    }
    // Cut off behind its index: what is there, and a remark.
    let whole = make(
        &at("fast.mp4"),
        &format!(
            "{TEST} {SOUND} -c:v libx264 -preset ultrafast -g 5 -pix_fmt yuv420p -c:a aac -movflags +faststart"
        ),
    );
    let bytes = fs::read(&whole).unwrap();
    fs::write(at("cut.mp4"), &bytes[..bytes.len() * 2 / 3]).unwrap();
    let (_, damage, written) = identity(&at("cut.mp4"), &at("cut-out.mp4"), &near_lossless()).unwrap();
    assert!(damage.cut_off && (5..25).contains(&written.frames), "{damage:?} {written:?}");
    // Raw H.264 has no times at all.
    let raw = make(&at("raw.h264"), &format!("{TEST} -c:v libx264 -preset ultrafast -pix_fmt yuv420p"));
    assert_eq!(identity(&raw, &at("raw.mp4"), &near_lossless()).unwrap().2.frames, 25);
    let expected: Vec<_> = (0..25).map(|i| i as f64 / 25.0).collect();
    let (first, shown) = (times(&at("raw.mp4"), "v:0")[0], times(&at("raw.mp4"), "v:0"));
    let seconds = |(n, d): (i64, i64)| n as f64 / d as f64;
    for (time, expected) in shown.iter().zip(expected) {
        assert!((seconds(*time) - seconds(first) - expected).abs() < 1e-9, "{shown:?}");
    }
    // Very wide.
    let wide = make(
        &at("wide.mkv"),
        "-f lavfi -i testsrc2=size=10000x16:rate=10:duration=0.2 -c:v ffv1 -pix_fmt yuv420p",
    );
    identity(&wide, &at("wide-out.mkv"), &with(Codec::Ffv1)).unwrap();
    assert_eq!(frames_md5(&at("wide-out.mkv"), "yuv420p"), frames_md5(&wide, "yuv420p"));
}

#[test]
fn a_stream_that_cannot_be_carried_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let subtitles = dir.path().join("a.srt");
    fs::write(&subtitles, "1\n00:00:00,100 --> 00:00:00,600\nHello\n").unwrap();
    let source = make(
        &dir.path().join("a.mkv"),
        &format!(
            "{TEST} -i {} -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:s srt",
            subtitles.display()
        ),
    );
    let out = dir.path().join("a.mp4");
    let error = identity(&source, &out, &near_lossless()).unwrap_err();
    assert!(error.to_string().contains("subtitles (subrip)"), "{error}");
    assert!(error.hint_text().unwrap().contains(".mkv") && !out.exists());
    let (.., written) =
        identity(&source, &out, &Encoding { drop_uncopyable: true, ..near_lossless() }).unwrap();
    assert!(written.left_out[0].contains("subtitles"));
}

#[test]
fn an_edit_that_fails_or_is_stopped_leaves_the_old_output() {
    let dir = tempfile::tempdir().unwrap();
    let source =
        make(&dir.path().join("a.mp4"), &format!("{TEST} -c:v libx264 -preset ultrafast -pix_fmt yuv420p"));
    let out = dir.path().join("b.mp4");
    fs::write(&out, "old").unwrap();
    let mut failing = |i, picture| if i == 7 { Err(Error::Failed("no".into())) } else { Ok(picture) };
    assert!(
        transcode(&source, &out, ReadOptions::default(), &near_lossless(), &mut failing, &mut |_| {
            Flow::Continue
        })
        .is_err()
    );
    let mut same = |_, picture| Ok(picture);
    let mut stop = |p: gen3d::video::io::Progress| if p.done == 9 { Flow::Stop } else { Flow::Continue };
    let stopped = transcode(&source, &out, ReadOptions::default(), &near_lossless(), &mut same, &mut stop);
    assert!(matches!(stopped, Err(Error::Interrupted)));
    assert_eq!(fs::read_to_string(&out).unwrap(), "old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn matrix_and_range_are_read_from_the_clip() {
    let dir = tempfile::tempdir().unwrap();
    let colors = [
        ("red", [1.0, 0.0, 0.0]),
        ("0x20c060", [0x20 as f32 / 255.0, 0xc0 as f32 / 255.0, 0x60 as f32 / 255.0]),
    ];
    for (matrix, tag) in [("bt601", "smpte170m"), ("bt709", "bt709"), ("bt2020", "bt2020nc")] {
        for (range, pixels) in [("tv", "yuv420p"), ("pc", "yuv444p10le")] {
            for (name, rgb) in colors {
                let options = format!(
                    "-f lavfi -i color={name}:size=32x16:rate=10:duration=0.2,format=gbrp,scale=out_color_matrix={matrix}:out_range={range},format={pixels} -c:v ffv1 -colorspace {tag} -color_range {range}"
                );
                let clip = make(&dir.path().join("a.mkv"), &options);
                let mut reader = Reader::open(&clip, ReadOptions::default()).unwrap();
                let picture = reader.next_frame().unwrap().unwrap().picture;
                for (c, expected) in rgb.into_iter().enumerate() {
                    let got = picture.plane(c)[200];
                    // One step of 8-bit Y'CbCr and swscale's own rounding.
                    assert!(
                        (got - expected).abs() < 2.5 / 255.0,
                        "{matrix} {range} {name}: {got} {expected}"
                    );
                }
            }
        }
    }
}
