//! diffusers' `AutoencoderTiny`: a small stand-in for the VAE (previews, low memory).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::layers::Conv2d;
use super::nn;
use super::weights::Weights;
use crate::error::{Error, Result};

/// `config.json` of an `AutoencoderTiny`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TinyConfig {
    /// Colour channels.
    #[serde(default = "three")]
    pub in_channels: usize,
    /// Colour channels out.
    #[serde(default = "three")]
    pub out_channels: usize,
    /// Channels of the encoder's stages; each but the first halves the picture.
    #[serde(default = "sixty_four")]
    pub encoder_block_out_channels: Vec<usize>,
    /// Channels of the decoder's stages; each but the last doubles the picture.
    #[serde(default = "sixty_four")]
    pub decoder_block_out_channels: Vec<usize>,
    /// `relu`.
    #[serde(default = "relu")]
    pub act_fn: String,
    /// Channels of the latents.
    #[serde(default = "four")]
    pub latent_channels: usize,
    /// Residual blocks of each of the encoder's stages.
    #[serde(default = "encoder_blocks")]
    pub num_encoder_blocks: Vec<usize>,
    /// Residual blocks of each of the decoder's stages.
    #[serde(default = "decoder_blocks")]
    pub num_decoder_blocks: Vec<usize>,
    /// Latents times this have unit variance.
    #[serde(default = "one")]
    pub scaling_factor: f64,
    /// Everything else in the file.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

fn three() -> usize {
    3
}

fn four() -> usize {
    4
}

fn one() -> f64 {
    1.0
}

fn sixty_four() -> Vec<usize> {
    vec![64; 4]
}

fn encoder_blocks() -> Vec<usize> {
    vec![1, 3, 3, 3]
}

fn decoder_blocks() -> Vec<usize> {
    vec![3, 3, 3, 1]
}

fn relu() -> String {
    "relu".into()
}

/// Keys outside [`TinyConfig`] and the values under which this network is the same function. The
/// latents' range and shift matter only to their storage as bytes.
const OFF: &[(&str, &[&str])] = &[
    ("upsampling_scaling_factor", &["2"]),
    ("upsample_fn", &["\"nearest\""]),
    ("block_out_channels", &[]),
    ("force_upcast", &[]),
    ("latent_magnitude", &[]),
    ("latent_shift", &[]),
    ("shift_factor", &["0", "0.0", "null"]),
];

impl TinyConfig {
    fn check(&self) -> Result<()> {
        let bad = |k: &str, why: String| Err(Error::invalid(format!("vae/config.json: {k}"), why));
        for (key, value) in self.rest.iter().filter(|(k, _)| !k.starts_with('_')) {
            let text = value.to_string();
            match OFF.iter().find(|(k, _)| k == key) {
                Some((_, ok)) if ok.is_empty() || ok.contains(&text.as_str()) => {}
                Some(_) => return bad(key, format!("unsupported value {text}")),
                None => return bad(key, format!("unknown key (value {text})")),
            }
        }
        if self.act_fn != "relu" {
            return bad("act_fn", format!("unsupported value {:?} (relu)", self.act_fn));
        }
        let stages = |channels: &[usize], blocks: &[usize]| {
            (1..=8).contains(&channels.len())
                && channels.len() == blocks.len()
                && channels.iter().all(|&c| (1..=1 << 14).contains(&c))
                && blocks.iter().all(|&b| b <= 64)
        };
        if !stages(&self.encoder_block_out_channels, &self.num_encoder_blocks) {
            return bad("encoder_block_out_channels", "must be 1 to 8 numbers, as num_encoder_blocks".into());
        }
        if !stages(&self.decoder_block_out_channels, &self.num_decoder_blocks) {
            return bad("decoder_block_out_channels", "must be 1 to 8 numbers, as num_decoder_blocks".into());
        }
        Ok(())
    }

    /// Pixels a latent pixel, each way.
    pub fn factor(&self) -> usize {
        1 << (self.encoder_block_out_channels.len() - 1)
    }
}

enum Step {
    Conv(Conv2d),
    Relu,
    Double,
    /// Three convolutions with ReLU between, the input added, ReLU.
    Residual([Conv2d; 3]),
}

