//! Edits of clips from outside: the frame around an editor, kill and resume, batches, the command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use assert_cmd::cargo::cargo_bin;
use gen3d::video::editor::{FrameEditor, Listener, PerFrame, Request, Step};
use gen3d::video::fit::Policy;
use gen3d::video::io::{Codec, Encoding, Flow, Picture, ReadOptions, Reader};
use gen3d::video::job::{Job, Stage, Update};
use gen3d::video::metrics::compare;
use gen3d::{Error, Result};

#[track_caller]
fn make(path: &Path, args: &str) -> PathBuf {
    let mut all = vec!["-v", "error", "-y", "-bitexact"];
    all.extend(args.split_whitespace());
    all.push(path.to_str().unwrap());
    let output = Command::new("ffmpeg").args(&all).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path.to_owned()
}

const CLIP: &str = "-f lavfi -i testsrc2=size=90x62:rate=10:duration=1 -c:v ffv1 -pix_fmt yuv444p";

fn job(dir: &Path, input: &Path, resume: bool) -> Job {
    Job {
        input: input.to_owned(),
        output: dir.join("out.mkv"),
        reading: ReadOptions::default(),
        encoding: Encoding { codec: Codec::Ffv1, ..Encoding::default() },
        policy: Policy::Pad,
        short_side: Some(62),
        settings: "darker".into(),
        mask: None,
        preview: None,
        resume,
    }
}

fn darker(calls: &mut usize) -> PerFrame<impl FnMut(usize, Picture) -> Picture> {
    let function = |_, mut picture: Picture| {
        *calls += 1;
        picture.rgb.iter_mut().for_each(|v| *v *= 0.5);
        picture
    };
    PerFrame { factor: 8, short_side: 62, function }
}

fn pictures(path: &Path) -> Vec<Picture> {
    let mut reader = Reader::open(path, ReadOptions::default()).unwrap();
    std::iter::from_fn(|| reader.next_frame().unwrap().map(|f| f.picture)).collect()
}

/// Runs a job that stops at a stage's share.
fn stopped(job: &Job, calls: &mut usize, at: (Stage, f64)) -> Result<()> {
    let mut listener = |u: Update| {
        if u.stage == at.0 && u.share.is_some_and(|s| s >= at.1) { Flow::Stop } else { Flow::Continue }
    };
    job.run(Some(&mut darker(calls)), &mut listener).map(|_| ())
}

#[test]
fn an_edit_reaches_the_clip_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let input = make(&dir.path().join("in.mkv"), CLIP);
    let job = job(dir.path(), &input, false);
    let mut calls = 0;
    job.run(Some(&mut darker(&mut calls)), &mut |_| Flow::Continue).unwrap();
    assert_eq!(calls, 10);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    for (before, after) in pictures(&input).iter().zip(&pictures(&job.output)) {
        let worst = before
            .rgb
            .iter()
            .zip(&after.rgb)
            .map(|(a, b)| (0.5 * a.clamp(0.0, 1.0) - b).abs())
            .fold(0.0, f32::max);
        // Half a step of 8-bit luma and of Cb, which blue takes 1.772 times, and of the store.
        let bound = 0.5 / 219.0 + 1.772 * 0.5 / 224.0 + 0.5 / 65535.0;
        assert!(worst < bound + 1e-5, "{worst} {bound}");
    }
    // Scaled for the model: what the model sees is half as large, what comes out is whole.
    let small = Job { short_side: Some(32), ..job };
    small.run(Some(&mut darker(&mut calls)), &mut |_| Flow::Continue).unwrap();
    let after = pictures(&small.output);
    assert_eq!((after.len(), after[0].width, after[0].height), (10, 90, 62));
    let mean = |p: &Picture| p.rgb.iter().map(|v| f64::from(*v)).sum::<f64>() / p.rgb.len() as f64;
    assert!((mean(&after[3]) - 0.5 * mean(&pictures(&input)[3])).abs() < 0.01);
}

