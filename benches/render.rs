//! Speed of the volume renderer (`gen3d::bench::render`), on the processor and on the best Vulkan
//! adapter (a software rasteriser where there is nothing else).

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gen3d::bench::render::Workload;
use gen3d::gpu::adapter::Request;
use gen3d::gpu::backend::Device;

fn devices() -> Vec<(&'static str, Device)> {
    let mut devices = vec![("cpu", Device::cpu())];
    match gen3d::gpu::open(&Request::Vulkan) {
        Ok((device, _)) => {
            eprintln!("vulkan: {}", device.name());
            devices.push(("vulkan", device));
        }
        Err(error) => eprintln!("no vulkan: {error}"),
    }
    devices
}

fn render(c: &mut Criterion) {
    for (name, device) in devices() {
        let mut work = Workload::new(&device).expect("the default configs are valid");
        let mut group = c.benchmark_group(format!("volume/{name}"));
        group.sample_size(20);
        for normals in [false, true] {
            let label = if normals { " with normals" } else { "" };
            group.throughput(Throughput::Elements(work.forward(normals).expect("render")));
            group.bench_function(format!("forward{label}"), |b| {
                b.iter(|| work.forward(normals).expect("render"));
            });
            group.bench_function(format!("forward and backward{label}"), |b| {
                b.iter(|| work.forward_backward(normals).expect("backward"));
            });
        }
        group.bench_function("adam", |b| b.iter(|| work.adam().expect("step")));
        group.bench_function("occupancy", |b| b.iter(|| work.occupancy().expect("update")));
    }
}

criterion_group!(benches, render);
criterion_main!(benches);
