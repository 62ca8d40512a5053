//! The networks as wholes: gradients against finite differences, loading, and what it refuses.

mod gradients;
mod loading;
mod openings;
mod training;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};

use super::text::{TextConfig, TextEncoder};
use super::unet::{Unet, UnetConfig, UnetInputs};
use super::vae::{Vae, VaeConfig};
use super::weights::Store;
use crate::Result;
use crate::rng::{Rng, Stream};
use crate::train::config::TrainConfig;

/// The smallest networks of the embedded prior's kind.
fn tiny() -> TrainConfig {
    let mut config =
        TrainConfig { image_size: 16, text_width: 8, text_layers: 1, max_tokens: 6, ..Default::default() };
    config.vae.channels = vec![8, 16];
    config.unet.channels = vec![16, 32];
    config.unet.heads = 2;
    config
}

/// Random values for every tensor a network asks for: fresh ones start some layers at zero, which
/// would hide mistakes behind them.
fn random_store(build: impl Fn(&Store) -> Result<()>, dtype: DType, trainable: bool) -> Store {
    let shapes = Store::fresh(0, &Device::Cpu);
    build(&shapes).unwrap();
    let tensors: HashMap<String, Tensor> = shapes
        .vars()
        .into_iter()
        .enumerate()
        .map(|(i, (name, var))| {
            let norm = name.contains("norm") && name.ends_with("weight");
            let values = Rng::new(9, Stream::Init, i as u32).normals(0, var.elem_count());
            let values: Vec<f32> = values.iter().map(|v| v * 0.15 + if norm { 1.0 } else { 0.0 }).collect();
            (name, Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap())
        })
        .collect();
    Store::loaded(tensors, dtype, trainable, &Device::Cpu)
}

fn unet_config() -> UnetConfig {
    tiny().unet_config()
}

fn vae_config() -> VaeConfig {
    tiny().vae_config(0.5)
}

fn text_config() -> TextConfig {
    tiny().text_config(20)
}

fn unet_store(dtype: DType, trainable: bool) -> (Store, Unet) {
    let store = random_store(|s| Unet::new(unet_config(), &s.root()).map(drop), dtype, trainable);
    let unet = Unet::new(unet_config(), &store.root()).unwrap();
    (store, unet)
}

fn vae_store(dtype: DType, trainable: bool) -> (Store, Vae) {
    let store = random_store(|s| Vae::new(vae_config(), &s.root()).map(drop), dtype, trainable);
    let vae = Vae::new(vae_config(), &store.root()).unwrap();
    (store, vae)
}

fn text_store(dtype: DType, trainable: bool) -> (Store, TextEncoder) {
    let store = random_store(|s| TextEncoder::new(text_config(), &s.root()).map(drop), dtype, trainable);
    let text = TextEncoder::new(text_config(), &store.root()).unwrap();
    (store, text)
}

fn normal(shape: &[usize], key: u32, dtype: DType) -> Tensor {
    let n = shape.iter().product();
    let values = Rng::new(4, Stream::Probe, key).normals(0, n);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}
