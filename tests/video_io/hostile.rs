//! Files that are no clips, or odd ones.

use std::fs;
use std::path::Path;
use std::process::Command;

use gen3d::video::io::{Codec, stamps};

use crate::common::*;

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
    let words = at("words.srt");
    fs::write(&words, "1\n00:00:00,100 --> 00:00:00,600\nHello\n").unwrap();
    make(&at("words.mkv"), &format!("-i {} -c:s srt", words.display()));
    refused(&at("words.mkv"), "no video stream");
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

/// The same through the commands that edit: an error with its code and no trace, or an output.
#[test]
fn the_commands_refuse_what_is_no_clip() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("empty.mp4"), "").unwrap();
    fs::write(at("text.mp4"), "This is no clip.\n".repeat(100)).unwrap();
    make(&at("sound.m4a"), &format!("{SOUND} -c:a aac"));
    make(&at("none.mkv"), &format!("{TEST} -frames:v 0 -c:v ffv1"));
    let whole = make(&at("whole.mp4"), &format!("{TEST} -c:v libx264 -preset ultrafast -pix_fmt yuv420p"));
    let bytes = fs::read(&whole).unwrap();
    fs::write(at("cut.mp4"), &bytes[..bytes.len() / 2]).unwrap();
    let before = fs::read_dir(dir.path()).unwrap().count();
    for name in ["empty.mp4", "text.mp4", "sound.m4a", "none.mkv", "cut.mp4", "missing.mp4"] {
        for command in ["interpolate", "edit --source car --prompt horse"] {
            let output = Command::new(env!("CARGO_BIN_EXE_gen3d"))
                .current_dir(dir.path())
                .args(command.split_whitespace())
                .args([name, "--out", "out.mkv", "-q"])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && text.contains(name), "{command} {name}: {text}");
            assert!(!text.contains("panicked"), "{text}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before, "{command} {name} left something");
        }
    }
}

#[test]
fn one_pixel_and_one_frame_go_through_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    make(
        &at("pixel.mkv"),
        "-f lavfi -i testsrc=size=16x16:rate=10:duration=0.3,scale=1:1 -c:v ffv1 -pix_fmt bgr0",
    );
    make(&at("one.mkv"), "-f lavfi -i testsrc2=size=40x24:rate=10:duration=0.1 -c:v ffv1 -pix_fmt bgr0");
    let edit = "edit --source car --prompt horse --kind style --steps 1 --set inversion.refinements=0";
    for (command, input, frames) in [
        ("interpolate", "pixel.mkv", 5),
        ("interpolate", "one.mkv", 1),
        (edit, "pixel.mkv", 3),
        (edit, "one.mkv", 1),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_gen3d"))
            .current_dir(dir.path())
            .args(command.split_whitespace())
            .args([input, "--out", "out.mkv", "--codec", "ffv1", "-q"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{command} {input}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(stamps(&at("out.mkv")).unwrap().1.len(), frames, "{command} {input}");
    }
}
