//! Training of the autoencoder.

use std::collections::HashMap;

use candle_core::Tensor;
use serde_json::json;

use super::config::TrainConfig;
use super::pictures::{Pictures, batch_indices};
use super::run::{Run, learning_rate};
use crate::error::{Error, Result};
use crate::prior::nn::adam::{AdamConfig, AdamW};
use crate::prior::vae::{Posterior, Vae};
use crate::prior::weights::Store;
use crate::rng::{Rng, Stream};

const CHECKPOINT: &str = "vae.train.safetensors";
const CHECKPOINT_EVERY: u32 = 500;

/// Trains (or goes on training) the autoencoder; returns its averaged weights.
///
/// Loss: L1 + `edge_weight`·L1 of horizontal and vertical differences + `kl_weight`·KL(q‖N(0,1)).
///
/// # Errors
/// If the loss is not finite, a file cannot be written, or the user asked to stop.
pub fn train(config: &TrainConfig, pictures: &Pictures, run: &mut Run) -> Result<HashMap<String, Tensor>> {
    let device = run.device.clone();
    let store = Store::fresh(config.seed, &device);
    let vae = Vae::new(config.vae_config(1.0), &store.root())?;
    quiet_posterior(&store, config.vae.latent_channels)?;
    let c = &config.vae;
    let mut adam = AdamW::new(
        store.vars(),
        AdamConfig {
            max_grad_norm: Some(1.0),
            ema_decay: Some(0.999),
            weight_decay: 0.0,
            ..AdamConfig::default()
        },
    )?;
    let first = run.restore(CHECKPOINT, &mut adam)?;
    for step in first..c.steps {
        let indices = batch_indices(config.seed, step, c.batch, pictures.len());
        let x = pictures.batch(&indices, &device)?;
        let Posterior { mean, logvar } = vae.posterior(&x)?;
        let noise = Rng::new(config.seed, Stream::Noise, step).normals(0, mean.elem_count());
        let noise = Tensor::from_vec(noise, mean.shape(), &device)?;
        let z = (&mean + (noise * (&logvar * 0.5)?.exp()?)?)?;
        let y = vae.decode_unscaled(&z)?;
        let difference = (&y - &x)?;
        let l1 = difference.abs()?.mean_all()?;
        let edges = edge_difference(&difference)?;
        let kl = ((mean.sqr()? + logvar.exp()?)? - &logvar)?.affine(0.5, -0.5)?.mean_all()?;
        let loss = ((&l1 + (&edges * c.edge_weight)?)? + (&kl * c.kl_weight)?)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        if !value.is_finite() {
            return Err(Error::Failed(format!("vae: the loss is {value} at step {step}"))
                .hint("lower vae.learning_rate"));
        }
        let rate = learning_rate(step, c.steps, 50, c.learning_rate);
        adam.step(&loss.backward()?, rate)?;
        (run.progress)("vae", step + 1, c.steps, value);
        if (step + 1) % 50 == 0 {
            let (l1, kl) = (l1.to_scalar::<f32>()?, kl.to_scalar::<f32>()?);
            run.log(
                &json!({"stage": "vae", "step": step + 1, "loss": value, "l1": l1, "kl": kl, "lr": rate}),
            )?;
        }
        let stopped = run.stopped();
        if stopped || (step + 1) % CHECKPOINT_EVERY == 0 || step + 1 == c.steps {
            run.save(CHECKPOINT, &adam, step + 1)?;
        }
        if stopped {
            return Err(Error::Interrupted);
        }
    }
    Ok(adam.averaged()?)
}

/// Lets training start with little noise on the latents (log-variance −6). At log-variance 0 the first
/// hundreds of steps are spent on shouting over the noise before the decoder sees a picture at all.
fn quiet_posterior(store: &Store, channels: usize) -> Result<()> {
    if let Some(bias) = store.vars().get("quant_conv.bias") {
        let values: Vec<f32> = (0..2 * channels).map(|i| if i < channels { 0.0 } else { -6.0 }).collect();
        bias.set(&Tensor::from_vec(values, 2 * channels, bias.device())?)?;
    }
    Ok(())
}

/// Mean absolute horizontal and vertical difference of an error picture: blur costs, a shift does not.
fn edge_difference(d: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = d.dims4()?;
    let dx = (d.narrow(3, 1, w - 1)? - d.narrow(3, 0, w - 1)?)?.abs()?.mean_all()?;
    let dy = (d.narrow(2, 1, h - 1)? - d.narrow(2, 0, h - 1)?)?.abs()?.mean_all()?;
    Ok((dx + dy)?)
}

/// What `encode` gives for the first `most` pictures, batch after batch, `[N, c, h, w]`.
///
/// # Errors
/// If a tensor operation fails.
pub(super) fn encode_all(
    encode: &dyn Fn(&Tensor) -> Result<Tensor>,
    pictures: &Pictures,
    most: usize,
    run: &mut Run,
) -> Result<Tensor> {
    // On the CPU so many fit the caches; a GPU wants to be filled.
    let (batch, count) = (if run.device.is_cpu() { 64 } else { 512 }, pictures.len().min(most));
    let mut parts = Vec::new();
    let steps = count.div_ceil(batch) as u32;
    for (i, start) in (0..count).step_by(batch).enumerate() {
        let indices: Vec<usize> = (start..(start + batch).min(count)).collect();
        parts.push(encode(&pictures.batch(&indices, &run.device)?)?);
        (run.progress)("encode", i as u32 + 1, steps, 0.0);
        if run.stopped() {
            return Err(Error::Interrupted);
        }
    }
    Ok(Tensor::cat(&parts, 0)?)
}