/// See the module's text.
pub struct TinyVae {
    /// The configuration it was built from.
    pub config: TinyConfig,
    encoder: Vec<Step>,
    decoder: Vec<Step>,
}

impl TinyVae {
    /// Takes its tensors from `w`.
    ///
    /// # Errors
    /// An unsupported config value; a tensor that cannot be made.
    pub fn new(config: TinyConfig, w: &Weights) -> Result<Self> {
        config.check()?;
        Ok(Self { encoder: encoder(&config, w)?, decoder: decoder(&config, w)?, config })
    }

    /// Latents `[B, c, h, w]` of pictures `[B, 3, H, W]` in −1..1.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn encode(&self, x: &Tensor) -> Result<Tensor> {
        run(&self.encoder, x.affine(0.5, 0.5)?)
    }

    /// Pictures in −1..1 of latents, which are first bent into −3..3.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn decode(&self, z: &Tensor) -> Result<Tensor> {
        Ok(run(&self.decoder, ((z / 3.0)?.tanh()? * 3.0)?)?.affine(2.0, -1.0)?)
    }
}

fn run(steps: &[Step], mut t: Tensor) -> Result<Tensor> {
    for step in steps {
        t = match step {
            Step::Conv(conv) => conv.forward(&t)?,
            Step::Relu => t.relu()?,
            Step::Double => nn::upsample_nearest2x(&t)?,
            Step::Residual([a, b, c]) => {
                let h = b.forward(&a.forward(&t)?.relu()?)?.relu()?;
                (c.forward(&h)? + t)?.relu()?
            }
        };
    }
    Ok(t)
}

/// The layers' numbers are their places in PyTorch's `Sequential`, activations included.
struct Counter<'a> {
    w: Weights<'a>,
    next: usize,
    steps: Vec<Step>,
}

impl<'a> Counter<'a> {
    fn new(w: Weights<'a>) -> Self {
        Self { w, next: 0, steps: Vec::new() }
    }

    fn push(&mut self, make: impl FnOnce(&Weights) -> Result<Step>) -> Result<()> {
        let step = make(&self.w.pp(self.next))?;
        self.next += 1;
        self.steps.push(step);
        Ok(())
    }

    fn residuals(&mut self, channels: usize, count: usize) -> Result<()> {
        for _ in 0..count {
            self.push(|w| {
                let conv = |i: usize| Conv2d::new(channels, channels, 3, &w.pp("conv").pp(i));
                Ok(Step::Residual([conv(0)?, conv(2)?, conv(4)?]))
            })?;
        }
        Ok(())
    }
}

fn encoder(config: &TinyConfig, w: &Weights) -> Result<Vec<Step>> {
    let mut at = Counter::new(w.pp("encoder.layers"));
    let channels = &config.encoder_block_out_channels;
    for (i, (&c, &blocks)) in channels.iter().zip(&config.num_encoder_blocks).enumerate() {
        at.push(|w| {
            Ok(Step::Conv(match i {
                0 => Conv2d::new(config.in_channels, c, 3, w)?,
                _ => Conv2d::plain3x3(channels[i - 1], c, 2, w)?,
            }))
        })?;
        at.residuals(c, blocks)?;
    }
    let last = channels[channels.len() - 1];
    at.push(|w| Ok(Step::Conv(Conv2d::new(last, config.latent_channels, 3, w)?)))?;
    Ok(at.steps)
}

fn decoder(config: &TinyConfig, w: &Weights) -> Result<Vec<Step>> {
    let mut at = Counter::new(w.pp("decoder.layers"));
    let channels = &config.decoder_block_out_channels;
    at.push(|w| Ok(Step::Conv(Conv2d::new(config.latent_channels, channels[0], 3, w)?)))?;
    at.push(|_| Ok(Step::Relu))?;
    for (i, (&c, &blocks)) in channels.iter().zip(&config.num_decoder_blocks).enumerate() {
        at.residuals(c, blocks)?;
        if i + 1 < channels.len() {
            at.push(|_| Ok(Step::Double))?;
            at.push(|w| Ok(Step::Conv(Conv2d::plain3x3(c, channels[i + 1], 1, w)?)))?;
        } else {
            at.push(|w| Ok(Step::Conv(Conv2d::new(c, config.out_channels, 3, w)?)))?;
        }
    }
    Ok(at.steps)
}
