//! The particles' estimate on real (small) U-Nets of both kinds: one that is told no camera, and one that
//! has always been.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::tests::values;
use super::*;
use crate::prior::conditioning::Conditioning;
use crate::prior::lora::{fresh, is_attention};
use crate::prior::schedule::{Config, Prediction, Schedule};
use crate::prior::tensor_file::read_safetensors;
use crate::prior::unet::{Unet, UnetConfig};
use crate::prior::weights::Store;
use crate::rng::{Rng, Stream};
use crate::sample::{NoisePredictor, normal_like};

struct Small {
    config: UnetConfig,
    weights: HashMap<String, Tensor>,
    text: Conditioning,
}

fn small(name: &str) -> Small {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(name).join("unet");
    let text = std::fs::read_to_string(dir.join("config.json")).unwrap();
    let config: UnetConfig = serde_json::from_str(&text).unwrap();
    let weights = read_safetensors(&dir.join("diffusion_pytorch_model.safetensors")).unwrap();
    let context = normal(&[1, 5, config.cross_attention_dim], 1);
    Small { config, weights, text: Conditioning { context, pooled: None } }
}

fn normal(shape: &[usize], key: u32) -> Tensor {
    let like = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    normal_like(&like, &Rng::new(4, Stream::Probe, key)).unwrap()
}

fn schedule(prediction: Prediction) -> Schedule {
    Schedule::new(Config { prediction_type: prediction, ..Config::default() }).unwrap()
}

impl Small {
    fn estimator(&self, prediction: Prediction, learning_rate: f64) -> Estimator {
        let config = EstimatorConfig { learning_rate, ..EstimatorConfig::default() };
        Estimator::new(
            self.config.clone(),
            self.weights.clone(),
            schedule(prediction),
            self.text.clone(),
            config,
            (&Device::Cpu, 5),
        )
        .unwrap()
    }

    fn latents(&self) -> Tensor {
        normal(&[3, self.config.latent_channels(), 8, 8], 2)
    }

    /// ε of the U-Net without adapters.
    fn base(&self, prediction: Prediction, x: &Tensor, t: &[f32], cameras: &Tensor) -> Tensor {
        let store = Store::loaded(self.weights.clone(), DType::F32, false, &Device::Cpu);
        let unet = Unet::new(self.config.clone(), &store.root()).unwrap();
        let time = Tensor::from_vec(t.to_vec(), t.len(), &Device::Cpu).unwrap();
        let context = self.text.rows(t.len()).unwrap().context;
        let told = self.config.class_embed_type.is_some().then_some(cameras);
        let output = unet.forward(x, &time, &context, told).unwrap();
        schedule(prediction).to_epsilon(&output, x, t).unwrap()
    }
}

fn cameras() -> Tensor {
    let one = |azimuth| {
        crate::render::camera::Camera::orbit(azimuth, 10.0, 2.4, glam::Vec3::ZERO, 0.7, 64).embedding()
    };
    let numbers: Vec<f32> = [0.0, 100.0, 200.0].into_iter().flat_map(one).collect();
    Tensor::from_vec(numbers, (3, 16), &Device::Cpu).unwrap()
}

fn at(step: u32) -> At {
    At { step, progress: 0.0, seed: 8 }
}

fn furthest(a: &Tensor, b: &Tensor) -> f64 {
    values(&(a - b).unwrap()).iter().fold(0.0, |m, v| m.max(v.abs()))
}

#[test]
fn it_begins_as_the_prior_whether_that_takes_a_camera_or_not() {
    for name in ["sd1", "sd2", "camera"] {
        for prediction in [Prediction::Epsilon, Prediction::V] {
            let small = small(name);
            let mut estimator = small.estimator(prediction, 1e-3);
            let (x, t, cameras) = (small.latents(), [10f32, 500.0, 990.0], cameras());
            let got = estimator.under(&cameras).predict(&x, &t).unwrap();
            assert_eq!(furthest(&got, &small.base(prediction, &x, &t, &cameras)), 0.0, "{name}");
            assert!(values(&got).iter().any(|v| v.abs() > 0.1));
            // With a step it leaves it, with a reset it is back.
            estimator.learn(&x, &cameras, at(0)).unwrap();
            assert!(furthest(&estimator.under(&cameras).predict(&x, &t).unwrap(), &got) > 1e-6, "{name}");
            estimator.reset().unwrap();
            assert_eq!(furthest(&estimator.under(&cameras).predict(&x, &t).unwrap(), &got), 0.0, "{name}");
        }
    }
}

