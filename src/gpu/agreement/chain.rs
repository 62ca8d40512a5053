//! A small scene taken through all kernels, each fed with what the twins before it made.

use glam::Vec3;

use super::{Lab, Row, surface};
use crate::field::{DensityActivation, FieldConfig};
use crate::gpu::backend::Device;
use crate::gpu::kernels::{
    AdamParams, BACKGROUND_PARAMS, BackgroundParams, CAMERA, CompositeParams, Kernel as K, MarchParams,
    NormalParams, OUTPUTS, OccupancyParams, PIXEL, ScanParams,
};
use crate::render::camera::Camera;
use crate::rng::{Rng, Stream};

const SEED: u64 = 0x0123_4567_89ab_cdef;
const RESOLUTION: u32 = 16;

/// What differs between the two runs: together they take both sides of every switch.
#[derive(Clone, Copy)]
pub(super) struct Variant {
    pub(super) trunc_exp: bool,
    pub(super) jitter: bool,
    pub(super) background_mlp: bool,
}

pub(super) const VARIANTS: [Variant; 2] = [
    Variant { trunc_exp: false, jitter: true, background_mlp: false },
    Variant { trunc_exp: true, jitter: false, background_mlp: true },
];

/// `n` numbers in [-size, size), a different series for each `key`.
pub(super) fn noise(key: u32, n: usize, size: f32) -> Vec<f32> {
    let rng = Rng::new(SEED, Stream::Probe, key);
    (0..n as u64).map(|i| rng.range(i, -size, size)).collect()
}

/// Runs every kernel (or `only` one) on `gpu` and on the processor.
pub(super) fn run(gpu: &Device, variant: Variant, only: Option<K>) -> Vec<Row> {
    let mut rows = Vec::new();
    if only.is_none_or(|only| !surface::owns(only)) {
        rows.extend(run_volume(gpu, variant, only));
    }
    if only.is_none_or(surface::owns) {
        rows.extend(surface::run(gpu, variant, only));
    }
    rows
}

fn run_volume(gpu: &Device, variant: Variant, only: Option<K>) -> Vec<Row> {
    let mut chain = Chain { lab: Lab::new(gpu, only), variant, march: march(variant), samples: 0 };
    chain.rays();
    let net = chain.forward();
    chain.normals();
    chain.backward(&net);
    chain.occupancy();
    chain.adam();
    chain.lab.rows
}

fn march(variant: Variant) -> MarchParams {
    let (width, height) = (29, 21);
    // A background of its own for each ray has no room for rays before the first.
    let first_ray = if variant.background_mlp { 0 } else { 37 };
    MarchParams {
        rays: 2 * width * height - first_ray,
        first_ray,
        width,
        height,
        bins: 60,
        mask_words: 2,
        resolution: RESOLUTION,
        jitter: u32::from(variant.jitter),
        seed: [SEED as u32, (SEED >> 32) as u32],
        step: 1234,
        step_size: 2.0 * 3f32.sqrt() * 0.8 / 60.0,
        half_extent: 0.8,
        near: 0.1,
        pad: [0; 2],
    }
}

struct Chain<'a> {
    lab: Lab<'a>,
    variant: Variant,
    march: MarchParams,
    samples: usize,
}

