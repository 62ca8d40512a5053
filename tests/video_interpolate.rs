//! More frames for a clip: counts, times, cuts. The network's weights are noise; what must hold does
//! so for any.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{DType, Device, Tensor};
use gen3d::Error;
use gen3d::video::interpolate::{IfNet, Interpolation, Pace, between, is_cut, score};
use gen3d::video::io::{Codec, Encoding, Flow, Picture, Ratio, ReadOptions, Reader, Stamp, Written, stamps};

/// A network that knows nothing: the frame between is the average.
fn average() -> IfNet {
    let mut all = HashMap::new();
    let mut put = |name: String, shape: &[usize]| {
        all.insert(name, Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap());
    };
    for (i, c) in [192, 128, 96, 64].into_iter().enumerate() {
        let inputs = if i == 0 { 7 } else { 12 };
        let mut layers = vec![("conv0.0".to_owned(), inputs, c / 2), ("conv0.1".into(), c / 2, c)];
        layers.extend((0..8).map(|k| (format!("convblock.{k}"), c, c)));
        for (name, from, to) in layers {
            put(format!("block{i}.{name}.0.weight"), &[to, from, 3, 3]);
            put(format!("block{i}.{name}.0.bias"), &[to]);
            put(format!("block{i}.{name}.1.weight"), &[to]);
        }
        put(format!("block{i}.lastconv.weight"), &[c, 5, 4, 4]);
        put(format!("block{i}.lastconv.bias"), &[5]);
    }
    IfNet::new(&all).unwrap()
}

/// `source` through `net` at `pace`, encoded by `codec` without loss.
fn more(net: &IfNet, source: &Path, out: &Path, pace: Pace, codec: Codec) -> Result<Written, Error> {
    let encoding = Encoding { codec, crf: (codec == Codec::X264).then_some(0.0), ..Encoding::default() };
    let reading = ReadOptions::default();
    let work = Interpolation { net, pace, reading, encoding, keep: false, resume: false };
    work.run(source, out, &mut |_| Flow::Continue)
}

#[track_caller]
fn make(path: &Path, args: &str) -> PathBuf {
    let mut all = vec!["-v", "error", "-y", "-bitexact"];
    all.extend(args.split_whitespace());
    all.push(path.to_str().unwrap());
    let output = Command::new("ffmpeg").args(&all).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path.to_owned()
}

fn pictures(path: &Path) -> Vec<Picture> {
    let mut reader = Reader::open(path, ReadOptions::default()).unwrap();
    std::iter::from_fn(|| reader.next_frame().unwrap().map(|f| f.picture)).collect()
}

#[test]
fn the_sources_frames_stay_and_times_divide() {
    let dir = tempfile::tempdir().unwrap();
    // 23.976 frames a second, the third frame missing: a variable rate.
    let source = make(
        &dir.path().join("a.mov"),
        "-f lavfi -i testsrc2=size=48x34:rate=24000/1001:duration=0.25 -vf select=not(eq(n\\,2)) -fps_mode vfr -c:v libx264 -qp 0 -bf 0 -pix_fmt yuv444p",
    );
    let out = dir.path().join("b.mov");
    let written = more(&average(), &source, &out, Pace::Factor(3), Codec::X264).unwrap();
    let ((base, before), (fine, after)) = (stamps(&source).unwrap(), stamps(&out).unwrap());
    assert_eq!((before.len(), written.frames as usize, after.len()), (5, 13, 13));
    let seconds = |pts: i64, base: Ratio| pts as f64 * base.value();
    for (i, pair) in before.windows(2).enumerate() {
        for k in 0..3 {
            let (a, b) = (seconds(pair[0].pts, base), seconds(pair[1].pts, base));
            let expected = a + (b - a) * k as f64 / 3.0;
            assert!((seconds(after[3 * i + k].pts, fine) - expected).abs() < 1e-9, "{before:?} {after:?}");
        }
    }
    let end = |s: &Stamp, base| seconds(s.pts + s.duration, base);
    assert!((end(before.last().unwrap(), base) - end(after.last().unwrap(), fine)).abs() < 1e-6);
    let (was, is) = (pictures(&source), pictures(&out));
    for (i, picture) in was.iter().enumerate() {
        assert_eq!(&is[3 * i], picture, "frame {i} of the source");
    }
    // Between two that differ lies the average, which is what this network makes.
    let pair = (0..4).find(|i| was[*i] != was[i + 1]).unwrap();
    let worst = (0..was[0].rgb.len())
        .map(|i| {
            let [a, b] = [&was[pair], &was[pair + 1]].map(|p| p.rgb[i].clamp(0.0, 1.0));
            (0.5 * (a + b) - is[3 * pair + 1].rgb[i]).abs()
        })
        .fold(0.0, f32::max);
    assert!(worst < 3.0 / 255.0, "{worst}");
}

