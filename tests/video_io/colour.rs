//! Codes, colours, encoders, transparency.

use std::fs;
use std::path::Path;

use gen3d::video::io::{Codec, Encoding, Flow, Picture, ReadOptions, Reader, transcode};

use crate::common::*;

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
