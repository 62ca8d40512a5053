//! Training of adapters, and gradients in little memory.

use std::path::Path;

use super::super::control::{ControlConfig, ControlNet, Residuals};
use super::super::lora::{Lora, Part, fresh, is_attention, merge};
use super::super::nn::adam::{AdamConfig, AdamW};
use super::super::schedule::{Config, Schedule};
use super::super::unet::attention::{AttentionHook, Call, Site};
use super::*;

/// U-Nets that differ in what recomputation has to take care of.
fn unets() -> [(&'static str, UnetConfig); 3] {
    let plain = unet_config();
    let mut deep = unet_config();
    deep.block_out_channels = vec![16, 16, 32];
    deep.down_block_types =
        ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"].map(String::from).into();
    deep.up_block_types = ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"].map(String::from).into();
    let centred = UnetConfig { center_input_sample: true, ..unet_config() };
    [("plain", plain), ("deep", deep), ("centred", centred)]
}

fn norm(t: &Tensor) -> f64 {
    t.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

fn off(a: &Tensor, b: &Tensor) -> f64 {
    norm(&(a - b).unwrap()) / norm(b).max(1e-300)
}

#[test]
fn recomputed_gradients_are_those_of_the_whole_tape() {
    for (name, config) in unets() {
        let store = random_store(|s| Unet::new(config.clone(), &s.root()).map(drop), DType::F64, true);
        let unet = Unet::new(config, &store.root()).unwrap();
        let var = |shape: &[usize], key| Var::from_tensor(&normal(shape, key, DType::F64)).unwrap();
        let (x, context, camera) = (var(&[2, 10, 7, 8], 0), var(&[2, 3, 8], 1), var(&[2, 16], 2));
        let t = Tensor::new(&[3f32, 700.], &Device::Cpu).unwrap();
        let weight = normal(&[2, 4, 7, 8], 3, DType::F64);
        let inputs =
            UnetInputs { class_labels: Some(camera.as_tensor()), ..UnetInputs::new(&x, &t, &context) };
        let loss = |y: &Tensor| -> Result<Tensor> { Ok((y.sqr()? * &weight)?.sum_all()?) };
        let whole = loss(&unet.predict(&inputs).unwrap()).unwrap();
        let want = whole.backward().unwrap();
        let got = unet.backward_recomputed(&inputs, loss).unwrap();
        assert!(off(&got.loss, &whole) < 1e-14, "{name}");
        assert!(off(&got.sample, want.get(&x).unwrap()) < 1e-11, "{name}: sample");
        assert!(off(&got.context, want.get(&context).unwrap()) < 1e-11, "{name}: context");
        // A gradient with a history keeps its block's tape in memory.
        let all = got.gradients.iter().flat_map(|g| g.get_ids().filter_map(|id| g.get_id(*id)));
        assert!(all.chain([&got.sample, &got.context]).all(|g| !g.track_op()), "{name}");
        let mut seen = 0;
        for (key, var) in store.vars().into_iter().chain([("(camera)".to_owned(), camera.clone())]) {
            let parts: Vec<&Tensor> = got.gradients.iter().filter_map(|g| g.get(var.as_tensor())).collect();
            assert_eq!(parts.len(), 1, "{name}: {key}");
            let want = want.get(var.as_tensor()).unwrap();
            // Where the gradient is zero by mathematics, only rounding is left to compare.
            let close = norm(&(parts[0] - want).unwrap()) < 1e-11 * (1.0 + norm(want));
            assert!(close, "{name}: {key} {:e}", off(parts[0], want));
            seen += usize::from(norm(want) > 1e-6);
        }
        assert!(seen > 50, "{name}: {seen}");
    }
}

/// Adds a trainable row to the values of each attention to the picture itself.
struct Shift(Var);

impl AttentionHook for Shift {
    fn attend(&self, site: &Site, call: Call<'_>) -> Result<Tensor> {
        if site.cross {
            return call.attend();
        }
        let width = call.v.dim(2)?;
        let v = call.v.broadcast_add(&self.0.as_tensor().narrow(0, 0, width)?)?;
        Call { v: &v, ..call }.attend()
    }
}

/// Those of a random `ControlNet` for `unet`.
fn residuals(unet: &Unet, inputs: &UnetInputs<'_>) -> Residuals {
    let config = ControlConfig {
        unet: unet.config.clone(),
        conditioning_channels: 3,
        conditioning_embedding_out_channels: vec![8, 16],
        controlnet_conditioning_channel_order: "rgb".into(),
        global_pool_conditions: false,
    };
    let store = random_store(|s| ControlNet::new(config.clone(), &s.root()).map(drop), DType::F64, false);
    let net = ControlNet::new(config, &store.root()).unwrap();
    let (batch, _, h, w) = inputs.sample.dims4().unwrap();
    net.forward(inputs, &normal(&[batch, 3, 2 * h, 2 * w], 5, DType::F64), 1.0, false).unwrap()
}

/// What comes in beside the picture: residuals of a `ControlNet` and the tensors of a hook.
#[test]
fn recomputed_gradients_reach_residuals_and_hooks() {
    for (name, config) in unets() {
        let store = random_store(|s| Unet::new(config.clone(), &s.root()).map(drop), DType::F64, true);
        let unet = Unet::new(config, &store.root()).unwrap();
        let (x, context) = (normal(&[1, 10, 8, 8], 0, DType::F64), normal(&[1, 3, 8], 1, DType::F64));
        let (t, camera) = (Tensor::new(&[300f32], &Device::Cpu).unwrap(), normal(&[1, 16], 2, DType::F64));
        let plain = UnetInputs { class_labels: Some(&camera), ..UnetInputs::new(&x, &t, &context) };
        let var = |like: &Tensor, key| Var::from_tensor(&normal(like.dims(), key, DType::F64)).unwrap();
        let shapes = residuals(&unet, &plain);
        let down: Vec<Var> = shapes.down.iter().zip(10..).map(|(s, key)| var(s, key)).collect();
        let mid = var(&shapes.mid, 30);
        let hook = Shift(var(&Tensor::zeros(64, DType::F64, &Device::Cpu).unwrap(), 31));
        // As a ControlNet gives them: with a history of their own, which belongs to whoever trains it.
        let given: Vec<Tensor> = down.iter().map(|d| (d.as_tensor() * 2.0).unwrap()).collect();
        let given_mid = (mid.as_tensor() * 2.0).unwrap();
        let inputs =
            UnetInputs { down_residuals: &given, mid_residual: Some(&given_mid), hook: Some(&hook), ..plain };
        let loss = |y: &Tensor| -> Result<Tensor> { Ok(y.sqr()?.sum_all()?) };
        let want = loss(&unet.predict(&inputs).unwrap()).unwrap().backward().unwrap();
        let got = unet.backward_recomputed(&inputs, loss).unwrap();
        let wanted: Vec<Tensor> =
            down.iter().chain([&mid]).map(|v| (want.get(v).unwrap() / 2.0).unwrap()).collect();
        let found: Vec<&Tensor> = got.down_residuals.iter().chain(got.mid_residual.as_ref()).collect();
        assert_eq!(found.len(), wanted.len(), "{name}");
        for (i, (found, wanted)) in found.into_iter().zip(&wanted).enumerate() {
            assert!(norm(wanted) > 1e-6 && off(found, wanted) < 1e-11, "{name}: residual {i}");
        }
        let parts: Vec<&Tensor> = got.gradients.iter().filter_map(|g| g.get(hook.0.as_tensor())).collect();
        assert!(parts.len() > 2, "{name}: the hook is used in several blocks");
        let sum = parts[1..].iter().fold(parts[0].clone(), |a, b| (a + *b).unwrap());
        assert!(off(&sum, want.get(&hook.0).unwrap()) < 1e-11, "{name}: hook");
        // Without residuals there are no gradients of them.
        let none = unet.backward_recomputed(&plain, loss).unwrap();
        assert!(none.down_residuals.is_empty() && none.mid_residual.is_none());
    }
}

/// Three steps of diffusion training of adapters on a frozen U-Net.
#[test]
fn adapters_learn_and_nothing_else_moves() {
    let (store, _net) = unet_store(DType::F32, true);
    let base: HashMap<String, Tensor> =
        store.vars().iter().map(|(k, v)| (k.clone(), v.as_tensor().copy().unwrap())).collect();
    let new = fresh(&base, is_attention, 2, 2.0, 1).unwrap();
    // One transformer block at each place: two attentions of four projections, of two tensors each.
    let places = base.keys().filter(|k| k.ends_with("attn2.to_k.weight")).count();
    assert_eq!(new.vars.len(), places * 2 * 4 * 2);
    let frozen =
        Store::loaded(base.clone(), DType::F32, false, &Device::Cpu).with_adapters(new.adapters.clone());
    let unet = Unet::new(unet_config(), &frozen.root()).unwrap();
    frozen.finish(Path::new("x"), |_| false).unwrap();
    assert!(frozen.vars().is_empty(), "nothing else is a variable");

    let schedule = Schedule::new(Config::default()).unwrap();
    let (x0, noise) = (normal(&[2, 10, 8, 8], 0, DType::F32), normal(&[2, 10, 8, 8], 7, DType::F32));
    let (context, camera) = (normal(&[2, 3, 8], 1, DType::F32), normal(&[2, 16], 2, DType::F32));
    let times = [300f32, 700.];
    let t = Tensor::new(&times, &Device::Cpu).unwrap();
    let x_t = schedule.add_noise(&x0, &noise, &times).unwrap();
    let inputs = UnetInputs { class_labels: Some(&camera), ..UnetInputs::new(&x_t, &t, &context) };
    let target = noise.narrow(1, 0, 4).unwrap();
    let loss = |y: &Tensor| -> Result<Tensor> { Ok((y - &target)?.sqr()?.mean_all()?) };
    let mut adam =
        AdamW::new(new.vars.clone(), AdamConfig { weight_decay: 0.0, ..Default::default() }).unwrap();
    let mut losses = Vec::new();
    for step in 0..3 {
        let got = unet.backward_recomputed(&inputs, loss).unwrap();
        losses.push(got.loss.to_scalar::<f32>().unwrap());
        for (name, var) in &new.vars {
            let size: f64 = got.gradients.iter().filter_map(|g| g.get(var.as_tensor())).map(norm).sum();
            // While U is zero, D has no influence.
            let waiting = step == 0 && name.ends_with("lora_A.weight");
            assert_eq!(size == 0.0, waiting, "step {step}: {name} {size:e}");
        }
        adam.step_sum(&got.gradients.iter().collect::<Vec<_>>(), 1e-3).unwrap();
    }
    assert!(losses[2] < losses[1] && losses[1] < losses[0], "{losses:?}");
    for (name, before) in store.vars() {
        assert_eq!(off(&base[&name], before.as_tensor()), 0.0, "{name} has moved");
    }

    // Written, read and merged, they do what they did live.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lora.safetensors");
    new.save(&path, "unet").unwrap();
    let mut merged = base.clone();
    merge(&mut merged, Part::Unet, &[(Lora::read(&path).unwrap(), 1.0)]).unwrap();
    let merged = Store::loaded(merged, DType::F32, false, &Device::Cpu);
    let other = Unet::new(unet_config(), &merged.root()).unwrap();
    let (live, plain) = (unet.predict(&inputs).unwrap(), other.predict(&inputs).unwrap());
    let (_store, start) = unet_store(DType::F32, false);
    let start = start.predict(&inputs).unwrap();
    assert!(off(&live, &plain) < 1e-5 && off(&live, &start) > 1e-3, "{}", off(&live, &plain));
}

#[test]
fn the_encoders_gradient_without_a_tape_is_that_of_the_tape() {
    for config in [vae_config(), VaeConfig { mid_block_add_attention: false, ..vae_config() }] {
        let store = random_store(|s| Vae::new(config.clone(), &s.root()).map(drop), DType::F32, false);
        let vae = Vae::new(config, &store.root()).unwrap();
        let x = Var::from_tensor(&normal(&[2, 3, 16, 8], 0, DType::F32)).unwrap();
        let z = vae.encode_mean(x.as_tensor()).unwrap();
        let weight = normal(z.dims(), 3, DType::F32);
        let grads = (&z * &weight).unwrap().sum_all().unwrap().backward().unwrap();
        let encoded = vae.encode_saving(x.as_tensor()).unwrap();
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(&z), flat(encoded.latents()));
        assert!(!encoded.latents().track_op(), "a history would keep the tape");
        let got = vae.pull_back(encoded, &weight).unwrap();
        assert!(!got.track_op() && norm(&got) > 1e-3);
        assert_eq!(flat(grads.get(&x).unwrap()), flat(&got), "the same operations in the same order");
    }
}
