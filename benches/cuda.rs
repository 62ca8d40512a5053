//! The layers on an NVIDIA GPU at the sizes of the embedded prior's training: alone, and with all gradients.
//!
//! `cargo bench --features cudnn --bench cuda`

use candle_core::{Device, Result, Tensor, Var};
use criterion::{Criterion, criterion_group, criterion_main};
use gen3d::prior::nn::{self, Padding, cuda};

/// Samples of a step.
const BATCH: usize = 512;

/// Benchmarks `f` on variables of these shapes; the clock stops when the GPU has finished.
fn layer(c: &mut Criterion, name: &str, dims: &[&[usize]], f: &dyn Fn(&[Tensor]) -> Result<Tensor>) {
    let gpu = Device::new_cuda(0).expect("an NVIDIA GPU");
    cuda::prepare(&gpu).unwrap();
    cuda::allow_tf32(true);
    let normal = |d: &&[usize]| Var::from_tensor(&Tensor::randn(0f32, 1f32, *d, &gpu).unwrap()).unwrap();
    let vars: Vec<Var> = dims.iter().map(normal).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let plain: Vec<Tensor> = vars.iter().map(|v| v.as_detached_tensor()).collect();
    c.bench_function(&format!("{name}/forward"), |b| {
        b.iter(|| {
            let y = f(&plain).unwrap();
            gpu.synchronize().unwrap();
            y
        });
    });
    c.bench_function(&format!("{name}/backward"), |b| {
        b.iter(|| {
            let grads = f(&tracked).unwrap().backward().unwrap();
            gpu.synchronize().unwrap();
            grads
        });
    });
}

fn pictures(c: &mut Criterion) {
    for (channels, side) in [(64, 16), (128, 8), (192, 4)] {
        let x: &[usize] = &[BATCH, channels, side, side];
        layer(c, &format!("conv{channels}x{side}"), &[x, &[channels, channels, 3, 3], &[channels]], &|a| {
            nn::conv2d(&a[0], &a[1], Some(&a[2]), 1, Padding::Same(1))
        });
        layer(c, &format!("group_norm_silu{channels}x{side}"), &[x, &[channels], &[channels]], &|a| {
            nn::group_norm(&a[0], &a[1], &a[2], 8, 1e-5, true)
        });
    }
}

fn tokens(c: &mut Criterion) {
    let x: &[usize] = &[BATCH, 64, 128];
    for (inputs, outputs) in [(128, 1024), (512, 128), (128, 128)] {
        let dims: [&[usize]; 3] = [&[BATCH, 64, inputs], &[outputs, inputs], &[outputs]];
        layer(c, &format!("linear{inputs}to{outputs}"), &dims, &|a| nn::linear(&a[0], &a[1], Some(&a[2])));
    }
    layer(c, "layer_norm", &[x, &[128], &[128]], &|a| nn::layer_norm(&a[0], &a[1], &a[2], 1e-5));
    layer(c, "attention", &[x, x, x], &|a| nn::attention(&a[0], &a[1], &a[2], 4, 0.18, false));
    layer(c, "geglu", &[&[BATCH, 64, 1024]], &|a| nn::geglu(&a[0]));
    layer(c, "turned", &[x], &|a| nn::turned(&a[0]));
}

criterion_group! {
    name = layers;
    config = Criterion::default().sample_size(20);
    targets = pictures, tokens
}
criterion_main!(layers);
