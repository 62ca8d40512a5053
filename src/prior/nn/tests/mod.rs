//! Oracles shared by the layer tests.

use candle_core::{DType, Device, Result, Tensor, Var};

use crate::rng::{Rng, Stream};

mod conv;
mod layers;
mod resample;

type Function<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Normal numbers (f64) that depend on `seed` only.
fn normal(seed: u64, dims: &[usize]) -> Tensor {
    let rng = Rng::new(seed, Stream::Probe, 0);
    let n: usize = dims.iter().product();
    let data: Vec<f64> = (0..n).map(|i| f64::from(rng.normal(i as u64))).collect();
    Tensor::from_vec(data, dims, &Device::Cpu).unwrap()
}

/// Several of them.
fn normals(seed: u64, dims: &[&[usize]]) -> Vec<Tensor> {
    dims.iter().zip(0..).map(|(d, i)| normal(seed * 100 + i, d)).collect()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).unwrap().sum_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

/// The largest difference relative to the largest magnitude of `b`.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (a, b) = (wide(a), wide(b));
    let scale = b.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
    a.iter().zip(&b).fold(0.0, |m, (a, b)| if (a - b).abs() <= m { m } else { (a - b).abs() }) / scale
}

/// Result and gradients of `sum(weights * f(args))`, all arguments tracked.
fn gradients(f: Function, args: &[Tensor], seed: u64) -> (Tensor, Vec<Tensor>) {
    let vars: Vec<Var> = args.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let out = f(&tracked).unwrap();
    let weights = normal(seed, out.dims()).to_dtype(out.dtype()).unwrap();
    let grads = (&out * &weights).unwrap().sum_all().unwrap().backward().unwrap();
    let of = |v: &Var| grads.get(v).expect("every argument has a gradient").clone();
    (out.detach(), vars.iter().map(of).collect())
}

/// Central differences in f64 along three random directions and at four single elements per argument.
/// With step 1e-5 the truncation error is about 1e-10 of the third derivative and the rounding error
/// 1e-11 of the value: 1e-6 of the gradient's scale leaves room for both.
fn check_gradients(f: Function, args: &[Tensor]) {
    let (out, grads) = gradients(f, args, 7);
    let weights = normal(7, out.dims());
    for (i, grad) in grads.iter().enumerate() {
        assert_eq!(grad.dims(), args[i].dims());
        let n = args[i].elem_count();
        for probe in 0..7 {
            let direction = if probe < 3 {
                normal(900 + probe, args[i].dims())
            } else {
                let mut e = vec![0.0; n];
                e[Rng::new(1, Stream::Probe, i as u32).below(probe, n as u32) as usize] = 1.0;
                Tensor::from_vec(e, args[i].dims(), &Device::Cpu).unwrap()
            };
            let value = |step: f64| {
                let mut moved = args.to_vec();
                moved[i] = (&moved[i] + (&direction * step).unwrap()).unwrap();
                dot(&f(&moved).unwrap(), &weights)
            };
            let step = 1e-5;
            let numeric = (value(step) - value(-step)) / (2.0 * step);
            let exact = dot(grad, &direction);
            let scale = dot(grad, grad).sqrt() * dot(&direction, &direction).sqrt() / (n as f64).sqrt();
            assert!(
                (numeric - exact).abs() <= 1e-6 * (scale + exact.abs() + 1e-3),
                "argument {i}, probe {probe}: differences {numeric}, backward {exact}"
            );
        }
    }
}

/// Result and gradients of `ours` and `other` agree: in f64 to `1e-11`, in f32 to `tolerance`.
fn check_same(ours: Function, other: Function, args: &[Tensor], tolerance: f64) {
    for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, tolerance)] {
        let args: Vec<Tensor> = args.iter().map(|t| t.to_dtype(dtype).unwrap()).collect();
        let (a, ga) = gradients(ours, &args, 5);
        let (b, gb) = gradients(other, &args, 5);
        let d = difference(&a, &b);
        assert!(d <= tolerance, "{dtype:?} results differ by {d}");
        for (i, (a, b)) in ga.iter().zip(&gb).enumerate() {
            let d = difference(a, b);
            assert!(d <= tolerance, "{dtype:?} gradients of argument {i} differ by {d}");
        }
    }
}

/// Result and gradients are the same bytes in pools of one and of several threads.
fn check_threads(f: &(dyn Fn(&[Tensor]) -> Result<Tensor> + Sync), args: &[Tensor]) {
    let args: Vec<Tensor> = args.iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (out, grads) = pool.install(|| gradients(f, &args, 3));
        let bits = |t: &Tensor| -> Vec<u32> {
            t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| v.to_bits()).collect()
        };
        [out].iter().chain(&grads).map(bits).collect::<Vec<_>>()
    };
    let one = run(1);
    assert!(run(2) == one && run(3) == one, "the thread count changes a result");
}

/// Freezing argument `i` removes its gradient and changes no other.
fn check_frozen(f: Function, args: &[Tensor]) {
    let (_, all) = gradients(f, args, 11);
    for frozen in 0..args.len() {
        let vars: Vec<Var> = args.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let inputs: Vec<Tensor> = (0..args.len())
            .map(|i| if i == frozen { args[i].clone() } else { vars[i].as_tensor().clone() })
            .collect();
        let out = f(&inputs).unwrap();
        let weights = normal(11, out.dims());
        let grads = (out * weights).unwrap().sum_all().unwrap().backward();
        let grads = if args.len() == 1 { continue } else { grads.unwrap() };
        assert!(grads.get(&inputs[frozen]).is_none(), "frozen argument {frozen} got a gradient");
        for i in (0..args.len()).filter(|&i| i != frozen) {
            assert!(difference(grads.get(&vars[i]).unwrap(), &all[i]) < 1e-12);
        }
    }
}
