use candle_core::Device;
use serde_json::json;

use super::*;
use crate::rng::{Rng, Stream};

fn sd(prediction_type: Prediction) -> Schedule {
    Schedule::new(Config { prediction_type, ..Config::default() }).unwrap()
}

fn normals(step: u32, n: usize) -> Tensor {
    let x: Vec<f64> = Rng::new(1, Stream::Probe, step).normals(0, n * 6).into_iter().map(f64::from).collect();
    Tensor::from_vec(x, (n, 2, 3), &Device::Cpu).unwrap()
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn stable_diffusion_levels() {
    let s = sd(Prediction::Epsilon);
    // Published values of ᾱ, to the digits given.
    for (t, want) in [(1, 0.998_296), (21, 0.980_381), (981, 0.005_776)] {
        let got = s.alpha_bar(t as f32);
        assert!((got - want).abs() < 6e-7, "{t}: {got}");
    }
    // The closed form in double precision; torch's f32 table is this close to it.
    let (a, b) = (0.00085f64.sqrt(), 0.012f64.sqrt());
    let mut exact = 1.0;
    for (t, got) in s.alphas_cumprod.iter().enumerate() {
        exact *= 1.0 - (a + (b - a) * t as f64 / 999.0).powi(2);
        assert!((f64::from(*got) / exact - 1.0).abs() < 1e-5, "{t}: {got} {exact}");
    }
    assert!((s.alpha(500.0).powi(2) + s.sigma(500.0).powi(2) - 1.0).abs() < 1e-12);
    assert!((s.snr(500.0) - s.alpha(500.0).powi(2) / s.sigma(500.0).powi(2)).abs() < 1e-12);
    let between = s.alpha_bar(20.5);
    assert!((between - (s.alpha_bar(20.0) * s.alpha_bar(21.0)).sqrt()).abs() < 1e-12);
}

#[test]
fn cosine_and_zero_snr_ends() {
    let cosine = Config { beta_schedule: BetaSchedule::SquaredCosine, ..Config::default() };
    let s = Schedule::new(cosine).unwrap();
    let level = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
    // The product telescopes until the cap at .999 acts on the very last steps.
    assert!((s.alpha_bar(499.0) - level(0.5) / level(0.0)).abs() < 1e-5);
    let plain = sd(Prediction::V);
    let zero = Schedule::new(Config { rescale_betas_zero_snr: true, ..plain.config.clone() }).unwrap();
    assert_eq!(zero.alphas_cumprod[999], SMALLEST_ALPHA_BAR);
    assert!((zero.alpha_bar(0.0) - plain.alpha_bar(0.0)).abs() < 1e-6);
    // √ᾱ is an affine function of the old √ᾱ: the ratio of differences survives.
    let ratio = |s: &Schedule| (s.alpha(700.0) - s.alpha(999.0)) / (s.alpha(300.0) - s.alpha(999.0));
    assert!((ratio(&zero) - ratio(&plain)).abs() < 1e-3);
}

#[test]
fn conversions_are_consistent() {
    let (x0, eps) = (normals(0, 4), normals(1, 4));
    let t = [0.0, 20.0, 500.0, 999.0];
    for kind in [Prediction::Epsilon, Prediction::V, Prediction::Sample] {
        let s = sd(kind);
        let x_t = s.add_noise(&x0, &eps, &t).unwrap();
        let output = s.target(&x0, &eps, &t).unwrap();
        // The f32 table makes σ_0² = 1 − ᾱ_0 as coarse as 7e-5, but consistently so: only f64
        // rounding, amplified by 1/α_999 = 15, is left.
        assert!(distance(&s.to_epsilon(&output, &x_t, &t).unwrap(), &eps) < 1e-12, "{kind:?}");
        assert!(distance(&s.to_sample(&output, &x_t, &t).unwrap(), &x0) < 1e-12, "{kind:?}");
        let (alpha, sigma) = s.coefficients(&t, &x0).unwrap();
        let by_hand = (x0.broadcast_mul(&alpha).unwrap() + eps.broadcast_mul(&sigma).unwrap()).unwrap();
        assert!(distance(&by_hand, &x_t) < 1e-12);
    }
}

#[test]
fn bad_timesteps_are_refused() {
    let (s, x) = (sd(Prediction::Epsilon), normals(0, 2));
    for t in [&[1.0][..], &[0.0, 1000.0], &[-1.0, 3.0], &[f32::NAN, 3.0]] {
        assert!(s.add_noise(&x, &x, t).unwrap_err().is_usage(), "{t:?}");
    }
    assert!(s.timesteps(0).is_err() && s.timesteps(1001).is_err());
    // 1000 leading steps with an offset of 1 would need timestep 1000.
    assert!(s.timesteps(1000).is_err());
}

#[test]
fn spacings_are_those_of_diffusers() {
    let of = |timestep_spacing, n| {
        Schedule::new(Config { timestep_spacing, ..Config::default() }).unwrap().timesteps(n).unwrap()
    };
    let leading = of(Spacing::Leading, 50);
    assert_eq!((leading[0], leading[1], leading[49]), (981.0, 961.0, 1.0));
    // round(1000 − 1000/7·i) − 1 by hand.
    assert_eq!(of(Spacing::Trailing, 7), [999.0, 856.0, 713.0, 570.0, 428.0, 285.0, 142.0]);
    assert_eq!(of(Spacing::Linspace, 5), [999.0, 749.0, 500.0, 250.0, 0.0]);
}

#[test]
fn config_survives_json_and_strangers_are_named() {
    let config = Config {
        trained_betas: Some(vec![0.1, 0.2, 0.3]),
        num_train_timesteps: 3,
        prediction_type: Prediction::V,
        timestep_spacing: Spacing::Trailing,
        sigma_spacing: SigmaSpacing::Exponential,
        thresholding: true,
        sample_max_value: 4.0,
        ..Config::default()
    };
    assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    for sigma_spacing in [SigmaSpacing::Karras, SigmaSpacing::Lu, SigmaSpacing::Beta] {
        let config = Config { sigma_spacing, ..Config::default() };
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    }
    let both = json!({"use_karras_sigmas": true, "use_exponential_sigmas": true});
    assert!(Config::from_json(&both).unwrap_err().to_string().contains("one of several"));
    assert_eq!(Schedule::new(config).unwrap().alphas_cumprod.len(), 3);
    let pndm = json!({"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0",
        "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
        "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true,
        "steps_offset": 1, "trained_betas": null});
    assert_eq!(Config::from_json(&pndm).unwrap(), Config::default());
    let bad = [
        ("beta_schedule", json!("sigmoid")),
        ("prediction_type", json!("flow")),
        ("timestep_spacing", json!(3)),
        ("beta_start", json!("x")),
        ("_class_name", json!("FlowMatchEulerDiscreteScheduler")),
        ("use_karras_sigmas", json!("yes")),
        ("use_flow_sigmas", json!(true)),
        ("dynamic_thresholding_ratio", json!(1.5)),
        ("interpolation_type", json!("log_linear")),
        ("final_sigmas_type", json!("sigma_max")),
        ("timestep_type", json!("zero")),
        ("shift", json!(3.0)),
    ];
    for (key, value) in bad {
        let error = Config::from_json(&json!({ key: value })).unwrap_err().to_string();
        assert!(error.starts_with(key), "{error}");
    }
    assert!(Schedule::new(Config { beta_end: 2.0, ..Config::default() }).is_err());
}