#[test]
fn nothing_is_invented_across_a_cut() {
    let ramp = |sign: f32| Picture::from_fn(64, 48, move |x, _| [0.5 + sign * (x as f32 / 63.0 - 0.5); 3]);
    let (a, b) = (ramp(1.0), ramp(-1.0));
    assert!(is_cut(&a, &b) && !is_cut(&a, &a));
    let net = average();
    let middle = between(&net, &a, &b, 0.5).unwrap();
    assert_eq!((middle.width, middle.height), (64, 48));
    // Frames of two scenes: the first is repeated.
    let dir = tempfile::tempdir().unwrap();
    let source = make(
        &dir.path().join("a.mkv"),
        "-f lavfi -i testsrc2=size=64x48:rate=10:duration=0.2 -f lavfi -i mandelbrot=size=64x48:rate=10 -filter_complex [0:v]format=yuv444p[a];[1:v]trim=duration=0.2,format=yuv444p[b];[a][b]concat -c:v ffv1",
    );
    let out = dir.path().join("b.mkv");
    more(&net, &source, &out, Pace::Factor(2), Codec::Ffv1).unwrap();
    let frames = pictures(&out);
    assert_eq!(frames.len(), 7);
    assert_eq!(frames[3], frames[2], "the frame before the cut is repeated");
    assert_ne!(frames[1], frames[0]);
}

#[test]
fn weights_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flownet.pkl");
    assert!(matches!(IfNet::load(&path), Err(Error::Io { .. })));
    std::fs::write(&path, "no weights").unwrap();
    let error = IfNet::load(&path).err().unwrap();
    assert!(error.to_string().contains("neither .safetensors nor"), "{error}");
    let safe = dir.path().join("x.safetensors");
    std::fs::write(&safe, "no weights").unwrap();
    assert!(IfNet::load(&safe).is_err());
}

#[test]
fn any_rate_keeps_the_length_and_asks_at_its_own_times() {
    let dir = tempfile::tempdir().unwrap();
    let source = make(
        &dir.path().join("a.mkv"),
        "-f lavfi -i testsrc2=size=48x34:rate=10:duration=1 -c:v ffv1 -pix_fmt yuv444p",
    );
    for (num, den, count) in [(24, 1, 24), (30000, 1001, 30), (7, 1, 7), (10, 1, 10)] {
        let out = dir.path().join(format!("{num}.mp4"));
        let pace = Pace::Rate(Ratio { num, den });
        let written = more(&average(), &source, &out, pace, Codec::X264).unwrap();
        let (base, times) = stamps(&out).unwrap();
        assert_eq!((written.frames, times.len()), (count, count as usize), "{num}/{den}");
        for (k, stamp) in times.iter().enumerate() {
            let expected = k as f64 * f64::from(den) / f64::from(num);
            assert!((stamp.pts as f64 * base.value() - expected).abs() < 1e-6, "{num}/{den}: {times:?}");
        }
    }
    // At the clip's own rate every frame is the source's.
    let (was, is) = (pictures(&source), pictures(&dir.path().join("10.mp4")));
    let worst = |i: usize| was[i].rgb.iter().zip(&is[i].rgb).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!((0..10).all(|i| worst(i) < 0.03), "only the encoder's rounding");
    let bad = more(
        &average(),
        &source,
        &dir.path().join("x.mp4"),
        Pace::Rate(Ratio { num: 0, den: 1 }),
        Codec::X264,
    );
    assert!(bad.unwrap_err().to_string().contains("--fps"));
}