#[test]
fn a_stopped_edit_goes_on_and_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let input = make(&dir.path().join("in.mkv"), CLIP);
    let whole = job(dir.path(), &input, false);
    whole.run(Some(&mut darker(&mut 0)), &mut |_| Flow::Continue).unwrap();
    let expected = pictures(&whole.output);
    fs::remove_file(&whole.output).unwrap();
    for at in [(Stage::Read, 0.4), (Stage::Edit, 0.5), (Stage::Write, 0.3)] {
        let (mut first, mut second) = (0, 0);
        assert!(matches!(stopped(&whole, &mut first, at), Err(Error::Interrupted)));
        assert!(!whole.output.exists());
        let again = job(dir.path(), &input, true);
        // The same clip with other settings is another edit.
        if at.0 == Stage::Edit {
            let other = Job { settings: "lighter".into(), ..again.clone() };
            let error = other.run(Some(&mut darker(&mut 0)), &mut |_| Flow::Continue).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("other work"), "{error}");
        }
        again.run(Some(&mut darker(&mut second)), &mut |_| Flow::Continue).unwrap();
        assert_eq!(first + second, 10, "no frame is edited twice: {at:?}");
        assert_eq!(pictures(&whole.output), expected, "{at:?}");
        fs::remove_file(&whole.output).unwrap();
    }
}

#[test]
fn a_foreign_folder_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let input = make(&dir.path().join("in.mkv"), CLIP);
    fs::create_dir(dir.path().join("out.gen3d")).unwrap();
    fs::write(dir.path().join("out.gen3d/thesis.txt"), "x").unwrap();
    let error =
        job(dir.path(), &input, false).run(Some(&mut darker(&mut 0)), &mut |_| Flow::Continue).unwrap_err();
    assert!(error.is_usage() && dir.path().join("out.gen3d/thesis.txt").exists());
}

/// What an editor under a mask does: white there, the source elsewhere.
struct Painter;

impl FrameEditor for Painter {
    fn factor(&self) -> usize {
        8
    }

    fn short_side(&self) -> usize {
        62
    }

    fn edit(&mut self, request: &Request<'_>, listener: &mut Listener<'_>) -> Result<()> {
        for i in 0..request.frames {
            let mut picture = request.source.get(i)?;
            let mask = request.mask.expect("there is one").get(i)?;
            picture.rgb.iter_mut().zip(&mask.rgb).for_each(|(v, m)| *v = *v * (1.0 - m) + m);
            request.result.put(i, &picture)?;
            let (done, total) = (i + 1, request.frames);
            listener(Step { part: "paint", done, total, share: done as f64 / total as f64, until: 1.0 });
        }
        Ok(())
    }
}

#[test]
fn a_mask_is_fitted_in_size_and_time_and_a_preview_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let input = make(&dir.path().join("in.mkv"), CLIP);
    // Half the clip's size and a fifth of its rate: the left half for 5 frames, then the right one.
    let halves = "-f lavfi -i color=black:size=45x31:rate=2:duration=1,format=gray,geq=lum='if(lt(T,.4),lt(X,23),gte(X,22))*255' -c:v ffv1 -pix_fmt gray";
    let mask = make(&dir.path().join("mask.mkv"), halves);
    let preview = dir.path().join("preview.png");
    let job = Job { mask: Some(mask), preview: Some(preview.clone()), ..job(dir.path(), &input, false) };
    let mut told = Vec::new();
    let mut listener = |u: Update| {
        told.push(u.stage);
        Flow::Continue
    };
    job.run(Some(&mut Painter), &mut listener).unwrap();
    let first = told.iter().position(|s| *s == Stage::Preview).unwrap();
    assert_eq!(
        told[first + 1..].iter().filter(|s| **s == Stage::Edit).count(),
        10,
        "then it goes on: {told:?}"
    );
    let (was, is) = (pictures(&input), pictures(&job.output));
    let light = |p: &Picture, x: usize| (10..50).map(|y| p.plane(1)[y * 90 + x]).fold(1.0, f32::min);
    for (i, picture) in is.iter().enumerate() {
        let (left, right) = (light(picture, 12), light(picture, 78));
        let (lit, dark) = if i < 5 { (left, right) } else { (right, left) };
        let source = light(&was[i], if i < 5 { 78 } else { 12 }).max(0.0);
        assert!(lit > 0.98 && (dark.max(0.0) - source).abs() < 0.02, "frame {i}: {left} {right} {source}");
    }
    let shown = image::open(&preview).unwrap().to_rgb8();
    assert_eq!(shown.dimensions(), (90, 62));
    assert!(shown.get_pixel(12, 30).0[1] > 250);
    // One picture holds for the whole clip; what is no mask is refused before anything is edited.
    let still = dir.path().join("still.png");
    make(&still, "-f lavfi -i color=white:size=20x20 -frames:v 1");
    Job { mask: Some(still), preview: None, ..job.clone() }
        .run(Some(&mut Painter), &mut |_| Flow::Continue)
        .unwrap();
    assert!(pictures(&job.output).iter().all(|p| light(p, 45) > 0.98));
    let missing = Job { mask: Some(dir.path().join("none.png")), ..job };
    assert!(matches!(missing.run(Some(&mut Painter), &mut |_| Flow::Continue), Err(Error::Io { .. })));
}

