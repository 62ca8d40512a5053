use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use super::*;
use crate::prior::nn::{self, fallback};

/// A layer on its arguments.
type Ours = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Sync>;
/// The composition that it is compared with.
type Plain = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// One layer with the composition of plain operations that says what it should compute.
struct Case {
    name: &'static str,
    args: Vec<Tensor>,
    ours: Ours,
    plain: Plain,
}

fn case(
    name: &'static str,
    dims: &[&[usize]],
    ours: impl Fn(&[Tensor]) -> Result<Tensor> + Sync + 'static,
    plain: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
) -> Case {
    Case { name, args: normals(2, dims), ours: Box::new(ours), plain: Box::new(plain) }
}

fn ids() -> Tensor {
    Tensor::new(&[[3u32, 0, 3], [6, 1, 3]], &Device::Cpu).unwrap()
}

/// Sizes that are no multiple of a vector, a tile or a block, next to some that are.
fn cases() -> Vec<Case> {
    let norm = |silu| move |a: &[Tensor]| nn::group_norm(&a[0], &a[1], &a[2], 3, 1e-5, silu);
    let norm_plain = |silu| move |a: &[Tensor]| fallback::group_norm(&a[0], &a[1], &a[2], 3, 1e-5, silu);
    let attend = |heads, causal| move |a: &[Tensor]| nn::attention(&a[0], &a[1], &a[2], heads, 0.3, causal);
    let attend_plain =
        |heads, causal| move |a: &[Tensor]| fallback::attention(&a[0], &a[1], &a[2], heads, 0.3, causal);
    vec![
        case(
            "linear",
            &[&[3, 7, 19], &[35, 19], &[35]],
            |a| nn::linear(&a[0], &a[1], Some(&a[2])),
            |a| fallback::linear(&a[0], &a[1], Some(&a[2])),
        ),
        case(
            "linear without bias",
            &[&[600, 40], &[64, 40]],
            |a| nn::linear(&a[0], &a[1], None),
            |a| fallback::linear(&a[0], &a[1], None),
        ),
        case("group norm", &[&[2, 6, 5, 7], &[6], &[6]], norm(false), norm_plain(false)),
        case("group norm and SiLU", &[&[3, 9, 4, 4], &[9], &[9]], norm(true), norm_plain(true)),
        case(
            "layer norm",
            &[&[3, 50, 37], &[37], &[37]],
            |a| nn::layer_norm(&a[0], &a[1], &a[2], 1e-5),
            |a| fallback::layer_norm(&a[0], &a[1], &a[2], 1e-5),
        ),
        case(
            "attention",
            &[&[2, 70, 24], &[2, 21, 24], &[2, 21, 24]],
            attend(3, false),
            attend_plain(3, false),
        ),
        case(
            "attention, long rows",
            &[&[1, 9, 40], &[1, 300, 40], &[1, 300, 40]],
            attend(1, false),
            attend_plain(1, false),
        ),
        case(
            "causal attention",
            &[&[2, 77, 32], &[2, 77, 32], &[2, 77, 32]],
            attend(2, true),
            attend_plain(2, true),
        ),
        // Wide heads, whose keys come in chunks of 64.
        case(
            "attention, chunks",
            &[&[1, 70, 320], &[1, 150, 320], &[1, 150, 320]],
            attend(1, false),
            attend_plain(1, false),
        ),
        case(
            "causal attention, chunks",
            &[&[1, 150, 640], &[1, 150, 640], &[1, 150, 640]],
            attend(2, true),
            attend_plain(2, true),
        ),
        case("SiLU", &[&[5, 33]], |a| nn::silu(&a[0]), |a| fallback::sigmoid_gate(&a[0], 1.0)),
        case("GELU", &[&[5, 33]], |a| nn::gelu(&a[0]), |a| fallback::gelu(&a[0])),
        case("quick GELU", &[&[5, 33]], |a| nn::quick_gelu(&a[0]), |a| fallback::sigmoid_gate(&a[0], 1.702)),
        case("GEGLU", &[&[5, 3, 26]], |a| nn::geglu(&a[0]), |a| fallback::geglu(&a[0])),
        case(
            "channel offsets",
            &[&[2, 5, 3, 4], &[2, 5]],
            |a| nn::add_per_channel(&a[0], &a[1]),
            |a| a[0].broadcast_add(&a[1].reshape((2, 5, 1, 1))?),
        ),
        case(
            "upsampling",
            &[&[2, 3, 4, 5]],
            |a| nn::upsample_nearest2x(&a[0]),
            |a| a[0].reshape((6, 4, 1, 5, 1))?.broadcast_as((6, 4, 2, 5, 2))?.reshape((2, 3, 8, 10)),
        ),
        case(
            "embedding",
            &[&[7, 6]],
            |a| nn::embedding(&ids(), &a[0]),
            |a| a[0].index_select(&ids().flatten_all()?, 0)?.reshape((2, 3, 6)),
        ),
    ]
}

