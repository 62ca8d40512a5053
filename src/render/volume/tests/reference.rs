//! The whole renderer once more, in f64 and as plainly as possible.

use glam::DVec3;

use super::super::VolumeRenderer;
use super::super::renderer::Pass;
use crate::field::{DensityActivation, FieldConfig};
use crate::gpu::backend::Buffer;

/// Parameters by group: grid, MLP, background MLP.
pub(super) type Params = [Vec<f64>; 3];

/// Channels of the output, `[rays]` rows of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Channel {
    Rgb,
    Opacity,
    Depth,
    ZVariance,
    Normal,
    Orientation,
}

/// Samples of a render, taken from its pass: positions are no function of the parameters.
pub(super) struct Scene {
    config: FieldConfig,
    offsets: Vec<u32>,
    positions: Vec<f32>,
    intervals: Vec<f32>,
    rays: Vec<f32>,
    background: Option<Vec<f32>>,
    rays_per_background: usize,
    early_stop: f64,
    epsilon: f64,
    /// Samples with normals, and their weights when the scene was taken (for the orientation).
    picked: Vec<Option<f64>>,
}

fn read<T: bytemuck::Pod>(renderer: &VolumeRenderer, buffer: &Buffer, len: usize) -> Vec<T> {
    let mut words = vec![0u32; len];
    renderer.device.read(buffer, 0, &mut words).unwrap();
    bytemuck::cast_slice(&words).to_vec()
}

impl Scene {
    pub(super) fn of(renderer: &VolumeRenderer) -> Self {
        let pass: &Pass = renderer.pass.as_ref().unwrap();
        let samples = pass.samples;
        let mut picked = vec![None; samples];
        let weights: Vec<f32> = read(renderer, &pass.weights, samples);
        if let Some(normals) = &pass.normals {
            for i in read::<u32>(renderer, &normals.selected, normals.picked) {
                picked[i as usize] = Some(f64::from(weights[i as usize]));
            }
        }
        let views = pass.rays / pass.composite.rays_per_background as usize;
        Self {
            config: renderer.field.clone(),
            offsets: read(renderer, &pass.offsets, pass.rays + 1),
            positions: read(renderer, &pass.positions, 3 * samples),
            intervals: read(renderer, &pass.intervals, 2 * samples),
            rays: read(renderer, &pass.ray_buffer, 8 * pass.rays),
            background: (!pass.mlp_background).then(|| read(renderer, &pass.background, 3 * views)),
            rays_per_background: pass.composite.rays_per_background as usize,
            early_stop: f64::from(renderer.volume.early_stop),
            epsilon: f64::from(renderer.volume.normal_epsilon),
            picked,
        }
    }

    /// One channel of the render, flat.
    /// The field's density at a point.
    pub(super) fn density(&self, params: &Params, position: DVec3) -> f64 {
        field(&self.config, params, position).0
    }

    pub(super) fn render(&self, params: &Params, channel: Channel) -> Vec<f64> {
        (0..self.offsets.len() - 1).flat_map(|r| self.ray(params, r, channel)).collect()
    }

    fn ray(&self, params: &Params, r: usize, channel: Channel) -> Vec<f64> {
        let direction = DVec3::from_array(std::array::from_fn(|a| f64::from(self.rays[8 * r + 4 + a])));
        let (mut transmittance, mut stopped) = (1.0, false);
        let mut samples = Vec::new();
        for i in self.offsets[r] as usize..self.offsets[r + 1] as usize {
            let position = DVec3::from_array(std::array::from_fn(|a| f64::from(self.positions[3 * i + a])));
            let (density, color) = field(&self.config, params, position);
            let (t, length) = (f64::from(self.intervals[2 * i]), f64::from(self.intervals[2 * i + 1]));
            stopped |= transmittance < self.early_stop;
            let alpha = 1.0 - (-density * length).exp();
            let weight = if stopped { 0.0 } else { transmittance * alpha };
            transmittance *= 1.0 - alpha;
            samples.push((i, position, t, weight, color));
        }
        let opacity: f64 = samples.iter().map(|s| s.3).sum();
        let depth: f64 = samples.iter().map(|s| s.3 * s.2).sum();
        match channel {
            Channel::Opacity => vec![opacity],
            Channel::Depth => vec![depth],
            Channel::ZVariance if opacity < 1e-6 => vec![0.0],
            Channel::ZVariance => {
                vec![samples.iter().map(|s| s.3 * (s.2 - depth / opacity).powi(2)).sum()]
            }
            Channel::Rgb => {
                let behind = self.behind(params, r, direction);
                let sum: DVec3 = samples.iter().map(|s| s.4 * s.3).sum();
                (sum + behind * (1.0 - opacity)).to_array().to_vec()
            }
            Channel::Normal | Channel::Orientation => {
                let (mut sum, mut penalty) = (DVec3::ZERO, 0.0);
                for (i, position, _, weight, _) in samples {
                    let Some(frozen) = self.picked[i] else { continue };
                    let normal = self.normal(params, position);
                    sum += normal * weight;
                    penalty += frozen * normal.dot(direction).max(0.0).powi(2);
                }
                if channel == Channel::Normal { sum.to_array().to_vec() } else { vec![penalty] }
            }
        }
    }

