//! What is not the picture is copied; times, rotation and sizes are kept.

use std::fs;
use std::path::Path;

use gen3d::Error;
use gen3d::video::io::{Damage, Encoding, Flow, ReadOptions, stamps, transcode};

use crate::common::*;

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