#[test]
fn every_adapter_and_camera_weight_learns_and_the_prior_does_not_move() {
    for name in ["sd1", "camera"] {
        let small = small(name);
        let before: BTreeMap<String, Tensor> =
            small.weights.iter().map(|(k, v)| (k.clone(), v.copy().unwrap())).collect();
        let mut estimator = small.estimator(Prediction::Epsilon, 1e-3);
        // The first step moves what began at zero, and only then do the others have an influence.
        for step in 0..2 {
            let learned = estimator.learn(&small.latents(), &cameras(), at(step)).unwrap();
            assert!(learned.loss > 0.0 && learned.norm > 0.0);
        }
        let state = estimator.state().unwrap();
        let moments: Vec<_> = state.iter().filter(|(k, _)| k.starts_with("m:")).collect();
        for (key, moment) in &moments {
            assert!(moment.iter().any(|m| *m != 0.0), "{name}: {key} has no gradient");
        }
        let attentions = before.keys().filter(|k| is_attention(k.trim_end_matches(".weight"))).count();
        // Names of weights and of biases of `to_out` alike.
        let biases = before.keys().filter(|k| k.contains(".to_out.0.bias")).count();
        let camera = if name == "sd1" { 4 } else { 0 };
        assert!(biases > 0 && moments.len() == 2 * attentions + camera, "{name}: {}", moments.len());
        for (key, tensor) in &before {
            assert_eq!(furthest(&small.weights[key], tensor), 0.0, "{name}: {key} has moved");
        }
    }
}

#[test]
fn state_out_and_in_goes_on_bit_for_bit() {
    let small = small("sd1");
    let (z, cameras) = (small.latents(), cameras());
    let mut whole = small.estimator(Prediction::V, 1e-3);
    let mut first = small.estimator(Prediction::V, 1e-3);
    for step in 0..6 {
        whole.learn(&z, &cameras, at(step)).unwrap();
        if step < 3 {
            first.learn(&z, &cameras, at(step)).unwrap();
        }
    }
    let mut second = small.estimator(Prediction::V, 1e-3);
    second.load_state(&first.state().unwrap()).unwrap();
    (3..6).for_each(|step| assert!(second.learn(&z, &cameras, at(step)).unwrap().loss > 0.0));
    assert!(second.state().unwrap() == whole.state().unwrap());
    assert!(first.state().unwrap() != whole.state().unwrap());
    let mut lacking = first.state().unwrap();
    lacking.pop_last();
    assert!(second.load_state(&lacking).unwrap_err().is_usage());
    assert!(second.state().unwrap() == whole.state().unwrap(), "nothing is changed by what does not fit");
}

#[test]
fn it_learns_to_denoise_what_the_particles_are() {
    let small = small("sd1");
    let (z, cameras) = (normal(&[3, 4, 8, 8], 9), cameras());
    let mut estimator = small.estimator(Prediction::Epsilon, 1e-2);
    let mean = |estimator: &mut Estimator, steps: std::ops::Range<u32>| {
        let n = f64::from(steps.end - steps.start);
        steps.map(|step| estimator.learn(&z, &cameras, at(step)).unwrap().loss).sum::<f64>() / n
    };
    let first = mean(&mut estimator, 0..20);
    mean(&mut estimator, 20..80);
    let last = mean(&mut estimator, 80..100);
    assert!(last < 0.9 * first, "{first} {last}");
}

#[test]
fn the_camera_reaches_the_answer_and_is_dropped_one_time_in_ten() {
    let small = small("sd1");
    let (z, cameras) = (small.latents(), cameras());
    let mut estimator = small.estimator(Prediction::Epsilon, 1e-2);
    (0..5).for_each(|step| assert!(estimator.learn(&z, &cameras, at(step)).unwrap().loss > 0.0));
    let told = |c: &Tensor| estimator.under(c).predict(&z, &[300.0; 3]).unwrap();
    assert!(furthest(&told(&cameras), &told(&cameras.zeros_like().unwrap())) > 1e-4);
    let mut dropped = 0;
    for step in 0..400 {
        let got = estimator.dropped(&cameras, at(step)).unwrap();
        for row in 0..3 {
            let row = values(&got.narrow(0, row, 1).unwrap());
            dropped += usize::from(row.iter().all(|v| *v == 0.0));
        }
    }
    // 120 of 1,200 expected; five standard deviations are 52.
    assert!((68..172).contains(&dropped), "{dropped}");
    let camera = super::estimator_tests::small("camera").estimator(Prediction::Epsilon, 1e-3);
    let kept = (0..100).all(|s| furthest(&camera.dropped(&cameras, at(s)).unwrap(), &cameras) == 0.0);
    assert!(kept, "a prior that has always been told the camera knows no picture without");
}

