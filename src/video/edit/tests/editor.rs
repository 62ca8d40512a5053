//! The editor as a whole: limits, masks, stopping and going on.

use super::attention::Keys;
use super::fusion::Fuse;
use super::*;
use crate::Error;

fn flat_masks(frames: usize, size: (usize, usize), value: f32) -> Frames {
    let (w, h) = size;
    Frames(vec![Tensor::full(value, (1, h, w), &Device::Cpu).unwrap(); frames])
}

#[test]
fn strength_zero_is_the_source_bit_by_bit() {
    let prior = tiny();
    // An odd size, which the autoencoder could not even take.
    let source = clip(3, (15, 13), 1.0);
    let config = EditConfig { strength: 0.0, ..settings() };
    let store = MemoryStore::default();
    assert_eq!(bits(&edit(Editor::new(&prior, config, &store), &source).unwrap()), bits(&source));
    assert!(!store.has("identity"), "nothing is stored");
}

#[test]
fn any_size_comes_back_in_its_size() {
    let prior = tiny();
    let source = clip(3, (15, 13), 1.0);
    let store = MemoryStore::default();
    let edited = edit(Editor::new(&prior, settings(), &store), &source).unwrap();
    assert!(edited.0.iter().all(|f| f.dims() == [3, 13, 15]));
    assert!(edited.0.iter().flat_map(values).all(|v| (-1.0..=1.0).contains(&v)));
}

#[test]
fn masks_of_zero_and_one_are_the_source_and_the_free_edit() {
    let prior = tiny();
    let source = clip(3, (16, 16), 2.0);
    let steps = STEPS;
    let run = |mask: Option<f32>, kind: EditKind, rules: Vec<Fuse>| {
        let mut config = EditConfig { kind, ..settings() };
        config.fusion.attribute.clone_from(&rules);
        config.fusion.background = rules;
        let masks = mask.map(|m| flat_masks(3, (16, 16), m));
        let store = MemoryStore::default();
        let mut editor = Editor::new(&prior, config, &store);
        editor.masks = masks.as_ref().map(|m| m as &dyn FrameSource);
        let frames = edit(editor, &source).unwrap();
        let latents = |stage: &str| -> Vec<u32> {
            (0..2)
                .map(|w| store.get(&format!("{stage}/{steps:04}/{w:05}")).unwrap())
                .flat_map(|t| values(&t))
                .map(f32::to_bits)
                .collect()
        };
        (frames, latents("edited"), latents("inverted"))
    };
    let all_the_way = vec![Fuse::outside(1.0, 1.0)];
    let (frames, edited, inverted) = run(Some(0.0), EditKind::Attribute, all_the_way.clone());
    assert_eq!(edited, inverted);
    assert_eq!(bits(&frames), bits(&source), "pasted back");
    let (_, free, clean) = run(None, EditKind::Attribute, vec![]);
    let (_, open, _) = run(Some(1.0), EditKind::Attribute, all_the_way.clone());
    assert_eq!(open, free);
    assert_ne!(free, clean);
    // A background edit keeps what the mask names.
    let (_, kept, clean) = run(Some(1.0), EditKind::Background, all_the_way);
    assert_eq!(kept, clean);
}

#[test]
fn masks_from_words_lie_in_range_and_need_their_words() {
    let prior = tiny();
    let source = clip(3, (16, 16), 2.0);
    let mut config = EditConfig { phrase: "red car".into(), ..settings() };
    config.mask.dilation = 0;
    let store = MemoryStore::default();
    edit(Editor::new(&prior, config, &store), &source).unwrap();
    let mask = store.get("mask/0000/00000").unwrap();
    assert_eq!(mask.dims(), [2, 1, 8, 8]);
    let mask = values(&mask);
    // The strongest place of a word is always inside; where a random network's weakest is, nobody knows.
    assert!(mask.iter().all(|v| (0.0..=1.0).contains(v)) && mask.contains(&1.0), "{mask:?}");
    let stray = EditConfig { phrase: "green".into(), ..settings() };
    let store = MemoryStore::default();
    assert!(edit(Editor::new(&prior, stray, &store), &source).unwrap_err().is_usage());
}

/// Stops after `ticks` windows, like a killed process as far as the store can tell.
fn stopped(editor: Editor<'_>, source: &Frames, ticks: usize) -> Result<Frames> {
    let (mut sink, mut left) = (Frames::default(), ticks);
    let mut progress = |_| {
        left -= 1;
        if left == 0 { Err(Error::Interrupted) } else { Ok(()) }
    };
    editor.edit(source, &mut sink, &mut progress, &AtomicBool::new(false))?;
    Ok(sink)
}