#[test]
fn what_stands_still_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let source = make(
        &dir.path().join("a.mkv"),
        "-f lavfi -i testsrc=size=50x38:rate=10:duration=0.1 -vf loop=3:1:0 -c:v ffv1 -pix_fmt bgr0",
    );
    let out = dir.path().join("b.mkv");
    more(&IfNet::own().unwrap(), &source, &out, Pace::Factor(4), Codec::Ffv1).unwrap();
    let (was, is) = (pictures(&source), pictures(&out));
    assert_eq!(was.len(), 4);
    assert_eq!(is.len(), 13);
    assert!(is.iter().all(|p| *p == was[0]), "to the bit");
}

#[test]
fn large_pictures_go_in_tiles_that_do_not_show() {
    // Wider than a tile. Where nothing is known of the motion, tiles are exact: weights sum to one.
    let ramp = |shift: usize| {
        Picture::from_fn(1800, 64, move |x, y| [((x + shift) % 97) as f32 / 96.0, y as f32 / 63.0, 0.25])
    };
    let (a, b) = (ramp(0), ramp(5));
    let middle = between(&average(), &a, &b, 0.5).unwrap();
    let off = |c: &Picture| {
        c.rgb
            .iter()
            .zip(a.rgb.iter().zip(&b.rgb))
            .map(|(m, (a, b))| (m - 0.5 * (a + b)).abs())
            .fold(0.0, f32::max)
    };
    assert!(off(&middle) < 1e-5);
    // The network that comes along: columns at the tiles' borders are no worse than others.
    let smooth = |shift: f32| {
        Picture::from_fn(1800, 64, move |x, y| {
            let u = (x as f32 + shift) * 0.11;
            [0.5 + 0.4 * u.sin(), 0.5 + 0.4 * (0.7 * u + 0.2 * y as f32).cos(), 0.5]
        })
    };
    let (a, middle, b) = (smooth(-2.0), smooth(0.0), smooth(2.0));
    let made = between(&IfNet::own().unwrap(), &a, &b, 0.5).unwrap();
    let error = |columns: std::ops::Range<usize>| {
        let n = columns.len() as f32 * 64.0;
        let at = |x: usize| (0..64).map(move |y| y * 1800 + x);
        columns.flat_map(at).map(|i| (made.rgb[i] - middle.rgb[i]).abs()).sum::<f32>() / n
    };
    let (border, inside) = (error(1024..1280), error(200..1000));
    assert!(border < 1.5 * inside + 2e-3, "{border} {inside}");
}

/// The point of the network: on motion that it has not seen it is nearer to the true frame than an average.
#[test]
fn the_embedded_network_follows_motion() {
    let dir = tempfile::tempdir().unwrap();
    let source = make(
        &dir.path().join("a.mkv"),
        "-f lavfi -i mandelbrot=size=256x256:rate=10:start_scale=2:end_scale=1 -frames:v 1 -c:v ffv1 -pix_fmt bgr0",
    );
    // A still picture that travels and grows.
    let moving = make(
        &dir.path().join("b.mkv"),
        &format!("-loop 1 -i {} -vf crop=160:128:x=20+4*n:y=30+2*n -frames:v 9 -c:v ffv1 -pix_fmt bgr0", {
            let png = dir.path().join("a.png");
            make(&png, &format!("-i {}", source.display()));
            png.display().to_string()
        }),
    );
    let score = score(&IfNet::own().unwrap(), &moving, 2).unwrap();
    assert_eq!(score.triples, 4);
    assert!(score.psnr > score.psnr_of_average + 2.0, "{score:?}");
}