    fn normal(&self, params: &Params, position: DVec3) -> DVec3 {
        let mut gradient = DVec3::ZERO;
        for corner in [(1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)] {
            let corner = DVec3::new(f64::from(corner.0), f64::from(corner.1), f64::from(corner.2));
            gradient += corner * field(&self.config, params, position + corner * self.epsilon).0;
        }
        gradient /= 4.0 * self.epsilon;
        -gradient / (gradient.length_squared() + 1e-6).sqrt()
    }

    fn behind(&self, params: &Params, r: usize, d: DVec3) -> DVec3 {
        if let Some(colors) = &self.background {
            let row = 3 * (r / self.rays_per_background);
            return DVec3::from_array(std::array::from_fn(|c| f64::from(colors[row + c])));
        }
        let pi = std::f64::consts::PI;
        let (k0, k1) = ((0.25 / pi).sqrt(), (0.75 / pi).sqrt());
        let (k2, k3, k4) = ((15.0 / pi / 4.0).sqrt(), (5.0 / pi / 16.0).sqrt(), (15.0 / pi / 16.0).sqrt());
        let input = [
            k0,
            k1 * d.y,
            k1 * d.z,
            k1 * d.x,
            k2 * d.x * d.y,
            k2 * d.y * d.z,
            k3 * (3.0 * d.z * d.z - 1.0),
            k2 * d.x * d.z,
            k4 * (d.x * d.x - d.y * d.y),
        ];
        let out = network(&params[2], &input, 16, 3);
        DVec3::from_array(std::array::from_fn(|c| 1.0 / (1.0 + (-out[c]).exp())))
    }
}

fn network(weights: &[f64], input: &[f64], width: usize, outputs: usize) -> Vec<f64> {
    let dot = |row: &[f64], x: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
    let (w1, w2) = weights.split_at(width * input.len());
    let hidden: Vec<f64> = w1.chunks(input.len()).map(|row| dot(row, input).max(0.0)).collect();
    assert_eq!(w2.len(), width * outputs);
    w2.chunks(width).map(|row| dot(row, &hidden)).collect()
}

/// Density and colour.
pub(super) fn field(config: &FieldConfig, params: &Params, x: DVec3) -> (f64, DVec3) {
    let mut features = Vec::new();
    for level in config.table() {
        let mut sum = [0.0; 2];
        let unit = (x * 0.5 + 0.5).clamp(DVec3::ZERO, DVec3::ONE) * f64::from(level.vertices - 1);
        let low = unit.floor().min(DVec3::splat(f64::from(level.vertices - 2)));
        for corner in 0..8u32 {
            let (mut weight, mut at) = (1.0, [0u32; 3]);
            for axis in 0..3 {
                let up = corner >> axis & 1;
                let part = unit[axis] - low[axis];
                weight *= if up == 1 { part } else { 1.0 - part };
                at[axis] = low[axis] as u32 + up;
            }
            let entry = if level.hashed == 1 {
                (at[0] ^ at[1].wrapping_mul(2_654_435_761) ^ at[2].wrapping_mul(805_459_861)) % level.entries
            } else {
                at[0] + at[1] * level.vertices + at[2] * level.vertices * level.vertices
            };
            for (f, sum) in sum.iter_mut().enumerate() {
                *sum += weight * params[0][2 * (level.offset + entry) as usize + f];
            }
        }
        features.extend(sum);
    }
    let out = network(&params[1], &features, config.hidden as usize, 4);
    let blob = f64::from(config.blob_scale) * (1.0 - x.length() / f64::from(config.blob_radius));
    let density = match config.activation {
        DensityActivation::Softplus => (1.0 + (out[0] + blob).exp()).ln(),
        DensityActivation::TruncExp => (out[0] + blob).exp(),
    };
    (density, DVec3::from_array(std::array::from_fn(|c| 1.0 / (1.0 + (-out[c + 1]).exp()))))
}
