//! Where the networks can be reached into: adapters, attention hooks, scales, skipped blocks.

use std::cell::RefCell;

use super::super::control::{ControlConfig, ControlNet};
use super::super::unet::attention::{AttentionHook, Call, Site};
use super::super::weights::{Adapter, Adapters};
use super::*;

const LAYER: &str = "mid_block.attentions.0.transformer_blocks.0.attn1.to_v";

/// Largest difference over largest value.
fn off(a: &Tensor, b: &Tensor) -> f64 {
    let most = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
    most(&(a - b).unwrap()) / most(b)
}

fn tensors() -> HashMap<String, Tensor> {
    let (store, _unet) = unet_store(DType::F64, true);
    store.vars().iter().map(|(k, v)| (k.clone(), v.as_tensor().copy().unwrap())).collect()
}

fn inputs() -> [Tensor; 4] {
    let t = Tensor::new(&[3f32, 700.], &Device::Cpu).unwrap();
    let of = |shape: &[usize], key| normal(shape, key, DType::F64);
    [of(&[2, 10, 8, 8], 0), t, of(&[2, 3, 8], 1), of(&[2, 16], 2)]
}

fn predict(store: Store, hook: Option<&dyn AttentionHook>) -> Tensor {
    let unet = Unet::new(unet_config(), &store.root()).unwrap();
    store.finish(std::path::Path::new("x"), |_| false).unwrap();
    let [x, t, context, camera] = inputs();
    unet.predict(&UnetInputs { class_labels: Some(&camera), hook, ..UnetInputs::new(&x, &t, &context) })
        .unwrap()
}

fn adapted(up: &Tensor, down: &Tensor, layer: &str) -> Store {
    let adapter = Adapter { down: down.clone(), up: up.clone(), scale: 0.7 };
    let adapters = Adapters::from([(layer.to_owned(), vec![adapter])]);
    Store::loaded(tensors(), DType::F64, false, &Device::Cpu).with_adapters(adapters)
}

#[test]
fn a_live_adapter_is_the_merged_one_and_nothing_while_up_is_zero() {
    let weight = tensors()[&format!("{LAYER}.weight")].clone();
    let (outputs, width) = weight.dims2().unwrap();
    let (up, down) = (normal(&[outputs, 2], 5, DType::F64), normal(&[2, width], 6, DType::F64));
    let base = predict(Store::loaded(tensors(), DType::F64, false, &Device::Cpu), None);
    let live = predict(adapted(&up, &down, LAYER), None);
    let mut merged = tensors();
    let delta = (up.matmul(&down).unwrap() * 0.7).unwrap();
    merged.insert(format!("{LAYER}.weight"), (weight + delta).unwrap());
    let merged = predict(Store::loaded(merged, DType::F64, false, &Device::Cpu), None);
    // Both in f64: nothing but rounding may differ.
    assert!(off(&live, &merged) < 1e-12 && off(&live, &base) > 1e-3, "{}", off(&live, &merged));
    assert_eq!(off(&predict(adapted(&up.zeros_like().unwrap(), &down, LAYER), None), &base), 0.0);
}

#[test]
fn adapters_get_gradients_and_strays_are_named() {
    let var = |shape: &[usize], key| Var::from_tensor(&normal(shape, key, DType::F64)).unwrap();
    let dims = tensors()[&format!("{LAYER}.weight")].dims().to_vec();
    let (up, down) = (var(&[dims[0], 2], 5), var(&[2, dims[1]], 6));
    let grads = predict(adapted(up.as_tensor(), down.as_tensor(), LAYER), None)
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    for v in [&up, &down] {
        let size = grads.get(v.as_tensor()).unwrap().sqr().unwrap().sum_all().unwrap();
        assert!(size.to_scalar::<f64>().unwrap() > 0.0);
    }
    let store = adapted(up.as_tensor(), down.as_tensor(), "nowhere.to_q");
    let _unet = Unet::new(unet_config(), &store.root()).unwrap();
    let error = store.finish(std::path::Path::new("x"), |_| false).unwrap_err();
    assert!(error.to_string().contains("nowhere.to_q"), "{error}");
}