#[test]
fn a_run_stopped_anywhere_goes_on_to_the_same_bytes() {
    let prior = tiny();
    let source = clip(5, (16, 16), 1.0);
    let mut config = EditConfig { phrase: "car".into(), ..settings() };
    config.blend = Some(BlendConfig::default());
    config.tune = Some(tune::TuneConfig { steps: 4, ..Default::default() });
    fn make<'a>(prior: &'a Prior, config: &EditConfig, store: &'a dyn Store) -> Editor<'a> {
        let mut editor = Editor::new(prior, config.clone(), store);
        editor.controls = vec![canny(prior)];
        editor
    }
    let memory = MemoryStore::default();
    let whole = bits(&edit(make(&prior, &config, &memory), &source).unwrap());
    for ticks in [7, 8, 11] {
        let dir = tempfile::tempdir().unwrap();
        let mut starts = 0;
        let edited = loop {
            let store = FileStore::new(dir.path().join("state"));
            match stopped(make(&prior, &config, &store), &source, ticks) {
                Ok(frames) => break frames,
                Err(Error::Interrupted) => starts += 1,
                Err(e) => panic!("{e}"),
            }
            assert!(starts < 40, "no progress between stops");
            // What a process that was killed while it wrote leaves behind.
            std::fs::write(dir.path().join("state/edited.partial"), b"half").unwrap();
        };
        assert!(starts > 1);
        assert_eq!(bits(&edited), whole, "stopped every {ticks} windows");
        let other = EditConfig { seed: 1, ..config.clone() };
        let store = FileStore::new(dir.path().join("state"));
        let e = edit(Editor::new(&prior, other, &store), &source).unwrap_err();
        assert!(e.to_string().contains("another edit"), "{e}");
    }
}

#[test]
fn the_number_of_threads_does_not_decide_a_byte() {
    let prior = tiny();
    let source = clip(3, (16, 16), 1.0);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let store = MemoryStore::default();
        pool.install(|| bits(&edit(Editor::new(&prior, settings(), &store), &source).unwrap()))
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn every_preset_runs() {
    let prior = tiny();
    let source = clip(4, (16, 16), 2.0);
    for (name, _) in PRESETS {
        let mut config = EditConfig {
            source_prompt: "a red car".into(),
            target_prompt: "a blue car".into(),
            steps: 4,
            strength: 1.0,
            window: 2,
            ..EditConfig::preset(name).unwrap()
        };
        config.tune.iter_mut().for_each(|t| t.steps = 3);
        let store = MemoryStore::default();
        let mut editor = Editor::new(&prior, config, &store);
        editor.controls = vec![canny(&prior)];
        let edited = edit(editor, &source).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(edited.0.len() == 4 && most_of(&edited, &source) > 0.01, "{name}");
    }
}

#[test]
fn the_sources_own_maps_change_nothing() {
    // Same prompt, no guidance: the source branch is the edit's, so its maps are the edit's too.
    let prior = tiny();
    let source = clip(3, (16, 16), 2.0);
    let run = |blend: Option<BlendConfig>, target: &str| {
        let mut config =
            EditConfig { guidance_scale: 1.0, blend, target_prompt: target.into(), ..settings() };
        config.fusion.attribute.clear();
        config.inversion.refinements = 30;
        config.inversion.tolerance = 1e-6;
        config.attention.keys = vec![Keys::Own, Keys::Previous];
        let store = MemoryStore::default();
        edit(Editor::new(&prior, config, &store), &source).unwrap()
    };
    let (plain, blended) = (run(None, "a red car"), run(Some(BlendConfig::default()), "a red car"));
    assert!(most_of(&plain, &blended) < 1e-3, "{}", most_of(&plain, &blended));
    let (plain, blended) = (run(None, "a blue car"), run(Some(BlendConfig::default()), "a blue car"));
    assert!(most_of(&plain, &blended) > 1e-4, "{}", most_of(&plain, &blended));
}

#[test]
fn masks_of_another_size_are_refused() {
    let prior = tiny();
    let masks = flat_masks(2, (16, 16), 1.0);
    let store = MemoryStore::default();
    let mut editor = Editor::new(&prior, settings(), &store);
    editor.masks = Some(&masks);
    let e = edit(editor, &clip(3, (16, 16), 1.0)).unwrap_err();
    assert!(e.is_usage() && e.hint_text().is_some(), "{e}");
}
