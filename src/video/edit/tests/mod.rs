//! The editor on tiny random networks: exact invariants, limits, resuming.

mod editor;
mod null;
mod roundtrip;
mod sets;
mod tuning;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor};

use super::*;
use crate::Result;
use crate::paint::control;
use crate::prior::Prior;

fn parity() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/pipelines")
}

/// Random weights, 8 and 16 channels, latents of half the pixels' size.
fn tiny() -> Prior {
    Prior::load(parity().join("sd").to_str().unwrap(), &Device::Cpu).unwrap()
}

fn canny(prior: &Prior) -> ControlTrack<'static> {
    let net = control::network(&parity().join("controlnet0"), prior).unwrap();
    ControlTrack { net, scale: 1.0, pictures: ControlPictures::Canny }
}

/// A bright square that moves over a ramp; `speed` 0 stands still.
fn clip(frames: usize, size: (usize, usize), speed: f32) -> Frames {
    let (w, h) = size;
    let frame = |i: usize| {
        let left = 2.0 + speed * i as f32;
        let value = |at: usize| {
            let (c, y, x) = (at / (h * w), at / w % h, at % w);
            let inside = (left..left + 5.0).contains(&(x as f32)) && (3..9).contains(&y);
            if inside { 0.9 - 0.5 * c as f32 } else { y as f32 / h as f32 - 0.7 }
        };
        Tensor::from_vec((0..3 * h * w).map(value).collect::<Vec<f32>>(), (3, h, w), &Device::Cpu).unwrap()
    };
    Frames((0..frames).map(frame).collect())
}

/// Steps that [`settings`] takes.
const STEPS: usize = 3;

/// The last few of ten steps (random networks are wild where there is much noise), small windows,
/// cross-frame attention everywhere.
fn settings() -> EditConfig {
    let mut config = EditConfig {
        source_prompt: "a red car".into(),
        target_prompt: "a blue car".into(),
        guidance_scale: 3.0,
        steps: 10,
        strength: 0.3,
        window: 2,
        ..EditConfig::default()
    };
    config.attention.least_width = 0.0;
    config.inversion.refinements = 2;
    config
}

fn edit(editor: Editor<'_>, source: &Frames) -> Result<Frames> {
    let mut sink = Frames::default();
    editor.edit(source, &mut sink, &mut |_| Ok(()), &AtomicBool::new(false))?;
    Ok(sink)
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference.
fn most(a: &Tensor, b: &Tensor) -> f32 {
    values(&(a - b).unwrap()).into_iter().map(f32::abs).fold(0.0, f32::max)
}

fn most_of(a: &Frames, b: &Frames) -> f32 {
    assert_eq!(a.0.len(), b.0.len());
    a.0.iter().zip(&b.0).map(|(a, b)| most(a, b)).fold(0.0, f32::max)
}

fn bits(frames: &Frames) -> Vec<u32> {
    frames.0.iter().flat_map(values).map(f32::to_bits).collect()
}
