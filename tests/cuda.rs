//! Every layer on the GPU against the same layer on the CPU. They need one.

use candle_core::{Device, Result, Tensor, Var};
use gen3d::prior::nn::adam::{AdamConfig, AdamW};
use gen3d::prior::nn::{self, Padding, cuda};
use gen3d::rng::{Rng, Stream};

/// Its name, the shapes of its arguments, and the layer.
type Case<'a> = (&'a str, Vec<&'a [usize]>, Box<Layer>);

type Layer = dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Normal numbers that depend on `seed` only.
fn normals(seed: u64, dims: &[&[usize]]) -> Vec<Tensor> {
    let one = |(i, dims): (usize, &&[usize])| {
        let rng = Rng::new(seed * 100 + i as u64, Stream::Probe, 0);
        Tensor::from_vec(rng.normals(0, dims.iter().product()), *dims, &Device::Cpu).unwrap()
    };
    dims.iter().enumerate().map(one).collect()
}

/// The largest difference relative to the largest magnitude of `b`.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (a, b) = (flat(a), flat(b));
    let scale = b.iter().fold(1e-30f32, |m, v| m.max(v.abs()));
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
    f64::from(worst.fold(0.0f32, |m, d| if d <= m { m } else { d }) / scale)
}

/// Result and gradients of `sum(weights * f(args))`, all arguments tracked.
fn gradients(f: &Layer, args: &[Tensor]) -> Vec<Tensor> {
    let vars: Vec<Var> = args.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let out = f(&tracked).unwrap();
    let weights = normals(5, &[out.dims()])[0].to_device(out.device()).unwrap();
    let grads = (&out * &weights).unwrap().sum_all().unwrap().backward().unwrap();
    let of = |v: &Var| grads.get(v).expect("every argument has a gradient").clone();
    [out.detach()].into_iter().chain(vars.iter().map(of)).collect()
}

fn gpu() -> Device {
    Device::new_cuda(0).expect("these tests need an NVIDIA GPU, as the build does that they are made for")
}

/// Results and gradients agree with the CPU's, and come out the same twice.
fn check(gpu: &Device, name: &str, dims: &[&[usize]], layer: &Layer) -> Option<String> {
    let args: Vec<Tensor> = normals(2, dims);
    let there: Vec<Tensor> = args.iter().map(|t| t.to_device(gpu).unwrap()).collect();
    let run = |args: &[Tensor]| {
        let on = |t: &Tensor| t.to_device(&Device::Cpu).unwrap();
        gradients(layer, args).iter().map(on).collect::<Vec<_>>()
    };
    let (cpu, first, second) = (run(&args), run(&there), run(&there));
    let off = cpu.iter().zip(&first).map(|(a, b)| difference(b, a)).fold(0.0, f64::max);
    let moved = first.iter().zip(&second).map(|(a, b)| difference(b, a)).fold(0.0, f64::max);
    println!("{name:34} {off:.1e} {moved:.1e}");
    (off.is_nan() || off > 2e-5 || moved > 0.0).then(|| format!("{name}: {off:.1e}, again {moved:.1e}"))
}

fn conv(stride: usize, padding: Padding) -> impl Fn(&[Tensor]) -> Result<Tensor> {
    move |a| nn::conv2d(&a[0], &a[1], a.get(2), stride, padding)
}

fn attend(heads: usize, causal: bool) -> impl Fn(&[Tensor]) -> Result<Tensor> {
    move |a| nn::attention(&a[0], &a[1], &a[2], heads, 0.3, causal)
}

fn norm(groups: usize, silu: bool) -> impl Fn(&[Tensor]) -> Result<Tensor> {
    move |a| nn::group_norm(&a[0], &a[1], &a[2], groups, 1e-5, silu)
}

