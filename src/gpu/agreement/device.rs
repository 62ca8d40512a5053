//! The wgpu device itself: order of commands, large dispatches, random numbers, failures.

use super::{gpu, read, vulkan};
use crate::Error;
use crate::gpu::backend::{Backend, Device};
use crate::gpu::kernels::{AdamParams, Kernel};
use crate::gpu::pipeline::{Pipeline, sources};
use crate::gpu::shader::{Defines, Sources};
use crate::gpu::vulkan::Vulkan;
use crate::rng::philox;

/// With β₁ = 0 and v at ∞ᐟ⁰ out of the way, Adam subtracts `rate·gradient`.
fn descend(n: usize, rate: f32) -> AdamParams {
    AdamParams { n: n as u32, rate, beta1: 0.0, beta2: 1.0, v_scale: 0.0, eps: 1.0, pad: [0; 2] }
}

#[test]
fn random_words_equal_the_processors() {
    const TEST: &str = "
#import invocation
#import rng
struct Params { n: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> inputs: array<u32>;
@group(0) @binding(2) var<storage, read_write> outputs: array<vec4u>;
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
    let i = item(group, groups, local);
    if i < p.n {
        let at = 6u * i;
        let counter = vec4u(inputs[at], inputs[at + 1u], inputs[at + 2u], inputs[at + 3u]);
        outputs[i] = philox(counter, vec2u(inputs[at + 4u], inputs[at + 5u]));
    }
}";
    let Some(gpu) = gpu() else { return };
    let files = sources().iter().map(|(path, text)| (path.to_owned(), text.to_owned()));
    let shaders = Sources::new(files.chain([("philox.wgsl".to_owned(), TEST.to_owned())]));
    let pipeline = Pipeline::new(&gpu, &shaders.assemble("philox", &Defines::default()).unwrap()).unwrap();
    // The published known-answer inputs, then words with few and many bits.
    let mut inputs = vec![0u32; 6];
    inputs.extend([u32::MAX; 6]);
    let n = 2000;
    inputs.extend((0..6 * (n - 2) as u32).map(|i| philox([i, 0, 0, 0], [9, 9])[0] >> (i % 31)));
    let bytes = 16 * n as u64;
    let (from, to) =
        (gpu.allocate("inputs", 24 * n as u64).unwrap(), gpu.allocate("outputs", bytes).unwrap());
    gpu.upload(&from, bytemuck::cast_slice(&inputs)).unwrap();
    gpu.dispatch(&pipeline, bytemuck::bytes_of(&[n as u32, 0, 0, 0]), n, &[&from, &to]).unwrap();
    let mut found = vec![[0u32; 4]; n];
    gpu.download(&to, 0, bytemuck::cast_slice_mut(&mut found)).unwrap();
    assert_eq!(found[0], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(found[1], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    for (found, input) in found.iter().zip(inputs.as_chunks::<6>().0) {
        let [a, b, c, d, k0, k1] = *input;
        assert_eq!(*found, philox([a, b, c, d], [k0, k1]));
    }
}

#[test]
fn more_workgroups_than_one_dimension_holds() {
    let Some(device) = vulkan(true, sources()) else { return };
    // 64 · 65,535 invocations fill one row; this needs two, and the guard at the end.
    let n = 64 * 65_535 + 1000;
    let buffers: Vec<_> = ["params", "grad", "m", "v"].map(|name| device.create(name, n + 1).unwrap()).into();
    device.write(&buffers[1], &vec![2.0f32.to_bits(); n + 1]).unwrap();
    let bound: Vec<_> = buffers.iter().collect();
    device.dispatch(Kernel::Adam, bytemuck::bytes_of(&descend(n, 0.5)), n, &bound).unwrap();
    let params = read(&*device, &buffers[0]);
    assert!(params[..n].iter().all(|w| f32::from_bits(*w) == -1.0));
    assert_eq!(f32::from_bits(params[n]), 0.0, "beyond the last item");
}

#[test]
fn commands_take_effect_in_the_order_of_the_calls() {
    let Some(device) = vulkan(true, sources()) else { return };
    let buffers: Vec<_> = ["params", "grad", "m", "v"].map(|name| device.create(name, 1).unwrap()).into();
    let bound: Vec<_> = buffers.iter().collect();
    assert_eq!(read(&*device, &buffers[0]), [0], "new buffers are zero");
    // More dispatches than the uniform buffer has slots, each with a gradient written just before.
    let mut wanted = 0.0;
    for i in 0..600 {
        let rate = (i % 7) as f32;
        if i % 50 == 0 {
            device.write(&buffers[1], &[1f32.to_bits()]).unwrap();
            wanted -= rate;
        }
        // The gradient is zero after the first of these.
        device.dispatch(Kernel::Adam, bytemuck::bytes_of(&descend(1, rate)), 1, &bound).unwrap();
    }
    assert_eq!(f32::from_bits(read(&*device, &buffers[0])[0]), wanted);
    device.clear(&buffers[0]).unwrap();
    assert_eq!(read(&*device, &buffers[0]), [0]);
    device.dispatch(Kernel::Adam, bytemuck::bytes_of(&descend(0, 1.0)), 0, &bound).unwrap();
}

#[test]
fn misuse_is_an_error_and_leaves_the_device_usable() {
    let Some(device) = vulkan(true, sources()) else { return };
    let buffer = device.create("b", 4).unwrap();
    let foreign = Device::cpu().create("b", 4).unwrap();
    let params = descend(1, 1.0);
    let params = bytemuck::bytes_of(&params);
    let failed = |result: crate::Result<()>, text: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    failed(device.write(&buffer, &[0; 5]), "5 words");
    failed(device.read(&buffer, 2, &mut [0; 3]), "3 words");
    failed(device.read(&buffer, usize::MAX, &mut [0; 3]), "3 words");
    failed(device.clear(&foreign), "another device");
    failed(device.dispatch(Kernel::Adam, params, 1, &[&buffer]), "4 expected");
    failed(device.dispatch(Kernel::Adam, params, 1, &[&buffer; 4]), "bound twice");
    let error = device.create("huge", device.max_words() + 1).unwrap_err();
    assert!(error.to_string().contains("huge") && error.hint_text().is_some(), "{error}");
    device.write(&buffer, &[1, 2, 3, 4]).unwrap();
    assert_eq!(read(&*device, &buffer), [1, 2, 3, 4]);
}

#[test]
fn a_refused_pipeline_is_an_error() {
    let Some(gpu) = gpu() else { return };
    // Valid WGSL with more invocations in a workgroup than any device has.
    let file = |text: &str| {
        let files = sources().iter().filter(|(path, _)| *path != "adam.wgsl");
        Sources::new(files.chain([("adam.wgsl", text)]))
    };
    let broken = file("@compute @workgroup_size(65536)\nfn adam() {}\n");
    let device = Vulkan::with_sources(gpu, true, broken);
    let buffers: Vec<_> = ["params", "grad", "m", "v"].map(|name| device.create(name, 1).unwrap()).into();
    let bound: Vec<_> = buffers.iter().collect();
    let params = descend(1, 1.0);
    let run = |device: &Vulkan| device.dispatch(Kernel::Adam, bytemuck::bytes_of(&params), 1, &bound);
    let error = run(&device).unwrap_err();
    assert!(matches!(error, Error::Gpu(_)) && error.to_string().contains("adam"), "{error}");
    let broken = file("// one\nfn adam() -> f32 { return 1u; }\n");
    let Some(gpu) = super::gpu() else { return };
    let error = run(&Vulkan::with_sources(gpu, true, broken)).unwrap_err();
    assert!(error.to_string().contains("adam.wgsl:2"), "{error}");
}
