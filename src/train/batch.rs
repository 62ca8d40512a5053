//! What one step of a denoiser's training sees, and its loss.

use std::ops::Range;

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use super::pictures::{Pictures, batch_indices};
use super::weighting::loss_weight;
use crate::error::Result;
use crate::prior::nn;
use crate::prior::schedule::Schedule;
use crate::rng::{Rng, Stream};

/// Latents `[N, c, h, w]` scaled to unit variance, with the pictures they came from.
pub(super) struct Latents {
    /// All latents; where they are is where the networks are trained.
    pub values: Tensor,
    /// The cameras' rays `[N, 6, h, w]`, kept on a GPU for a model that takes them.
    pub rays: Option<Tensor>,
    /// Captions and cameras.
    pub pictures: Pictures,
}

/// Some of the latents with noise and noise levels.
pub(super) struct Batch {
    /// Of the pictures.
    pub(super) indices: Vec<usize>,
    /// `[B, c, h, w]`, unscaled by noise.
    pub(super) x0: Tensor,
    /// As `x0`, standard normal.
    pub(super) noise: Tensor,
    /// The pictures whose captions are told, if any.
    pub(super) captions: Vec<Option<usize>>,
    /// `[B, 16]`.
    pub(super) cameras: Tensor,
    /// Their rays, if they are kept.
    pub(super) rays: Option<Tensor>,
    /// Timesteps.
    pub(super) t: Vec<f32>,
}

impl Batch {
    /// The `size` samples of `step` among the first `count`, a pure function of its arguments; the share
    /// `dropout` goes without a caption.
    pub(super) fn draw(
        latents: &Latents,
        seed: u64,
        step: u32,
        (size, count): (usize, usize),
        dropout: f32,
    ) -> Result<Self> {
        let (pictures, device) = (&latents.pictures, latents.values.device());
        let indices = batch_indices(seed, step, size, count);
        let ids = Tensor::from_vec(indices.iter().map(|&i| i as u32).collect::<Vec<_>>(), size, device)?;
        let x0 = latents.values.index_select(&ids, 0)?;
        let drop = Rng::new(seed, Stream::Dropout, step);
        let told = |(j, &i): (usize, &usize)| (drop.uniform(j as u64) >= dropout).then_some(i);
        // Stratified over the batch: each step sees all noise levels, which lowers the loss's variance.
        let rng = Rng::new(seed, Stream::Timestep, step);
        let t = (0..size)
            .map(|j| ((j as f32 + rng.uniform(j as u64)) / size as f32 * 1000.0).floor().min(999.0))
            .collect();
        let rays = latents.rays.as_ref().map(|r| r.index_select(&ids, 0)).transpose()?;
        Ok(Self {
            noise: nn::normals(&Rng::new(seed, Stream::Noise, step), x0.shape(), device)?,
            rays,
            captions: indices.iter().enumerate().map(told).collect(),
            cameras: pictures.cameras(&indices, device)?,
            indices,
            x0,
            t,
        })
    }

    /// Some of its rows.
    pub(super) fn rows(&self, rows: Range<usize>) -> Result<Self> {
        let cut = |x: &Tensor| x.narrow(0, rows.start, rows.len())?.contiguous();
        Ok(Self {
            indices: self.indices[rows.clone()].to_vec(),
            x0: cut(&self.x0)?,
            noise: cut(&self.noise)?,
            captions: self.captions[rows.clone()].to_vec(),
            cameras: cut(&self.cameras)?,
            rays: self.rays.as_ref().map(cut).transpose()?,
            t: self.t[rows].to_vec(),
        })
    }

    /// Its captions; empty where none is told.
    pub(super) fn texts<'a>(&self, pictures: &'a Pictures) -> Vec<&'a str> {
        self.captions.iter().map(|i| i.map_or("", |i| pictures.caption(i))).collect()
    }

    /// The noisy latents and their timesteps `[B]`.
    pub(super) fn noisy(&self, schedule: &Schedule) -> Result<(Tensor, Tensor)> {
        let x_t = schedule.add_noise(&self.x0, &self.noise, &self.t)?;
        Ok((x_t, Tensor::from_vec(self.t.clone(), self.t.len(), self.x0.device())?))
    }

    /// The mean squared error of what is predicted, weighted by noise level (`gamma` of min-SNR).
    pub(super) fn loss(
        &self,
        schedule: &Schedule,
        gamma: Option<f64>,
        prediction: &Tensor,
    ) -> Result<Tensor> {
        let target = schedule.target(&self.x0, &self.noise, &self.t)?;
        let error = (prediction - target)?.sqr()?.flatten_from(1)?.mean(1)?;
        let kind = schedule.config.prediction_type;
        let weights = self.t.iter().map(|t| loss_weight(schedule, kind, gamma, *t) as f32);
        let weights = Tensor::from_vec(weights.collect::<Vec<_>>(), self.t.len(), self.x0.device())?;
        Ok((error * weights)?.mean_all()?)
    }
}

/// The loss of `batch` and its gradients, in `parts` side by side; `loss` gets some of the rows and their
/// share of all.
pub(super) fn in_parts(
    batch: &Batch,
    parts: usize,
    loss: impl Fn(&Batch, f64) -> Result<Tensor> + Sync,
) -> Result<(f64, Vec<GradStore>)> {
    let size = batch.t.len();
    let part = |i: usize| -> Result<(f64, GradStore)> {
        let rows = i * size / parts..(i + 1) * size / parts;
        let share = rows.len() as f64 / size as f64;
        let loss = loss(&batch.rows(rows)?, share)?;
        Ok((f64::from(loss.to_scalar::<f32>()?), loss.backward()?))
    };
    let (losses, gradients): (Vec<f64>, _) = nn::in_parts(parts, part)?.into_iter().unzip();
    Ok((losses.iter().sum(), gradients))
}
