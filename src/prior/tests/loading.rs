//! Loading from folders, and the errors of broken ones.

use std::path::Path;

use super::super::files::Folder;
use super::super::tensor_file::{parse_safetensors, read_safetensors};
use super::super::{Prior, tokenizer::Tokenizer};
use super::*;
use crate::train::data::Words;
use crate::train::publish_for_tests;

/// A random tiny prior in diffusers' layout.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config = tiny();
    let captions = vec!["a blue jay".to_owned()];
    let tokenizer = Tokenizer::train(&captions, 600, config.max_tokens).unwrap();
    config.vocab_size = tokenizer.vocab_size();
    let seen = ["a", "blue", "jay"].map(String::from).into();
    let words = Words { seen, ..Words::default() };
    let tensors =
        |store: Store| store.vars().iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
    let text = config.text_config(tokenizer.vocab_size());
    let text = random_store(|s| TextEncoder::new(text.clone(), &s.root()).map(drop), DType::F32, true);
    let _net = TextEncoder::new(config.text_config(tokenizer.vocab_size()), &text.root()).unwrap();
    publish_for_tests(
        dir.path(),
        &config,
        &tokenizer,
        &words,
        [tensors(vae_store(DType::F32, true).0), tensors(text), tensors(unet_store(DType::F32, true).0)],
    )
    .unwrap();
    dir
}

fn load(dir: &Path) -> Result<Prior> {
    Prior::from_folder(&Folder::Disk(dir.into()), "test", &Device::Cpu)
}

fn message(dir: &Path) -> String {
    let error = load(dir).err().expect("must be refused");
    format!("{error} | {}", error.hint_text().unwrap_or_default())
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_written_prior_loads_and_runs() {
    let dir = folder();
    let prior = load(dir.path()).unwrap();
    assert!(prior.is_camera_conditioned());
    assert_eq!((prior.image_size(), prior.digest.len()), (16, 64));
    assert_eq!(prior.unknown_words("a Blue zebra, zebra"), ["zebra"]);
    assert_eq!(prior.strangers("a bleu zebra").as_deref(), Some("`bleu` (`blue`?), `zebra`"));
    assert_eq!(prior.strangers("a blue"), None);
    let context = prior.encode_texts(&["a blue jay"]).unwrap().remove(0).context;
    assert_eq!(context.dims(), [1, 6, 8]);
    let x = normal(&[1, 3, 16, 16], 0, DType::F32);
    let z = prior.vae.encode_mean(&x).unwrap();
    let t = Tensor::new(&[10f32], &Device::Cpu).unwrap();
    let run = |key: u32| {
        let camera = normal(&[1, 16], key, DType::F32);
        let y = prior.unet.forward(&z, &t, &context, Some(&camera)).unwrap();
        assert_eq!(y.dims(), z.dims());
        y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2), "the camera must matter");
    assert!(prior.unet.forward(&z, &t, &context, None).is_err(), "a missing camera is an error");
    assert_eq!(prior.vae.decode(&z).unwrap().dims(), x.dims());
}

#[test]
fn all_faults_of_a_weight_file_are_listed_at_once() {
    let dir = folder();
    let path = dir.path().join("unet/diffusion_pytorch_model.safetensors");
    let mut tensors = read_safetensors(&path).unwrap();
    tensors.remove("conv_in.weight").unwrap();
    tensors.insert("conv_in.bias".into(), normal(&[3], 0, DType::F32));
    tensors.insert("surplus".into(), normal(&[3], 0, DType::F32));
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let text = message(dir.path());
    for part in ["missing tensor conv_in.weight", "conv_in.bias has shape [3]", "unexpected tensor surplus"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn truncated_flipped_and_foreign_weights_are_errors() {
    let dir = folder();
    let path = dir.path().join("vae/diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 1, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert!(message(dir.path()).contains("not a readable safetensors file"), "cut at {cut}");
    }
    for i in 0..200usize {
        let mut broken = bytes.clone();
        let at = i * 13 % 2000;
        broken[at] ^= 0x55;
        // Any answer but a panic will do: a flipped bit of a value is no format error.
        let _ = parse_safetensors(&broken, &path);
    }
    std::fs::write(&path, b"PK\x03\x04 whatever").unwrap();
    assert!(message(dir.path()).contains("pickle"));
    std::fs::write(&path, "just a text").unwrap();
    assert!(message(dir.path()).contains("not a readable"));
    std::fs::remove_file(&path).unwrap();
    assert!(message(dir.path()).contains("no weights"));
}

#[test]
fn a_header_of_640_bytes_is_no_pickle() {
    // The length 640 reads 80 02, as a pickle of protocol 2 does.
    let mut header = r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.to_owned();
    header.extend(std::iter::repeat_n(' ', 640 - header.len()));
    let bytes = [&640u64.to_le_bytes()[..], header.as_bytes(), &1f32.to_le_bytes()].concat();
    let tensors = parse_safetensors(&bytes, Path::new("x")).unwrap();
    assert_eq!(tensors["x"].to_vec1::<f32>().unwrap(), [1.0]);
    let error = parse_safetensors(b"\x80\x02}q\x00(X\x05", Path::new("x")).unwrap_err();
    assert!(error.to_string().contains("pickle"), "{error}");
}

#[test]
fn unknown_and_unsupported_config_values_are_named() {
    let cases = [
        ("unet/config.json", "\"act_fn\": \"silu\"", "\"act_fn\": \"mish\"", "act_fn"),
        ("unet/config.json", "\"act_fn\"", "\"surprise\"", "surprise"),
        ("unet/config.json", "\"projection\"", "\"simple_projection\"", "class_embed_type"),
        ("unet/config.json", "\"CrossAttnUpBlock2D\"", "\"SkipUpBlock2D\"", "SkipUpBlock2D"),
        ("unet/config.json", "\"layers_per_block\": 1", "\"layers_per_block\": 99999", "layers_per_block"),
        ("unet/config.json", "\"cross_attention_dim\": 8", "\"cross_attention_dim\": 16", "16"),
        ("vae/config.json", "\"act_fn\": \"silu\"", "\"act_fn\": \"relu\"", "act_fn"),
        ("vae/config.json", "\"norm_num_groups\": 2", "\"norm_num_groups\": 7", "block_out_channels"),
        ("text_encoder/config.json", "quick_gelu", "tanh", "hidden_act"),
        ("scheduler/scheduler_config.json", "scaled_linear", "wiggly", "wiggly"),
        ("tokenizer/merges.txt", "#version: 0.2", "#version: 0.2\nnopair", "merges.txt"),
    ];
    for (file, from, to, named) in cases {
        let dir = folder();
        edit(&dir.path().join(file), from, to);
        let text = message(dir.path());
        assert!(text.contains(named), "{file} {to}: {text}");
    }
}