#[test]
fn layers_agree_with_the_cpu() {
    let gpu = gpu();
    let linear = |a: &[Tensor]| nn::linear(&a[0], &a[1], a.get(2));
    let same = Padding::Same(1);
    let ids = |t: &Tensor| Tensor::new(&[[3u32, 0, 3], [6, 1, 3]], t.device()).unwrap();
    let cases: Vec<Case<'_>> = vec![
        ("linear", vec![&[3, 7, 19], &[35, 19], &[35]], Box::new(linear)),
        ("linear, wide", vec![&[4, 700, 128], &[1024, 128], &[1024]], Box::new(linear)),
        ("linear without bias", vec![&[600, 40], &[64, 40]], Box::new(linear)),
        ("group norm", vec![&[2, 6, 5, 7], &[6], &[6]], Box::new(norm(3, false))),
        ("group norm and SiLU", vec![&[3, 64, 16, 16], &[64], &[64]], Box::new(norm(8, true))),
        ("group norm, one group", vec![&[2, 16, 64, 64], &[16], &[16]], Box::new(norm(2, true))),
        (
            "layer norm",
            vec![&[3, 500, 37], &[37], &[37]],
            Box::new(|a| nn::layer_norm(&a[0], &a[1], &a[2], 1e-5)),
        ),
        ("attention", vec![&[2, 70, 24], &[2, 21, 24], &[2, 21, 24]], Box::new(attend(3, false))),
        ("attention, 64", vec![&[3, 64, 128], &[3, 64, 128], &[3, 64, 128]], Box::new(attend(4, false))),
        ("causal attention", vec![&[2, 77, 32], &[2, 77, 32], &[2, 77, 32]], Box::new(attend(2, true))),
        ("attention, large", vec![&[1, 300, 40], &[1, 300, 40], &[1, 300, 40]], Box::new(attend(1, false))),
        ("SiLU", vec![&[5, 333]], Box::new(|a| nn::silu(&a[0]))),
        ("GELU", vec![&[5, 333]], Box::new(|a| nn::gelu(&a[0]))),
        ("quick GELU", vec![&[5, 333]], Box::new(|a| nn::quick_gelu(&a[0]))),
        ("GEGLU", vec![&[5, 30, 26]], Box::new(|a| nn::geglu(&a[0]))),
        ("channel offsets", vec![&[2, 5, 3, 4], &[2, 5]], Box::new(|a| nn::add_per_channel(&a[0], &a[1]))),
        ("upsampling", vec![&[2, 3, 4, 5]], Box::new(|a| nn::upsample_nearest2x(&a[0]))),
        ("turned", vec![&[2, 45, 70]], Box::new(|a| nn::turned(&a[0]))),
        ("embedding", vec![&[7, 6]], Box::new(move |a| nn::embedding(&ids(&a[0]), &a[0]))),
        ("conv 3x3", vec![&[5, 10, 16, 16], &[64, 10, 3, 3], &[64]], Box::new(conv(1, same))),
        ("conv 3x3, wide", vec![&[8, 192, 8, 8], &[128, 192, 3, 3], &[128]], Box::new(conv(1, same))),
        ("conv 3x3, strided", vec![&[4, 64, 16, 16], &[64, 64, 3, 3], &[64]], Box::new(conv(2, same))),
        (
            "conv 3x3, below and right",
            vec![&[3, 16, 16, 16], &[16, 16, 3, 3], &[16]],
            Box::new(conv(2, Padding::BottomRight)),
        ),
        ("conv 1x1", vec![&[4, 128, 8, 8], &[192, 128, 1, 1], &[192]], Box::new(conv(1, Padding::Same(0)))),
        ("conv without bias", vec![&[2, 7, 9, 11], &[5, 7, 3, 3]], Box::new(conv(1, same))),
    ];
    let wrong: Vec<String> =
        cases.iter().filter_map(|(name, dims, layer)| check(&gpu, name, dims, layer)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// TF32 is coarser, but no more than its ten bits.
#[test]
fn tf32_is_off_by_its_rounding_only() {
    let gpu = gpu();
    let args = normals(2, &[&[8, 128, 8, 8], &[128, 128, 3, 3]]);
    let there: Vec<Tensor> = args.iter().map(|t| t.to_device(&gpu).unwrap()).collect();
    let layer = conv(1, Padding::Same(1));
    let exact = layer(&args).unwrap();
    cuda::allow_tf32(true);
    let coarse = layer(&there).unwrap().to_device(&Device::Cpu).unwrap();
    cuda::allow_tf32(false);
    let off = difference(&coarse, &exact);
    println!("TF32 {off:.1e}");
    assert!(off < 5e-3, "{off}");
}

/// A few steps of the optimiser take the same weights to the same place.
#[test]
fn the_optimiser_agrees_with_the_cpu() {
    let gpu = gpu();
    let run = |device: &Device| {
        let start = normals(4, &[&[40, 30], &[30]]);
        let vars = ["a", "b"].into_iter().zip(&start).map(|(name, t)| {
            let t = t.to_device(device).unwrap();
            (name.to_owned(), Var::from_tensor(&t).unwrap())
        });
        let config = AdamConfig { max_grad_norm: Some(1.0), ema_decay: Some(0.9), ..AdamConfig::default() };
        let vars: std::collections::BTreeMap<_, _> = vars.collect();
        let mut adam = AdamW::new(vars.clone(), config).unwrap();
        let x = normals(5, &[&[7, 40]])[0].to_device(device).unwrap();
        for _ in 0..5 {
            let y = x.matmul(vars["a"].as_tensor()).unwrap().broadcast_add(vars["b"].as_tensor()).unwrap();
            adam.step(&y.sqr().unwrap().mean_all().unwrap().backward().unwrap(), 0.01).unwrap();
        }
        adam.averaged().unwrap()["a"].to_device(&Device::Cpu).unwrap()
    };
    let off = difference(&run(&gpu), &run(&Device::Cpu));
    println!("Adam {off:.1e}");
    assert!(off < 1e-5, "{off}");
}

/// The same random numbers as on the CPU, but for the last bits of logarithm and cosine.
#[test]
fn random_numbers_are_the_same() {
    let gpu = gpu();
    let rng = Rng::new(0x1234_5678_9abc, Stream::Noise, 77);
    let shape = candle_core::Shape::from((3, 1001));
    let [here, there] = [&Device::Cpu, &gpu].map(|d| nn::normals(&rng, &shape, d).unwrap());
    let off = difference(&there.to_device(&Device::Cpu).unwrap(), &here);
    println!("normals {off:.1e}");
    assert!(off < 1e-5, "{off}");
}