fn gen3d(dir: &Path, args: &str) -> Output {
    Command::new(cargo_bin("gen3d")).current_dir(dir).args(args.split_whitespace()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_command_writes_an_identity_edit() {
    let dir = tempfile::tempdir().unwrap();
    make(&dir.path().join("in.mkv"), CLIP);
    let output = gen3d(dir.path(), "edit in.mkv --strength 0 --out out.mkv --codec ffv1 --json");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"event\":\"finished\""));
    assert!(stderr(&output).contains("10 frames"));
    assert_eq!(pictures(&dir.path().join("out.mkv")), pictures(&dir.path().join("in.mkv")));
    // And the judge finds it perfect.
    let output = gen3d(dir.path(), "eval video out.mkv --source in.mkv --window 4 --json scores.json");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let scores: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.path().join("scores.json")).unwrap()).unwrap();
    assert_eq!((scores["ssim"].as_f64(), scores["warp_error_ratio"].as_f64()), (Some(1.0), Some(1.0)));
    assert_eq!(scores["seam_ratio"], scores["seam_ratio_source"]);
    assert!(scores["prompt_consistency"].is_null());
    // With prompts, the encoder is asked too.
    let evaluator = concat!(env!("CARGO_MANIFEST_DIR"), "/models/evaluator");
    let told = "eval video out.mkv --source in.mkv --json told.json --prompt lantern --source-prompt robin";
    let output = gen3d(dir.path(), &format!("{told} --evaluator {evaluator}"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("frame consistency"));
    let told: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.path().join("told.json")).unwrap()).unwrap();
    for key in ["frame_consistency", "prompt_consistency"] {
        let (edit, source) = (told[key].as_f64().unwrap(), told[format!("{key}_source")].as_f64().unwrap());
        assert!(edit == source && edit.abs() < 1.0 + 1e-6, "{key}: {edit} {source}");
    }
    assert!((0.0..=1.0).contains(&told["frame_accuracy"].as_f64().unwrap()));
}

#[test]
fn wrong_arguments_cost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    make(&dir.path().join("in.mkv"), CLIP);
    for (args, parts) in [
        ("edit in.mkv --out out.mkv", ["--prompt", "hint: for example"]),
        ("edit in.mkv --strength 0 --out in.mkv --codec ffv1", ["it is the source", "never touched"]),
        ("edit in.mkv --strength 0 --out out.mp4 --codec ffv1", ["cannot carry ffv1", ".mkv"]),
        ("edit in.mkv --strength 0 --out out.xyz", ["no video format", ".mp4"]),
        ("edit in.mkv --strength 0 --out no/out.mp4", ["does not exist", "create it"]),
        ("edit in.mkv --strength 0 --out out.mp4 --crf 99", ["--crf", "0 is best"]),
        ("edit in.mkv --strength 0 --out out.mp4 --preset swift", ["--preset", "ultrafast"]),
        ("edit in.mkv --strength 2 --out out.mp4", ["--strength", "between 0 and 1"]),
        ("edit in.mkv --strength 0", ["--out", "--out-dir"]),
        ("edit --out b.mp4", ["<INPUTS>", "required"]),
    ] {
        let output = gen3d(dir.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args}: {}", stderr(&output));
        for part in parts {
            assert!(stderr(&output).contains(part), "{args}: `{part}` is not in: {}", stderr(&output));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{args}");
    }
}

