//! The layers against stock candle, forward and forward with backward, in one run.

use candle_core::{D, Device, Result, Tensor, Var};
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

/// Softmax by plain operations: candle's fused one has no backward.
fn plain_softmax(x: &Tensor) -> Result<Tensor> {
    let p = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?.exp()?;
    p.broadcast_div(&p.sum_keepdim(D::Minus1)?)
}

fn norms(c: &mut Criterion) {
    let dims: [&[usize]; 3] = [&[32, 64, 16, 16], &[64], &[64]];
    layer(c, "group_norm_silu/ours", &dims, &|a| nn::group_norm(&a[0], &a[1], &a[2], 16, 1e-5, true));
    layer(c, "group_norm_silu/candle", &dims, &|a| {
        let x = a[0].reshape((32, 16, ()))?;
        let x = x.broadcast_sub(&x.mean_keepdim(2)?)?;
        let x = x.broadcast_div(&(x.sqr()?.mean_keepdim(2)? + 1e-5)?.sqrt()?)?.reshape((32, 64, 16, 16))?;
        let w = |t: &Tensor| t.reshape((1, 64, 1, 1));
        x.broadcast_mul(&w(&a[1])?)?.broadcast_add(&w(&a[2])?)?.silu()
    });
}

fn transformer(c: &mut Criterion) {
    let qkv: &[usize] = &[32, 64, 128];
    layer(c, "attention/ours", &[qkv; 3], &|a| nn::attention(&a[0], &a[1], &a[2], 4, 0.2, false));
    layer(c, "attention/candle", &[qkv; 3], &|a| {
        let heads = |t: &Tensor| t.reshape((32, 64, 4, 32))?.transpose(1, 2)?.contiguous();
        let p = plain_softmax(&(heads(&a[0])?.matmul(&heads(&a[1])?.t()?)? * 0.2)?)?;
        p.matmul(&heads(&a[2])?)?.transpose(1, 2)?.reshape((32, 64, 128))
    });
    let dims: [&[usize]; 3] = [&[2048, 128], &[512, 128], &[512]];
    layer(c, "linear/ours", &dims, &|a| nn::linear(&a[0], &a[1], Some(&a[2])));
    layer(c, "linear/candle", &dims, &|a| a[0].matmul(&a[1].t()?)?.broadcast_add(&a[2]));
}

fn upsampling(c: &mut Criterion) {
    let dims: [&[usize]; 1] = [&[32, 128, 8, 8]];
    layer(c, "upsample/ours", &dims, &|a| nn::upsample_nearest2x(&a[0]));
    layer(c, "upsample/candle", &dims, &|a| a[0].upsample_nearest2d(16, 16));
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1))
}

criterion_group! { name = benches; config = settings(); targets = convolution, norms, transformer, upsampling }
criterion_main!(benches);
