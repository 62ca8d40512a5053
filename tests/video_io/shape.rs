//! Sizes and turns.

use std::fs;
use std::path::Path;

use gen3d::video::io::{Codec, ReadOptions, Reader};

use crate::common::*;

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