impl Chain<'_> {
    fn rays(&mut self) {
        let (lab, n) = (&mut self.lab, self.march.rays as usize);
        let mut cameras = Vec::new();
        // The first camera sees past the box, the second stands inside of it.
        for (azimuth, distance) in [(30.0, 2.4), (200.0, 0.5)] {
            let camera = Camera::orbit(azimuth, 20.0, distance, Vec3::ZERO, 0.9, 29);
            cameras.extend(camera.c2w.to_cols_array());
            cameras.extend([(0.5 * camera.fov_y).tan(), 0.0, 0.0, 0.0]);
        }
        assert_eq!(cameras.len(), 2 * CAMERA);
        lab.set("cameras", cameras);
        let cells = Rng::new(SEED, Stream::Probe, 1);
        let occupancy = (0..RESOLUTION.pow(3) / 32).map(|i| cells.words(u64::from(i))[0]).collect();
        lab.words.insert("occupancy", occupancy);
        lab.poison("rays", 8 * n);
        lab.poison("mask", 2 * n);
        lab.poison("counts", n);
        lab.run(K::MarchCount, bytemuck::bytes_of(&self.march), n);
        self.samples = self.scan();
        let samples = self.samples;
        assert!(samples > 5 * n, "the scene is too empty: {samples} samples");
        self.lab.poison("positions", 3 * samples);
        self.lab.poison("intervals", 2 * samples);
        self.lab.run(K::MarchWrite, bytemuck::bytes_of(&self.march), n);
    }

    /// From `counts` to `offsets`; returns the total.
    fn scan(&mut self) -> usize {
        let n = self.march.rays as usize;
        self.lab.poison("offsets", n + 1);
        self.lab.run(K::Scan, bytemuck::bytes_of(&ScanParams { n: n as u32, pad: [0; 3] }), 1);
        self.lab.words["offsets"][n] as usize
    }

    /// Field and pixels; returns the field's parameters.
    fn forward(&mut self) -> Vec<u8> {
        let config = FieldConfig {
            levels: 6,
            base_resolution: 4,
            finest_resolution: 64,
            log2_table: 11,
            hidden: if self.variant.trunc_exp { 16 } else { 48 },
            activation: if self.variant.trunc_exp {
                DensityActivation::TruncExp
            } else {
                DensityActivation::Softplus
            },
            blob_scale: if self.variant.trunc_exp { 3.0 } else { 10.0 },
            ..FieldConfig::default()
        };
        let table = config.table();
        assert!(table[0].hashed == 0 && table[5].hashed == 1, "both kinds of level");
        let net = bytemuck::bytes_of(&config.params(self.samples, 5, true)).to_vec();
        let (lab, n) = (&mut self.lab, self.march.rays as usize);
        lab.set("grid", noise(2, config.grid_params(), 1.0));
        lab.set("mlp", noise(3, config.mlp_params(), 1.0));
        lab.set("grid_grad", noise(4, config.grid_params(), 0.01));
        lab.set("mlp_grad", noise(5, config.mlp_params(), 0.01));
        lab.poison("field", OUTPUTS * self.samples);
        lab.poison("features", 2 * 6 * self.samples);
        lab.run(K::FieldForward, &net, self.samples);
        if self.variant.background_mlp {
            lab.set("background_mlp", noise(6, BACKGROUND_PARAMS, 1.0));
            lab.poison("background", 3 * n);
            let params = BackgroundParams { rays: n as u32, pad: [0; 3] };
            lab.run(K::BackgroundForward, bytemuck::bytes_of(&params), n);
        } else {
            lab.set("background", noise(7, 6, 0.5));
        }
        lab.poison("weights", self.samples);
        lab.poison("pixels", PIXEL * n);
        let params = self.composite(false);
        self.lab.run(K::Composite, bytemuck::bytes_of(&params), n);
        net
    }

    fn composite(&self, use_weight_grad: bool) -> CompositeParams {
        let alone = self.variant.background_mlp;
        CompositeParams {
            rays: self.march.rays,
            first_ray: self.march.first_ray,
            rays_per_background: if alone { 1 } else { self.march.width * self.march.height },
            use_weight_grad: u32::from(use_weight_grad),
            early_stop: 1e-3,
            pad: [0; 3],
        }
    }

    fn normals(&mut self) {
        let n = self.march.rays as usize;
        let params = NormalParams { rays: n as u32, threshold: 1e-3, epsilon: 0.01, floor: 0.1 };
        let bytes = bytemuck::bytes_of(&params);
        self.lab.poison("counts", n);
        self.lab.run(K::NormalCount, bytes, n);
        let offsets = self.lab.words["offsets"].clone();
        let picked = self.scan();
        let normal_offsets = self.lab.words.insert("offsets", offsets).expect("scan has set it");
        assert!(picked > 1000, "{picked} picked");
        let lab = &mut self.lab;
        lab.words.insert("normal_offsets", normal_offsets);
        lab.poison("selected", picked);
        lab.poison("queries", 12 * picked);
        lab.run(K::NormalPoints, bytes, n);
        let queried = noise(8, 16 * picked, 1.0).into_iter().map(|x| 5.0 + 0.3 * x).collect();
        lab.set("query_field", queried);
        lab.poison("normals", 4 * n);
        lab.run(K::NormalComposite, bytes, n);
        lab.set("normals_grad", noise(9, 4 * n, 1.0));
        lab.poison("query_field_grad", 16 * picked);
        lab.set("weight_grad", vec![0.0; self.samples]);
        lab.run(K::NormalBackward, bytes, n);
    }

    fn backward(&mut self, net: &[u8]) {
        let n = self.march.rays as usize;
        let params = self.composite(!self.variant.background_mlp);
        let lab = &mut self.lab;
        lab.set("pixel_grad", noise(10, PIXEL * n, 1.0));
        lab.poison("field_grad", OUTPUTS * self.samples);
        lab.run(K::CompositeBackward, bytemuck::bytes_of(&params), n);
        if self.variant.background_mlp {
            lab.set("background_mlp_grad", noise(11, BACKGROUND_PARAMS, 0.1));
            let params = BackgroundParams { rays: n as u32, pad: [0; 3] };
            lab.run(K::BackgroundBackward, bytemuck::bytes_of(&params), n);
        }
        lab.run(K::FieldBackward, net, self.samples);
        lab.run(K::GridBackward, net, 5 * self.samples);
        lab.poison("positions_grad", 3 * self.samples);
        lab.run(K::GridPositionsBackward, net, self.samples);
    }

    fn occupancy(&mut self) {
        let cells = RESOLUTION.pow(3) as usize;
        let params = OccupancyParams {
            resolution: RESOLUTION,
            step: 77,
            seed: [SEED as u32, (SEED >> 32) as u32],
            decay: 0.9,
            threshold: 0.4,
            pad: [0; 2],
        };
        let (lab, bytes) = (&mut self.lab, bytemuck::bytes_of(&params));
        lab.poison("positions", 3 * cells);
        lab.run(K::OccupancyPoints, bytes, cells);
        lab.set("field", noise(12, 4 * cells, 1.0));
        lab.set("ema", noise(13, cells, 1.0));
        lab.run(K::OccupancyUpdate, bytes, cells);
        lab.poison("occupancy", cells / 32);
        lab.run(K::OccupancyBits, bytes, cells / 32);
    }

    fn adam(&mut self) {
        let n = 1000;
        let params = AdamParams {
            n: n as u32,
            rate: 0.01,
            beta1: 0.9,
            beta2: 0.99,
            v_scale: 1.7,
            eps: 1e-8,
            pad: [0; 2],
        };
        let lab = &mut self.lab;
        for (key, name) in [(14, "params"), (15, "grad"), (16, "m")] {
            lab.set(name, noise(key, n + 3, 1.0));
        }
        lab.set("v", noise(17, n + 3, 1.0).into_iter().map(f32::abs).collect());
        lab.run(K::Adam, bytemuck::bytes_of(&params), n);
        assert!(lab.floats("grad")[..n].iter().all(|g| *g == 0.0));
    }
}
