//! Speed of the volume renderer: four 64x64 views of the initial blob, forward and backward, on the
//! processor and on the best Vulkan adapter (a software rasteriser where there is nothing else).

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gen3d::field::{AdamConfig, FieldConfig};
use gen3d::gpu::adapter::Request;
use gen3d::gpu::backend::{Buffer, Device};
use gen3d::render::camera::Camera;
use gen3d::render::volume::{Background, Mode, RenderGrad, RenderOptions, VolumeConfig, VolumeRenderer};
use glam::Vec3;

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

/// Waits until `device` has done all that was asked of it: reading back is the only command that does.
fn wait(device: &Device, probe: &Buffer) {
    device.read(probe, 0, &mut [0]).expect("the device works");
}

fn render(c: &mut Criterion) {
    let cameras: Vec<Camera> = (0..4)
        .map(|i| Camera::orbit(90.0 * i as f32, 20.0, 2.4, Vec3::ZERO, 40f32.to_radians(), 64))
        .collect();
    let colors = [Vec3::ONE; 4];
    let background = Background::Solid(&colors);
    for (name, device) in devices() {
        let probe = device.create("probe", 1).expect("one word");
        let mut renderer = VolumeRenderer::new(&device, &FieldConfig::default(), &VolumeConfig::default(), 1)
            .expect("the default configs are valid");
        let mut group = c.benchmark_group(format!("volume/{name}"));
        group.sample_size(20);
        for normals in [false, true] {
            let label = if normals { " with normals" } else { "" };
            let options = RenderOptions { step: 1, mode: Mode::Train, normals };
            let output = renderer.render(&cameras, background, options).expect("render");
            group.throughput(Throughput::Elements(output.samples as u64));
            group.bench_function(format!("forward{label}"), |b| {
                b.iter(|| renderer.render(&cameras, background, options).expect("render"));
            });
            let (rgb, normal) = (vec![1e-3; output.rgb.len()], vec![1e-3; output.rgb.len()]);
            let opacity = vec![1e-3; output.opacity.len()];
            let grad = RenderGrad {
                rgb: Some(&rgb),
                opacity: Some(&opacity),
                normal: normals.then_some(&normal[..]),
                ..Default::default()
            };
            group.bench_function(format!("forward and backward{label}"), |b| {
                b.iter(|| {
                    renderer.render(&cameras, background, options).expect("render");
                    renderer.backward(&grad).expect("backward");
                    wait(&device, &probe);
                });
            });
        }
        let still = AdamConfig { lr_grid: 0.0, lr_mlp: 0.0, ..Default::default() };
        group.bench_function("adam", |b| {
            b.iter(|| {
                renderer.step(&still).expect("step");
                wait(&device, &probe);
            });
        });
        group.bench_function("occupancy", |b| b.iter(|| renderer.update_occupancy(0).expect("update")));
    }
}

criterion_group!(benches, render);
criterion_main!(benches);
