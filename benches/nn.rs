//! The layers against stock candle, forward and forward with backward, in one run.

use candle_core::{Device, Result, Tensor, Var};
use criterion::{Criterion, criterion_group, criterion_main};
use gen3d::prior::nn::{self, Padding};
use gen3d::rng::{Rng, Stream};

fn normal(dims: &[usize]) -> Tensor {
    let n = dims.iter().product();
    Tensor::from_vec(Rng::new(0, Stream::Probe, 0).normals(0, n), dims, &Device::Cpu).unwrap()
}

/// Benchmarks `f` on variables of these shapes: the result alone, and with all gradients.
fn layer(c: &mut Criterion, name: &str, dims: &[&[usize]], f: &dyn Fn(&[Tensor]) -> Result<Tensor>) {
    let vars: Vec<Var> = dims.iter().map(|d| Var::from_tensor(&normal(d)).unwrap()).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let plain: Vec<Tensor> = vars.iter().map(|v| v.as_detached_tensor()).collect();
    let weights = normal(f(&plain).unwrap().dims());
    c.bench_function(&format!("{name}/forward"), |b| b.iter(|| f(&plain).unwrap()));
    c.bench_function(&format!("{name}/backward"), |b| {
        b.iter(|| (f(&tracked).unwrap() * &weights).unwrap().backward().unwrap());
    });
}

fn convolution(c: &mut Criterion) {
    for (channels, side) in [(64, 16), (128, 8)] {
        let dims: [&[usize]; 3] = [&[32, channels, side, side], &[channels, channels, 3, 3], &[channels]];
        layer(c, &format!("conv{channels}x{side}/ours"), &dims, &|a| {
            nn::conv2d(&a[0], &a[1], Some(&a[2]), 1, Padding::Same(1))
        });
        layer(c, &format!("conv{channels}x{side}/candle"), &dims, &|a| {
            a[0].conv2d(&a[1], 1, 1, 1, 1)?.broadcast_add(&a[2].reshape((1, channels, 1, 1))?)
        });
    }
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1))
}

criterion_group! { name = benches; config = settings(); targets = convolution }
criterion_main!(benches);
