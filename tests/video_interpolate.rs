//! More frames for a clip: counts, times, cuts. The network's weights are noise; what must hold does
//! so for any.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{DType, Device, Tensor};
use gen3d::Error;
use gen3d::video::interpolate::{IfNet, between, interpolate, is_cut};
use gen3d::video::io::{Codec, Encoding, Flow, Picture, ReadOptions, Reader, stamps};

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
    let encoding = Encoding { codec: Codec::X264, crf: Some(0.0), ..Encoding::default() };
    let written = interpolate(&average(), &source, &out, 3, &encoding, &mut |_| Flow::Continue).unwrap();
    let ((base, before), (fine, after)) = (stamps(&source).unwrap(), stamps(&out).unwrap());
    assert_eq!((before.len(), written.frames as usize, after.len()), (5, 13, 13));
    let seconds = |pts: i64, base: gen3d::video::io::Ratio| pts as f64 * base.value();
    for (i, pair) in before.windows(2).enumerate() {
        for k in 0..3 {
            let (a, b) = (seconds(pair[0].pts, base), seconds(pair[1].pts, base));
            let expected = a + (b - a) * k as f64 / 3.0;
            assert!((seconds(after[3 * i + k].pts, fine) - expected).abs() < 1e-9, "{before:?} {after:?}");
        }
    }
    let end = |s: &gen3d::video::io::Stamp, base| seconds(s.pts + s.duration, base);
    assert!((end(before.last().unwrap(), base) - end(after.last().unwrap(), fine)).abs() < 1e-6);
    let (was, is) = (pictures(&source), pictures(&out));
    for (i, picture) in was.iter().enumerate() {
        assert_eq!(&is[3 * i], picture, "frame {i} of the source");
    }
    // Between two of them lies the average, which is what this network makes.
    let worst = (0..was[0].rgb.len())
        .map(|i| (0.5 * (was[0].rgb[i].clamp(0.0, 1.0) + was[1].rgb[i].clamp(0.0, 1.0)) - is[1].rgb[i]).abs())
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
    let encoding = Encoding { codec: Codec::Ffv1, ..Encoding::default() };
    interpolate(&net, &source, &out, 2, &encoding, &mut |_| Flow::Continue).unwrap();
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