/// Attends by explicit maps, and remembers where.
struct ByMaps(RefCell<Vec<Site>>, f64);

impl AttentionHook for ByMaps {
    fn attend(&self, site: &Site, call: Call<'_>) -> Result<Tensor> {
        self.0.borrow_mut().push(site.clone());
        let maps = call.maps()?;
        let rows = maps.sum(3)?.flatten_all()?.to_vec1::<f64>()?;
        assert!(rows.iter().all(|r| (r - 1.0).abs() < 1e-12), "maps are distributions");
        call.with_maps(&(maps * self.1)?)
    }
}

#[test]
fn maps_reproduce_attention_and_editing_them_matters() {
    let store = || Store::loaded(tensors(), DType::F64, false, &Device::Cpu);
    let base = predict(store(), None);
    let (same, edited) = (ByMaps(RefCell::default(), 1.0), ByMaps(RefCell::default(), 0.5));
    assert!(off(&predict(store(), Some(&same)), &base) < 1e-12);
    assert!(off(&predict(store(), Some(&edited)), &base) > 1e-3);
    let sites = same.0.into_inner();
    assert!(sites.iter().any(|s| format!("{}.to_v", s.name) == LAYER && !s.cross));
    // Self- and cross-attention take turns.
    assert!(sites.iter().enumerate().all(|(i, s)| s.cross == (i % 2 == 1)), "{sites:?}");
}

#[test]
fn control_residuals_scale_add_and_are_guessed() {
    let mut unet = unet_config();
    unet.camera_rays_fov = None;
    let json = serde_json::to_value(&unet).unwrap();
    let mut config: ControlConfig = serde_json::from_value(json).unwrap();
    config.unet.up_block_types.clear();
    config.conditioning_embedding_out_channels = vec![4, 4];
    let store = random_store(|s| ControlNet::new(config.clone(), &s.root()).map(drop), DType::F64, false);
    let net = ControlNet::new(config, &store.root()).unwrap();
    let [x, t, context, camera] = inputs();
    let inputs = UnetInputs { class_labels: Some(&camera), ..UnetInputs::new(&x, &t, &context) };
    let picture = normal(&[2, 3, 16, 16], 7, DType::F64);
    let run = |scale, guess| net.forward(&inputs, &picture, scale, guess).unwrap();
    let (one, two, guess) = (run(1.0, false), run(2.0, false), run(1.0, true));
    let sum = one.plus(&one).unwrap();
    let n = one.down.len();
    for (i, down) in one.down.iter().enumerate() {
        assert!(off(&two.down[i], &sum.down[i]) < 1e-12);
        let factor = 10f64.powf(i as f64 / n as f64 - 1.0);
        assert!(off(&guess.down[i], &(down * factor).unwrap()) < 1e-12);
    }
    assert!(off(&guess.mid, &one.mid) < 1e-12 && off(&two.mid, &sum.mid) < 1e-12);
}

#[test]
fn no_skipped_block_and_no_noise_change_nothing() {
    let (_store, text) = text_store(DType::F64, false);
    let ids = Tensor::new(&[[1u32, 5, 19, 19]], &Device::Cpu).unwrap();
    let encoded = text.encode(&ids).unwrap();
    assert_eq!(off(&text.skipping(&ids, 0).unwrap(), &encoded.last), 0.0);
    assert_eq!(off(&encoded.last, &text.forward(&ids).unwrap()), 0.0);
    assert!(text.skipping(&ids, 1).is_err(), "the tiny encoder has one block");
    let (_store, vae) = vae_store(DType::F64, false);
    let x = normal(&[1, 3, 8, 8], 0, DType::F64);
    let mean = vae.encode_mean(&x).unwrap();
    let zero = mean.zeros_like().unwrap();
    assert_eq!(off(&vae.encode_sample(&x, &zero).unwrap(), &mean), 0.0);
    assert!(off(&vae.encode_sample(&x, &(zero + 1.0).unwrap()).unwrap(), &mean) > 1e-3);
}
