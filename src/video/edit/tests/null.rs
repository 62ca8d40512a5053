//! Null-text optimisation: exact gradients, and the error of reconstruction that it is there to lower.

use candle_core::Var;

use super::super::run::Problem;
use super::*;
use crate::prior::conditioning::Conditioning;
use crate::rng::{Rng, Stream};
use crate::sample::UnetPredictor;
use crate::sample::guidance::{Branch, ConditionedPredictor};

fn normal(shape: &[usize], step: u32) -> Tensor {
    let n = shape.iter().product();
    Tensor::from_vec(Rng::new(9, Stream::Probe, step).normals(0, n), shape, &Device::Cpu).unwrap()
}

#[test]
fn the_gradient_to_the_empty_prompt_is_exact() {
    let prior = tiny();
    let text = prior.encode_texts(&[""]).unwrap().remove(0);
    let z = normal(&[2, 4, 8, 8], 0);
    let answer = |context: &Tensor| {
        let bent = Conditioning { context: context.clone(), pooled: text.pooled.clone() };
        let model = UnetPredictor::new(&prior, bent, text.clone());
        model.predict(&z, &[300.0, 300.0], &[Branch::Unconditional])
    };
    let problem = Problem { aim: normal(&[2, 4, 8, 8], 1), base: z.clone(), share: 0.7, answer: &answer };
    let var = Var::from_tensor(&text.context).unwrap();
    let grads = problem.loss(var.as_tensor()).unwrap().backward().unwrap();
    let gradient = grads.get(&var).unwrap();
    let value = |direction: &Tensor, step: f64| {
        let moved = (&text.context + (direction * step).unwrap()).unwrap();
        f64::from(problem.loss(&moved).unwrap().to_scalar::<f32>().unwrap())
    };
    // Along the gradient and a random direction: f32 leaves three digits of a difference of 1e-2.
    for direction in [gradient.clone(), normal(text.context.dims(), 2)] {
        let length = direction.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        let unit = (direction / f64::from(length)).unwrap();
        let exact = f64::from((gradient * &unit).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
        let norm = f64::from(gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt());
        let numeric = (value(&unit, 0.1) - value(&unit, -0.1)) / 0.2;
        assert!(norm > 0.0 && (numeric - exact).abs() < 0.01 * norm + 1e-6, "{numeric} {exact} {norm}");
    }
}

/// Root mean square of what guided sampling with the source's own prompt misses.
fn missed(prior: &Prior, source: &Frames, iterations: Option<usize>) -> f64 {
    let mut config = settings();
    config.target_prompt = config.source_prompt.clone();
    config.guidance_scale = 6.0;
    config.fusion.attribute.clear();
    config.null_text = iterations.map(|n| NullTextConfig { iterations: n, rate: 3e-2, ..Default::default() });
    let store = MemoryStore::default();
    edit(Editor::new(prior, config, &store), source).unwrap();
    let sum = |stage: &str| -> Vec<f32> {
        (0..2).flat_map(|w| values(&store.get(&format!("{stage}/{STEPS:04}/{w:05}")).unwrap())).collect()
    };
    let (a, b) = (sum("edited"), sum("inverted"));
    (a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

#[test]
fn reconstruction_under_guidance_comes_nearer_to_the_source() {
    let prior = tiny();
    let source = clip(4, (16, 16), 2.0);
    let (plain, none, some, more) = (
        missed(&prior, &source, None),
        missed(&prior, &source, Some(0)),
        missed(&prior, &source, Some(5)),
        missed(&prior, &source, Some(40)),
    );
    println!("{plain:.3e} {none:.3e} {some:.3e} {more:.3e}");
    // Without an iteration the embedding is the prompt's own.
    assert!((none - plain).abs() < 1e-6 * plain, "{plain} {none}");
    assert!(some < 0.95 * plain && more < some, "{plain} {some} {more}");
}

#[test]
fn a_stopped_optimisation_goes_on_to_the_same_bytes() {
    let (prior, source) = (tiny(), clip(4, (16, 16), 2.0));
    let mut config = settings();
    config.null_text = Some(NullTextConfig { iterations: 2, until: 0.7, ..Default::default() });
    let run = |store: &MemoryStore, most: usize| {
        let (mut sink, mut ticks) = (Frames::default(), 0);
        let mut progress = |p: Progress| {
            ticks += usize::from(p.stage == Stage::NullText);
            if ticks > most { Err(crate::Error::Interrupted) } else { Ok(()) }
        };
        let editor = Editor::new(&prior, config.clone(), store);
        editor.edit(&source, &mut sink, &mut progress, &AtomicBool::new(false)).map(|()| sink)
    };
    let whole = run(&MemoryStore::default(), usize::MAX).unwrap();
    // Two windows and two of three steps with an embedding: stopped in the second step.
    let store = MemoryStore::default();
    assert!(run(&store, 2).is_err());
    assert_eq!(bits(&run(&store, usize::MAX).unwrap()), bits(&whole));
}

#[test]
fn what_it_needs_is_said() {
    let mut config = settings();
    config.null_text = Some(NullTextConfig::default());
    config.guidance_scale = 1.0;
    assert!(config.check().unwrap_err().to_string().contains("null_text"));
    config.guidance_scale = 3.0;
    config.start = Start::Noise;
    assert!(config.check().unwrap_err().to_string().contains("null_text"));
}
