//! Attention over frames: identities that hold for any weights.

use super::attention::{AttentionConfig, Keys};
use super::session::{Session, Texts, Watch};
use super::*;
use crate::prior::unet::UnetInputs;
use crate::prior::unet::attention::{AttentionHook, Call, Site};
use crate::rng::{Rng, Stream};
use crate::sample::guidance::Guidance;

/// Rounding of f32 through some twenty layers, for values of size 1.
const ROUNDING: f32 = 2e-4;

fn sets() -> Vec<Vec<Keys>> {
    vec![
        vec![Keys::Own],
        vec![Keys::First],
        vec![Keys::First, Keys::PreviousLast, Keys::CurrentLast],
        vec![Keys::Own, Keys::Previous],
        vec![Keys::First, Keys::Previous],
        vec![Keys::Window],
        vec![Keys::Own, Keys::First, Keys::Window, Keys::PreviousLast],
    ]
}

#[test]
fn identical_frames_are_edited_like_one_picture_by_any_set() {
    let prior = tiny();
    let alike = clip(5, (16, 16), 0.0);
    let one = Frames(alike.0[..1].to_vec());
    let run = |source: &Frames, keys: &[Keys], start| {
        let mut config = settings();
        config.attention.keys = keys.to_vec();
        config.start = start;
        let store = MemoryStore::default();
        let mut editor = Editor::new(&prior, config, &store);
        editor.controls = vec![canny(&prior)];
        edit(editor, source).unwrap()
    };
    for start in [Start::Inverted, Start::Noise] {
        let single = run(&one, &[Keys::Own], start);
        assert!(most(&single.0[0], &one.0[0]) > 0.05, "the edit changes something");
        for keys in sets() {
            for frame in run(&alike, &keys, start).0 {
                assert!(most(&frame, &single.0[0]) < ROUNDING, "{keys:?}: {}", most(&frame, &single.0[0]));
            }
        }
    }
}

#[test]
fn own_keys_edit_every_frame_for_itself_and_others_do_not() {
    let prior = tiny();
    let moving = clip(3, (16, 16), 2.0);
    let run = |source: &Frames, keys: Keys| {
        let mut config = settings();
        config.attention.keys = vec![keys];
        let store = MemoryStore::default();
        let mut editor = Editor::new(&prior, config, &store);
        editor.controls = vec![canny(&prior)];
        edit(editor, source).unwrap()
    };
    let alone = Frames(
        moving.0.iter().map(|f| run(&Frames(vec![f.clone()]), Keys::Own).0.remove(0)).collect::<Vec<_>>(),
    );
    assert!(most_of(&run(&moving, Keys::Own), &alone) < ROUNDING);
    assert!(most_of(&run(&moving, Keys::First), &alone) > 10.0 * ROUNDING);
}

/// Attention over a whole clip in one batch, each frame's keys gathered straight from it.
struct Whole {
    config: AttentionConfig,
    windows: Vec<Window>,
}

impl AttentionHook for Whole {
    fn attend(&self, site: &Site, call: Call<'_>) -> Result<Tensor> {
        if site.cross {
            return call.attend();
        }
        let mut out = Vec::new();
        for window in &self.windows {
            for frame in window.start..window.end {
                let seen = self.config.frames(frame, window);
                let rows = |t: &Tensor| {
                    let rows: Vec<Tensor> = seen.iter().map(|f| t.narrow(0, *f, 1).unwrap()).collect();
                    Tensor::cat(&rows, 1).unwrap().contiguous().unwrap()
                };
                let (q, k, v) = (call.q.narrow(0, frame, 1)?.contiguous()?, rows(call.k), rows(call.v));
                out.push(Call { q: &q, k: &k, v: &v, ..call }.attend()?);
            }
        }
        Ok(Tensor::cat(&out, 0)?)
    }
}

#[test]
fn windows_with_kept_references_are_the_clip_in_one_batch() {
    let prior = tiny();
    let frames = 7;
    let noise = Rng::new(3, Stream::Probe, 0).normals(0, frames * 4 * 64);
    let z = Tensor::from_vec(noise, (frames, 4, 8, 8), &Device::Cpu).unwrap();
    let text = prior.encode_texts(&["a red car"]).unwrap().remove(0);
    let time = Tensor::new(&[501f32; 7], &Device::Cpu).unwrap();
    let context = text.rows(frames).unwrap().context;
    for keys in sets() {
        for size in [3, 7, 100] {
            let config = AttentionConfig { keys: keys.clone(), least_width: 0.0 };
            let windows = windows(frames, size);
            let whole = Whole { config: config.clone(), windows: windows.clone() };
            let inputs = UnetInputs { hook: Some(&whole), ..UnetInputs::new(&z, &time, &context) };
            let output = prior.unet.predict(&inputs).unwrap();
            let want = prior.schedule.to_epsilon(&output, &z, &[501.0; 7]).unwrap();
            let texts = Texts { conditional: text.clone(), unconditional: text.clone() };
            let session = Session::new(&prior, &config, texts, Guidance::scale(1.0), 0);
            session.begin();
            for window in windows {
                let part = z.narrow(0, window.start, window.len()).unwrap().contiguous().unwrap();
                // Asked twice, as a refinement does: the second answer is the same.
                let watch = Watch::default();
                session.predict(&part.ones_like().unwrap(), 501.0, &window, &[], watch).unwrap();
                let got = session.predict(&part, 501.0, &window, &[], watch).unwrap();
                session.settle();
                let off = most(&got, &want.narrow(0, window.start, window.len()).unwrap());
                assert!(off < 2e-5, "{keys:?}, window {} of {size}: {off}", window.index);
            }
        }
    }
}

#[test]
fn narrow_attentions_are_left_alone() {
    // Of 8 and 16 channels: factor 2 leaves the finest level, 3 all of them.
    let prior = tiny();
    let moving = clip(3, (16, 16), 2.0);
    let run = |keys: Keys, least_width: f64| {
        let mut config = settings();
        config.attention = AttentionConfig { keys: vec![keys], least_width };
        let store = MemoryStore::default();
        edit(Editor::new(&prior, config, &store), &moving).unwrap()
    };
    let own = run(Keys::Own, 0.0);
    assert_eq!(bits(&run(Keys::First, 3.0)), bits(&own));
    let (two, all) = (run(Keys::First, 2.0), run(Keys::First, 0.0));
    assert!(most_of(&two, &own) > 1e-3 && most_of(&two, &all) > 1e-3);
}