/// Attention layers of a full-size U-Net and how many numbers adapters of rank 4 add to them. Only shapes
/// are asked for: zeros that nobody touches take no memory.
fn adapters(change: impl FnOnce(&mut UnetConfig)) -> (usize, usize) {
    let mut config = small("sd1").config;
    config.sample_size = 64;
    config.block_out_channels = vec![320, 640, 1280, 1280];
    config.norm_num_groups = 32;
    config.layers_per_block = crate::prior::unet::PerBlock::One(2);
    let cross = || "CrossAttnDownBlock2D".to_owned();
    config.down_block_types = vec![cross(), cross(), cross(), "DownBlock2D".into()];
    let cross = || "CrossAttnUpBlock2D".to_owned();
    config.up_block_types = vec!["UpBlock2D".into(), cross(), cross(), cross()];
    config.attention_head_dim = crate::prior::unet::PerBlock::One(8);
    change(&mut config);
    let store = Store::loaded(HashMap::new(), DType::F32, false, &Device::Cpu);
    Unet::new(config, &store.root()).unwrap();
    let layers: HashMap<String, Tensor> = store
        .shapes()
        .into_iter()
        .filter(|(name, _)| name.strip_suffix(".weight").is_some_and(is_attention))
        .map(|(name, shape)| {
            (name, Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap().expand(shape).unwrap())
        })
        .collect();
    let new = fresh(&layers, is_attention, 4, 4.0, 0).unwrap();
    (layers.len(), new.vars.values().map(|v| v.elem_count()).sum())
}

#[test]
fn full_size_priors_get_the_published_number_of_parameters() {
    // 32 attentions of four projections; threestudio's count for Stable Diffusion 1.5 and 2.1.
    assert_eq!(adapters(|c| c.cross_attention_dim = 768), (128, 797_184));
    assert_eq!(adapters(|c| c.cross_attention_dim = 1024), (128, 829_952));
    let mlp = super::estimator::camera_mlp(1280, &Device::Cpu, 0).unwrap();
    assert_eq!(mlp.iter().map(|(_, v)| v.elem_count()).sum::<usize>(), 1_661_440);
    let small = small("sd1");
    let width = small.config.time_width();
    let (camera, whole) = (17 * width + width * (width + 1), small.estimator(Prediction::Epsilon, 1e-3));
    let adapters: usize =
        fresh(&small.weights, is_attention, 4, 4.0, 0).unwrap().vars.values().map(|v| v.elem_count()).sum();
    assert_eq!(whole.parameters(), adapters + camera);
}

#[test]
fn a_prior_without_room_for_a_camera_is_refused_with_a_hint() {
    let small = small("timestep_class");
    let config = EstimatorConfig::default();
    let made = Estimator::new(
        small.config,
        small.weights,
        schedule(Prediction::Epsilon),
        small.text,
        config,
        (&Device::Cpu, 0),
    );
    let error = made.err().unwrap();
    assert!(error.is_usage() && error.hint_text().is_some());
}

#[test]
fn recomputing_learns_the_same() {
    for (name, prediction) in [("sd1", Prediction::Epsilon), ("camera", Prediction::V)] {
        let small = small(name);
        let at = |step| At { step, progress: 0.0, seed: 7 };
        let learned = |recompute| {
            let mut own = small.estimator(prediction, 1e-2).recomputing(recompute);
            let steps: Vec<f64> =
                (0..3).map(|i| own.learn(&small.latents(), &cameras(), at(i)).unwrap().loss).collect();
            let weights: Vec<f32> = own.state().unwrap().into_values().flatten().collect();
            (steps, weights)
        };
        let ((kept, a), (again, b)) = (learned(false), learned(true));
        assert!(kept[0] != kept[2], "{name}: nothing was learned");
        for (x, y) in kept.iter().zip(&again) {
            assert!((x - y).abs() < 1e-5 * x, "{name}: {kept:?} {again:?}");
        }
        // Adam's steps have the learning rate's size whatever the gradient's, so rounding of a gradient that
        // is nearly zero may show; all others agree.
        let off = a.iter().zip(&b).filter(|(x, y)| (*x - *y).abs() > 1e-4).count();
        assert!(off * 200 < a.len(), "{name}: {off} of {}", a.len());
    }
}
