//! Every gradient of every network against central differences in f64.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};

use super::*;

/// Step of the central difference: error about h²·f‴ ≈ 1e-10 and rounding about 1e-16/h = 1e-11.
const H: f64 = 1e-5;
/// Relative to the largest derivative probed; three orders above the two errors.
const TOLERANCE: f64 = 1e-6;

/// Moves each variable along a random direction and compares the change of `f` with the gradient.
fn check(vars: &BTreeMap<String, Var>, f: impl Fn() -> Tensor) {
    let grads = f().backward().unwrap();
    let scalar = || f().to_scalar::<f64>().unwrap();
    for (i, (name, var)) in vars.iter().enumerate() {
        let start = var.as_tensor().copy().unwrap();
        let direction = normal(start.dims(), 100 + i as u32, DType::F64);
        let moved = |h: f64| {
            var.set(&(&start + (&direction * h).unwrap()).unwrap()).unwrap();
            let value = scalar();
            var.set(&start).unwrap();
            value
        };
        let expected = (moved(H) - moved(-H)) / (2.0 * H);
        let grad = grads.get(var.as_tensor()).unwrap_or_else(|| panic!("{name} gets no gradient"));
        let got = (grad * &direction).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        let size = grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
        // A key's bias shifts all scores of a query alike, and a convolution's bias before a group
        // norm of few channels nearly so: there the gradient is zero by mathematics.
        assert!(
            (got - expected).abs() <= TOLERANCE * (1.0 + size.max(expected.abs())),
            "{name}: gradient {got:e}, finite difference {expected:e}"
        );
    }
}

#[test]
fn unet_gradients_are_exact() {
    let (store, unet) = unet_store(DType::F64, true);
    // The rays are inputs like the latents here: `forward` would compute them from the camera as data.
    let x = Var::from_tensor(&normal(&[2, 10, 8, 8], 0, DType::F64)).unwrap();
    let context = Var::from_tensor(&normal(&[2, 3, 8], 1, DType::F64)).unwrap();
    let camera = Var::from_tensor(&normal(&[2, 16], 2, DType::F64)).unwrap();
    let weight = normal(&[2, 4, 8, 8], 3, DType::F64);
    let t = Tensor::new(&[3f32, 700.], &Device::Cpu).unwrap();
    let mut vars = store.vars();
    vars.insert("(x)".into(), x.clone());
    vars.insert("(context)".into(), context.clone());
    vars.insert("(camera)".into(), camera.clone());
    check(&vars, || {
        let inputs = UnetInputs { class_labels: Some(&camera), ..UnetInputs::new(&x, &t, &context) };
        let y = unet.predict(&inputs).unwrap();
        (y * &weight).unwrap().sum_all().unwrap()
    });
}

#[test]
fn vae_gradients_are_exact() {
    let (store, vae) = vae_store(DType::F64, true);
    let x = Var::from_tensor(&normal(&[2, 3, 8, 8], 0, DType::F64)).unwrap();
    let weight = normal(&[2, 3, 8, 8], 3, DType::F64);
    let latent = normal(&[2, 4, 4, 4], 4, DType::F64);
    let mut vars = store.vars();
    vars.insert("(x)".into(), x.clone());
    check(&vars, || {
        let p = vae.posterior(&x).unwrap();
        let decoded = vae.decode_unscaled(&p.mean).unwrap();
        let a = (decoded * &weight).unwrap().sum_all().unwrap();
        (a + (p.logvar * &latent).unwrap().sum_all().unwrap()).unwrap()
    });
}

#[test]
fn text_gradients_are_exact() {
    let (store, text) = text_store(DType::F64, true);
    let ids = Tensor::new(&[[0u32, 3, 3, 19], [1, 2, 5, 7]], &Device::Cpu).unwrap();
    let weight = normal(&[2, 4, 8], 3, DType::F64);
    check(&store.vars(), || (text.forward(&ids).unwrap() * &weight).unwrap().sum_all().unwrap());
}

#[test]
fn frozen_weights_get_no_gradient() {
    let (store, vae) = vae_store(DType::F32, false);
    assert!(store.vars().is_empty());
    let x = Var::from_tensor(&normal(&[1, 3, 8, 8], 0, DType::F32)).unwrap();
    let z = vae.encode_mean(&x).unwrap();
    let grads = z.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    assert!(grads.get(x.as_tensor()).is_some());
    let weights = random_store(|s| Vae::new(vae_config(), &s.root()).map(drop), DType::F32, false);
    drop(weights);
    let kept = grads.get_ids().count();
    // Nothing but the input itself: intermediate results are dropped, frozen weights have none.
    assert_eq!(kept, 1, "{kept} gradients are kept");
}

#[test]
fn a_text_token_never_looks_ahead() {
    let (_store, text) = text_store(DType::F32, false);
    let run = |last: u32| {
        let ids = Tensor::new(&[[0u32, 3, 4, last]], &Device::Cpu).unwrap();
        text.forward(&ids).unwrap().narrow(1, 0, 3).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(run(5), run(6));
}

/// The kernels block and pack by size, so the small networks above do not reach all of their paths.
#[test]
fn working_sizes_agree_in_f32_and_f64() {
    let config = TrainConfig::default().vae_config(1.0);
    let build = |s: &Store| Vae::new(config.clone(), &s.root()).map(drop);
    let gradients = |dtype: DType| -> BTreeMap<String, Vec<f64>> {
        let store = random_store(build, dtype, true);
        let vae = Vae::new(config.clone(), &store.root()).unwrap();
        let x = normal(&[3, 3, 64, 64], 0, dtype);
        let p = vae.posterior(&x).unwrap();
        let loss = (vae.decode_unscaled(&p.mean).unwrap() - &x).unwrap().sqr().unwrap().mean_all().unwrap();
        let loss = (loss + p.logvar.sqr().unwrap().mean_all().unwrap()).unwrap();
        let grads = loss.backward().unwrap();
        let values = |v: &Var| {
            let g = grads.get(v.as_tensor()).unwrap().to_dtype(DType::F64).unwrap();
            g.flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        store.vars().iter().map(|(k, v)| (k.clone(), values(v))).collect()
    };
    let (single, double) = (gradients(DType::F32), gradients(DType::F64));
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let whole = double.values().map(|v| norm(v).powi(2)).sum::<f64>().sqrt();
    for (name, d) in &double {
        let difference: Vec<f64> = single[name].iter().zip(d).map(|(a, b)| a - b).collect();
        // Rounding of sums over 3·64² pixels through some thirty layers; a wrong path shows as order 1.
        assert!(
            norm(&difference) <= 1e-3 * norm(d) + 1e-5 * whole,
            "{name}: {:e} of {:e}",
            norm(&difference),
            norm(d)
        );
    }
}
