//! Vector-Jacobian products against PyTorch's, for every input and every parameter of the tiny random
//! models of `tests/parity`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var};
use gen3d::prior::files::Folder;
use gen3d::prior::tensor_file::read_safetensors;
use gen3d::prior::text::TextEncoder;
use gen3d::prior::unet::{Added, Unet, UnetInputs};
use gen3d::prior::vae::Vae;
use gen3d::prior::weights::{Store, Weights};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(name)
}

type Tensors = HashMap<String, Tensor>;

/// A model with all its weights as variables.
fn trainable<C: serde::de::DeserializeOwned, N>(
    name: &str,
    part: &str,
    build: impl Fn(C, &Weights) -> gen3d::Result<N>,
) -> (Store, N) {
    let folder = Folder::Disk(folder(name));
    let (tensors, path) = folder.tensors(part).unwrap();
    let store = Store::loaded(tensors, DType::F32, true, &Device::Cpu);
    let model = build(folder.config(&format!("{part}/config.json")).unwrap(), &store.root()).unwrap();
    store.finish(&path, |k| k.ends_with("position_ids")).unwrap();
    (store, model)
}

fn norm(t: &Tensor) -> f64 {
    t.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

/// ‖g‖ and Σ gᵢ cos i, as the reference has them.
fn summary(g: &Tensor) -> [f64; 2] {
    let flat = g.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    [norm(g), flat.iter().enumerate().map(|(i, g)| g * (i as f64).cos()).sum()]
}

/// Compares the gradients of Σ output·weights; `renamed` gives our name of a PyTorch parameter. Returns
/// the number of parameters and the largest error.
fn compare(
    place: &str,
    store: &Store,
    inputs: &[(&str, &Var)],
    output: &Tensor,
    renamed: impl Fn(&str) -> Option<String>,
) -> (usize, f64) {
    let reference = read_safetensors(&folder(place)).unwrap();
    let grads = (output * &reference["weights"]).unwrap().sum_all().unwrap().backward().unwrap();
    let mut worst = 0f64;
    for (name, var) in inputs {
        let (got, want) = (grads.get(var.as_tensor()).unwrap(), &reference[&format!("input.{name}")]);
        worst = worst.max(norm(&(got - want).unwrap()) / norm(want));
    }
    let vars = store.vars();
    // Some gradients are zero by mathematics (a key's bias shifts all scores of a query alike), and only
    // rounding is left of them: it is measured on the scale of the others.
    let norms = reference.iter().filter(|(name, _)| name.starts_with("param."));
    let squares: Vec<f64> = norms.map(|(_, n)| f64::from(n.to_vec1::<f32>().unwrap()[0]).powi(2)).collect();
    let floor = 1e-2 * (squares.iter().sum::<f64>() / squares.len() as f64).sqrt();
    let mut count = 0;
    for (name, want) in &reference {
        let Some(key) = name.strip_prefix("param.").and_then(&renamed) else { continue };
        let var = vars.get(&key).unwrap_or_else(|| panic!("{place}: no {key}"));
        let got = summary(grads.get(var.as_tensor()).unwrap_or_else(|| panic!("{place}: {key}")));
        let want = want.to_vec1::<f32>().unwrap();
        for (got, want_i) in got.iter().zip(&want) {
            let error = (got - f64::from(*want_i)).abs() / f64::from(want[0]).max(floor);
            worst = worst.max(error);
        }
        count += 1;
    }
    (count, worst)
}

fn unet(name: &str, break_it: bool) -> (usize, f64) {
    let (store, unet) = trainable(name, "unet", Unet::new);
    let t: Tensors = read_safetensors(&folder(name).join("reference.safetensors")).unwrap();
    let (x, context) =
        (Var::from_tensor(&t["sample"]).unwrap(), Var::from_tensor(&t["encoder_hidden_states"]).unwrap());
    let residuals: Vec<Tensor> =
        (0..).map_while(|i| t.get(&format!("down_residuals.{i}")).cloned()).collect();
    let added = t.get("added.text_embeds").map(|e| Added { text_embeds: e, time_ids: &t["added.time_ids"] });
    let output = unet
        .predict(&UnetInputs {
            class_labels: t.get("class_labels"),
            added,
            down_residuals: &residuals,
            mid_residual: t.get("mid_residual"),
            ..UnetInputs::new(&x, &t["timestep"], &context)
        })
        .unwrap();
    let output = if break_it { (&output + output.sqr().unwrap() * 1e-3).unwrap() } else { output };
    let inputs = [("sample", &x), ("encoder_hidden_states", &context)];
    compare(&format!("{name}/vjp_unet.safetensors"), &store, &inputs, &output, |n| Some(n.to_owned()))
}

/// Two f32 programs; the worst seen is some 5e-5, at a projection that is small beside its norm.
const TOLERANCE: f64 = 1e-4;

#[test]
fn unets_agree() {
    for name in ["sd1", "sd2", "sdxl", "inpainting", "camera", "timestep_class"] {
        let (count, worst) = unet(name, false);
        println!("{name:<16} {count} parameters, {worst:.1e}");
        assert!(count > 80 && worst < TOLERANCE, "{name}: {count} {worst:e}");
    }
    assert!(unet("sd1", true).1 > TOLERANCE, "a wrong gradient must be noticed");
}

#[test]
fn decoders_agree() {
    for name in ["vae", "vae_plain"] {
        let (store, vae) = trainable(name, "vae", Vae::new);
        let t = read_safetensors(&folder(name).join("reference.safetensors")).unwrap();
        let latent = Var::from_tensor(&t["latent"]).unwrap();
        let output = vae.decode_unscaled(&latent).unwrap();
        let place = format!("{name}/vjp_vae.safetensors");
        let (count, worst) = compare(&place, &store, &[("latent", &latent)], &output, |n| Some(n.to_owned()));
        println!("{name:<16} {count} parameters, {worst:.1e}");
        assert!(count > 30 && worst < TOLERANCE, "{name}: {count} {worst:e}");
    }
}

#[test]
fn text_encoders_agree() {
    for name in ["clip", "open_clip"] {
        let (store, text) = trainable(name, "text_encoder", TextEncoder::new);
        let t = read_safetensors(&folder(name).join("reference.safetensors")).unwrap();
        let output = text.forward(&t["input_ids"].to_dtype(DType::U32).unwrap()).unwrap();
        let place = format!("{name}/vjp_text_encoder.safetensors");
        let ours = |n: &str| {
            Some(if n.starts_with("text_model.") { n.to_owned() } else { format!("text_model.{n}") })
        };
        let (count, worst) = compare(&place, &store, &[], &output, ours);
        println!("{name:<16} {count} parameters, {worst:.1e}");
        assert!(count > 30 && worst < TOLERANCE, "{name}: {count} {worst:e}");
    }
}