/// As for convolutions: what is kept of a frozen weight changes nothing, and nothing is kept of a variable.
#[test]
fn kept_weights_give_the_same_result_and_gradient() {
    let (w, b, kept) = (normal(1, &[37, 29]), normal(2, &[37]), Arc::new(nn::Kept::default()));
    for seed in [3, 4] {
        let ours = |a: &[Tensor]| nn::linear_kept(&a[0], &w, Some(&b), &kept);
        let plain = |a: &[Tensor]| nn::linear(&a[0], &w, Some(&b));
        let x = [normal(seed, &[2, 51, 29])];
        let ((y, g), (want, by)) = (gradients(&ours, &x, 5), gradients(&plain, &x, 5));
        assert!(difference(&y, &want) < 1e-11 && difference(&g[0], &by[0]) < 1e-11);
    }
    let (v, kept) = (Var::from_tensor(&w).unwrap(), Arc::new(nn::Kept::default()));
    let run = || nn::linear_kept(&normal(3, &[5, 29]), v.as_tensor(), None, &kept).unwrap();
    let before = run();
    v.set(&(&w * 2.0).unwrap()).unwrap();
    assert!(difference(&run(), &(before * 2.0).unwrap()) < 1e-11);
}

/// Weights above a million elements are packed panel by panel.
#[test]
fn wide_linear_layers_agree_with_candle_at_any_thread_count() {
    let args = normals(3, &[&[2, 37, 1030], &[1045, 1030], &[1045]]);
    let ours = |a: &[Tensor]| nn::linear(&a[0], &a[1], Some(&a[2]));
    // Sums of a thousand terms in f32.
    check_same(&ours, &|a| fallback::linear(&a[0], &a[1], Some(&a[2])), &args, 2e-5);
    check_threads(&ours, &args);
}

#[test]
fn layers_agree_with_plain_operations() {
    for c in cases() {
        println!("{}", c.name);
        // f32: sums of at most 600 products, an erf good to 1.5e-7.
        check_same(&*c.ours, &*c.plain, &c.args, 5e-6);
    }
}

#[test]
fn layer_gradients_are_exact() {
    for c in cases() {
        println!("{}", c.name);
        check_gradients(&*c.ours, &c.args);
    }
}

#[test]
fn layers_ignore_the_thread_count() {
    for c in cases() {
        println!("{}", c.name);
        check_threads(&*c.ours, &c.args);
    }
}

#[test]
fn frozen_arguments_get_no_gradient() {
    for c in cases() {
        println!("{}", c.name);
        check_frozen(&*c.ours, &c.args);
    }
}

/// The vector exponential and distribution function against the accurate ones over their whole range.
#[test]
fn vector_functions_are_accurate() {
    let x: Vec<f64> = (-3000..=3000).map(|i| f64::from(i) * 0.02).collect();
    let f32s: Vec<f32> = x.iter().map(|&v| v as f32).collect();
    let silu = nn::silu(&Tensor::new(&f32s[..], &Device::Cpu).unwrap()).unwrap().to_vec1::<f32>().unwrap();
    let gelu = nn::gelu(&Tensor::new(&f32s[..], &Device::Cpu).unwrap()).unwrap().to_vec1::<f32>().unwrap();
    for (i, &x) in f32s.iter().enumerate() {
        let x = f64::from(x);
        let exact = x / (1.0 + (-x).exp());
        assert!((f64::from(silu[i]) - exact).abs() <= 3e-7 * exact.abs() + 1e-37, "silu({x})");
        let exact = x * 0.5 * candle_core::cpu::erf::erfc_f64(-x * std::f64::consts::FRAC_1_SQRT_2);
        assert!((f64::from(gelu[i]) - exact).abs() <= 2e-7 * x.abs() + 1e-37, "gelu({x})");
    }
}

#[test]
fn a_number_that_is_none_is_not_hidden() {
    let x = Tensor::new(&[f32::NAN, 1.0], &Device::Cpu).unwrap();
    for y in [nn::silu(&x), nn::gelu(&x), nn::quick_gelu(&x)] {
        let y = y.unwrap().to_vec1::<f32>().unwrap();
        assert!(y[0].is_nan() && y[1].is_finite());
    }
}

#[test]
fn half_precision_takes_the_plain_operations() {
    for c in cases() {
        let half: Vec<Tensor> = c.args.iter().map(|t| t.to_dtype(DType::F16).unwrap()).collect();
        let (y, exact) = ((c.ours)(&half).unwrap(), (c.ours)(&c.args).unwrap());
        assert_eq!(y.dtype(), DType::F16);
        // 11 bits, and sums of rounded terms.
        assert!(difference(&y, &exact) < 2e-2, "{}", c.name);
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let t = |dims: &[usize]| normal(0, dims);
    assert!(nn::linear(&t(&[2, 3]), &t(&[4, 2]), None).is_err());
    assert!(nn::linear(&t(&[2, 3]), &t(&[4, 3]), Some(&t(&[3]))).is_err());
    assert!(nn::group_norm(&t(&[2, 6, 1, 1]), &t(&[6]), &t(&[6]), 4, 1e-5, false).is_err());
    assert!(nn::layer_norm(&t(&[2, 6]), &t(&[5]), &t(&[6]), 1e-5).is_err());
    assert!(nn::geglu(&t(&[2, 3])).is_err());
    let (q, k) = (t(&[1, 4, 6]), t(&[1, 5, 6]));
    assert!(nn::attention(&q, &k, &k, 4, 1.0, false).is_err());
    assert!(nn::attention(&q, &k, &k, 2, 1.0, true).is_err());
    assert!(nn::attention(&q, &k, &q, 2, 1.0, false).is_err());
    assert!(nn::add_per_channel(&t(&[1, 2, 3, 3]), &t(&[2, 1])).is_err());
    assert!(nn::embedding(&ids(), &t(&[6, 2])).is_err());
}
