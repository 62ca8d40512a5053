//! Tests of the evaluator as a whole, on a tiny one.

use std::path::Path;

use super::config::EvaluatorConfig;
use super::train::{Training, dataset};
use super::*;
use crate::train::data::split::Split;
use crate::train::pictures::{Pictures, Wanted};
use crate::train::run::Run;

fn tiny() -> EvaluatorConfig {
    let mut config = EvaluatorConfig {
        image_size: 16,
        pictures: 24,
        batch: 8,
        channels: vec![8, 16],
        text_width: 16,
        text_layers: 1,
        width: 16,
        vocab_size: 2000,
        ..EvaluatorConfig::default()
    };
    config.data.supersample = 1;
    config
}

fn material(config: &EvaluatorConfig) -> (Pictures, Tokenizer) {
    let props = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props");
    let data = dataset(config, None, &props, Split::Train, config.seed).unwrap();
    let wanted = Wanted { first: 0, count: config.pictures, size: config.image_size, depth: false };
    let pictures = Pictures::draw(&data, wanted, |_| Ok(())).unwrap();
    let tokenizer = Tokenizer::train(&data.captions(), config.vocab_size, config.max_tokens).unwrap();
    (pictures, tokenizer)
}

#[test]
fn training_goes_on_exactly_from_a_checkpoint() {
    let config = tiny();
    let (pictures, tokenizer) = material(&config);
    let fresh = || Training::new(&config, &tokenizer, &pictures, &Device::Cpu).unwrap();
    let steps = |training: &mut Training, range: std::ops::Range<u32>| -> Vec<f64> {
        range.map(|s| training.step(s, 3e-3).unwrap().total).collect()
    };
    let mut whole = fresh();
    let losses = steps(&mut whole, 0..6);
    assert!(losses.iter().all(|l| l.is_finite()));
    let dir = tempfile::tempdir().unwrap();
    let mut silent = |_: &str, _: u32, _: u32, _: f64| {};
    let run = Run { dir: dir.path().into(), device: Device::Cpu, progress: &mut silent };
    let mut first = fresh();
    steps(&mut first, 0..3);
    run.save("c", &first.adam, 3).unwrap();
    let mut second = fresh();
    let from = run.restore("c", &mut second.adam).unwrap();
    assert_eq!(steps(&mut second, from..6), losses[3..]);
    let values = |t: &Training| -> Vec<Vec<f32>> {
        let weights = t.weights().unwrap();
        let mut names: Vec<_> = weights.keys().collect();
        names.sort();
        names.iter().map(|n| weights[*n].flatten_all().unwrap().to_vec1().unwrap()).collect()
    };
    assert_eq!(values(&whole), values(&second));
    assert_ne!(values(&whole), values(&first));
}

#[test]
fn a_saved_evaluator_is_loaded_the_same() {
    let config = tiny();
    let (pictures, tokenizer) = material(&config);
    let mut training = Training::new(&config, &tokenizer, &pictures, &Device::Cpu).unwrap();
    for step in 0..3 {
        training.step(step, 3e-3).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let config = training.encoder.config.clone();
    files::save(dir.path(), &config, &tokenizer, &training.weights().unwrap()).unwrap();
    let shown: Vec<RgbImage> = (0..3)
        .map(|i| {
            let x = pictures.batch(&[i], &Device::Cpu).unwrap().flatten_all().unwrap();
            crate::paint::picture(&x.to_vec1::<f32>().unwrap(), 16)
        })
        .collect();
    let captions = ["a blue jay on macarons".to_owned(), "a golden owl".to_owned()];
    let seen = |e: &Evaluator| (e.pictures(&shown).unwrap(), e.texts(&captions).unwrap());
    let loaded = files::load(dir.path()).unwrap();
    let (views, texts) = seen(&loaded);
    // Saved again from what was loaded: f16 loses nothing the second time.
    let again = tempfile::tempdir().unwrap();
    let weights = crate::prior::tensor_file::read_safetensors(&dir.path().join("model.safetensors")).unwrap();
    files::save(again.path(), &config, &loaded.tokenizer, &weights).unwrap();
    assert_eq!(seen(&files::load(again.path()).unwrap()), (views.clone(), texts.clone()));
    // And close to the weights that were saved.
    let store = crate::prior::weights::Store::loaded(
        training.weights().unwrap(),
        candle_core::DType::F32,
        false,
        &Device::Cpu,
    );
    let exact = Evaluator { encoder: Encoder::new(config, &store.root()).unwrap(), tokenizer };
    let (exact_views, exact_texts) = seen(&exact);
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 5e-3);
    assert!(views.iter().zip(&exact_views).all(|(a, b)| near(&a.embedding, &b.embedding)));
    assert!(texts.iter().zip(&exact_texts).all(|(a, b)| near(a, b)));
    for vector in texts.iter().chain(views.iter().map(|v| &v.embedding)) {
        assert!((vector.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-4);
    }
    assert_ne!(texts[0], texts[1]);
}

#[test]
fn a_folder_without_an_evaluator_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = files::load(dir.path()).err().unwrap();
    assert!(error.is_usage() && error.hint_text().is_some_and(|h| h.contains("gen3d train evaluator")));
}