#[test]
fn one_bad_clip_does_not_stop_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("clips")).unwrap();
    for name in ["a.mkv", "c.mkv"] {
        make(&dir.path().join("clips").join(name), CLIP);
    }
    fs::write(dir.path().join("clips/b.mkv"), "no clip").unwrap();
    let args = "edit clips --strength 0 --out-dir done --codec ffv1";
    let output = gen3d(dir.path(), args);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("1 of 3 clips failed") && stderr(&output).contains("b.mkv"),
        "{}",
        stderr(&output)
    );
    let journal = || fs::read_to_string(dir.path().join("done/journal.jsonl")).unwrap();
    assert_eq!((journal().lines().count(), journal().matches("\"failed\"").count()), (3, 1));
    let modified = |name: &str| fs::metadata(dir.path().join("done").join(name)).unwrap().modified().unwrap();
    let before = modified("a.mkv");
    make(&dir.path().join("clips/b.mkv"), CLIP);
    let output = gen3d(dir.path(), &format!("{args} --resume"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!((journal().lines().count(), modified("a.mkv")), (4, before));
    // A list of jobs does the same.
    fs::write(dir.path().join("jobs.toml"), "[[job]]\ninput='clips/a.mkv'\nout='x.mkv'\nstrength=0\n[[job]]\ninput='no.mkv'\nout='y.mkv'\nstrength=0\n").unwrap();
    let output = gen3d(dir.path(), "edit --jobs jobs.toml --codec ffv1");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(dir.path().join("x.mkv").exists() && !dir.path().join("y.mkv").exists());
}

#[test]
fn scores_of_known_edits() {
    let dir = tempfile::tempdir().unwrap();
    let source = make(
        &dir.path().join("a.mkv"),
        "-f lavfi -i mandelbrot=size=96x72:rate=10:end_scale=0.5 -t 0.8 -c:v ffv1 -pix_fmt yuv444p",
    );
    let edit = |name: &str, filter: &str| {
        make(
            &dir.path().join(name),
            &format!("-i {} -vf {filter} -c:v ffv1 -pix_fmt yuv444p", source.display()),
        )
    };
    let same = compare(&source, &source, None, 4).unwrap();
    assert_eq!((same.frames, same.ssim, same.warp_error_ratio), (8, Some(1.0), Some(1.0)));
    assert_eq!(same.psnr, Some(f64::INFINITY));
    // Every other frame brighter: flicker, and a warp error far above the source's.
    let blinking = compare(&source, &edit("b.mkv", "lutyuv=y=val+20:enable='mod(n,2)'"), None, 4).unwrap();
    assert!(blinking.warp_error.unwrap() > 5.0 * same.warp_error.unwrap(), "{blinking:?} {same:?}");
    // Brighter from the fifth frame on: a seam at the border of windows of four.
    let seam = compare(&source, &edit("c.mkv", "lutyuv=y=val+60:enable='gte(n,4)'"), None, 4).unwrap();
    assert!(seam.seam_ratio.unwrap() > 1.5 * same.seam_ratio.unwrap(), "{seam:?} {same:?}");
    // The left half edited, and the mask says so: nothing outside changed.
    let half = edit("d.mkv", "drawbox=x=0:y=0:w=40:h=72:color=red:t=fill");
    let mask = make(
        &dir.path().join("m.png"),
        "-f lavfi -i color=black:size=96x72,format=gray,drawbox=x=0:y=0:w=48:h=72:color=white:t=fill -frames:v 1",
    );
    let masked = compare(&source, &half, Some(&mask), 0).unwrap();
    assert_eq!((masked.psnr, masked.seam_ratio), (Some(f64::INFINITY), None));
    assert!(compare(&source, &half, None, 0).unwrap().psnr.unwrap() < 20.0);
    let short = make(&dir.path().join("e.mkv"), &format!("-i {} -frames:v 3 -c:v ffv1", source.display()));
    assert!(compare(&source, &short, None, 0).unwrap_err().to_string().contains("differ in length"));
}
