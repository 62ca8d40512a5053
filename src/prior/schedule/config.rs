//! `scheduler_config.json`, key by key.

use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// How β rises from `beta_start` to `beta_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BetaSchedule {
    /// β linear in t.
    Linear,
    /// √β linear in t (Stable Diffusion).
    ScaledLinear,
    /// ᾱ = cos²(π/2·(t/T + .008)/1.008), β at most .999 (Nichol and Dhariwal 2021).
    SquaredCosine,
}

/// What the network outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise ε.
    Epsilon,
    /// The velocity v = α ε − σ x_0.
    V,
    /// The clean sample x_0.
    Sample,
}

/// How inference timesteps are spread over the training timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// 0, r, 2r… plus `steps_offset`.
    Leading,
    /// T−1, T−1−r…
    Trailing,
    /// From T−1 to 0, both included.
    Linspace,
}

/// How solvers that think in σ/α (Euler, DPM-Solver, UniPC) spread their noise levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigmaSpacing {
    /// At the timesteps of [`Spacing`].
    Timesteps,
    /// (σ/α)^(1/7) evenly (Karras et al. 2022, equation 5).
    Karras,
    /// ln(σ/α) evenly.
    Exponential,
    /// ln(σ/α) evenly, as Lu et al. 2022 chose; the model is asked at the nearest whole timestep.
    Lu,
    /// σ/α at quantiles of the beta distribution with α = β = .6, which visits both ends more often (Lee
    /// et al. 2024, "Beta Sampling is All You Need").
    Beta,
}

/// The keys that choose a [`SigmaSpacing`]; at most one may be true.
const SIGMA_KEYS: [(&str, SigmaSpacing); 4] = [
    ("use_karras_sigmas", SigmaSpacing::Karras),
    ("use_exponential_sigmas", SigmaSpacing::Exponential),
    ("use_lu_lambdas", SigmaSpacing::Lu),
    ("use_beta_sigmas", SigmaSpacing::Beta),
];

/// A diffusers scheduler config, the keys that describe the process and its discretisation.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// T, at least 1 (1000).
    pub num_train_timesteps: usize,
    /// First β.
    pub beta_start: f64,
    /// Last β.
    pub beta_end: f64,
    /// The curve between the two.
    pub beta_schedule: BetaSchedule,
    /// T betas that replace the curve.
    pub trained_betas: Option<Vec<f64>>,
    /// Rescale so that the last timestep has no signal at all.
    pub rescale_betas_zero_snr: bool,
    /// What the network outputs.
    pub prediction_type: Prediction,
    /// Added to `leading` timesteps.
    pub steps_offset: usize,
    /// The step after timestep 0 has ᾱ = 1 (else ᾱ_0).
    pub set_alpha_to_one: bool,
    /// Samplers clamp their estimate of x_0 to ± `clip_sample_range`.
    pub clip_sample: bool,
    /// See `clip_sample`.
    pub clip_sample_range: f64,
    /// Samplers clamp their estimate of x_0 to ±s, s being the `dynamic_thresholding_ratio` quantile of
    /// its magnitudes, at least 1 and at most `sample_max_value`, and divide it by s (Saharia et al. 2022).
    /// Takes the place of `clip_sample`.
    pub thresholding: bool,
    /// In 0..=1; see `thresholding`.
    pub dynamic_thresholding_ratio: f64,
    /// See `thresholding`.
    pub sample_max_value: f64,
    /// How inference timesteps are spread.
    pub timestep_spacing: Spacing,
    /// How solvers spread their noise levels.
    pub sigma_spacing: SigmaSpacing,
    /// Solvers (DPM-Solver, UniPC, Euler) end without noise, else with timestep 0's.
    pub final_sigma_zero: bool,
}

impl Default for Config {
    /// Stable Diffusion's process (scaled-linear β, .00085 to .012, 1000 steps, ε-prediction).
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            trained_betas: None,
            rescale_betas_zero_snr: false,
            prediction_type: Prediction::Epsilon,
            steps_offset: 1,
            set_alpha_to_one: false,
            clip_sample: false,
            clip_sample_range: 1.0,
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
            timestep_spacing: Spacing::Leading,
            sigma_spacing: SigmaSpacing::Timesteps,
            final_sigma_zero: true,
        }
    }
}

/// Scheduler classes whose process is this module's; their names choose only a sampler and the
/// values of absent keys.
const CLASSES: [(&str, Defaults); 14] = [
    ("DDIMScheduler", Defaults::DDIM),
    ("DDIMInverseScheduler", Defaults::DDIM),
    ("DDPMScheduler", Defaults::DDIM),
    ("PNDMScheduler", Defaults::PNDM),
    ("LCMScheduler", Defaults { clip: false, ..Defaults::DDIM }),
    ("DEISMultistepScheduler", Defaults::SOLVER),
    ("DPMSolverMultistepScheduler", Defaults::SOLVER),
    ("DPMSolverSinglestepScheduler", Defaults::SOLVER),
    ("UniPCMultistepScheduler", Defaults::SOLVER),
    ("EulerDiscreteScheduler", Defaults::SOLVER),
    ("EulerAncestralDiscreteScheduler", Defaults::SOLVER),
    ("HeunDiscreteScheduler", Defaults::SOLVER),
    ("LMSDiscreteScheduler", Defaults::SOLVER),
    ("KDPM2DiscreteScheduler", Defaults::SOLVER),
];

/// What diffusers takes for keys that a file leaves out.
#[derive(Clone, Copy)]
struct Defaults {
    clip: bool,
    alpha_to_one: bool,
    spacing: Spacing,
}

impl Defaults {
    const DDIM: Self = Self { clip: true, alpha_to_one: true, spacing: Spacing::Leading };
    const PNDM: Self = Self { clip: false, alpha_to_one: false, spacing: Spacing::Leading };
    const SOLVER: Self = Self { clip: false, alpha_to_one: true, spacing: Spacing::Linspace };
}

/// Keys that only configure a sampler, which is the caller's choice here, or record provenance.
const IRRELEVANT: [&str; 18] = [
    "_class_name",
    "_diffusers_version",
    "_use_default_values",
    "skip_prk_steps",
    "variance_type",
    "solver_order",
    "solver_type",
    "algorithm_type",
    "lower_order_final",
    "euler_at_final",
    "original_inference_steps",
    "lambda_min_clipped",
    "flow_shift",
    "disable_corrector",
    "predict_x0",
    "solver_p",
    "time_shift_type",
    "timestep_scaling",
];

/// Features that change the noise levels or the prediction and that we do not have: each may be
/// present only with a value that means "off" (null, false, or one of [`HARMLESS`]).
const MUST_BE_OFF: [&str; 7] = [
    "interpolation_type",
    "use_flow_sigmas",
    "use_dynamic_shifting",
    "shift_terminal",
    "sigma_min",
    "sigma_max",
    "timestep_type",
];

/// The values of those keys that mean what this module does anyway.
const HARMLESS: [(&str, &str); 2] = [("timestep_type", "discrete"), ("interpolation_type", "linear")];

impl Config {
    /// Reads the object of a `scheduler_config.json`. Absent keys take the default that diffusers'
    /// class of that name has (`DDIMScheduler` if the class is not named).
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key, if the key, its value or the feature is unknown.
    pub fn from_json(json: &Value) -> Result<Self> {
        let map = json.as_object().ok_or_else(|| Error::invalid("scheduler config", "not a JSON object"))?;
        let defaults = class_defaults(map)?;
        let mut config = Self {
            beta_start: 1e-4,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            steps_offset: 0,
            set_alpha_to_one: defaults.alpha_to_one,
            clip_sample: defaults.clip,
            timestep_spacing: defaults.spacing,
            ..Self::default()
        };
        for (key, value) in map {
            config.set(key, value)?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<()> {
        match key {
            "num_train_timesteps" => self.num_train_timesteps = integer(key, value)?,
            "beta_start" => self.beta_start = number(key, value)?,
            "beta_end" => self.beta_end = number(key, value)?,
            "beta_schedule" => {
                self.beta_schedule = match value.as_str() {
                    Some("linear") => BetaSchedule::Linear,
                    Some("scaled_linear") => BetaSchedule::ScaledLinear,
                    Some("squaredcos_cap_v2") => BetaSchedule::SquaredCosine,
                    _ => return Err(unknown(key, value)),
                }
            }
            "trained_betas" => self.trained_betas = betas(key, value)?,
            "rescale_betas_zero_snr" => self.rescale_betas_zero_snr = boolean(key, value)?,
            "prediction_type" => {
                self.prediction_type = match value.as_str() {
                    Some("epsilon") => Prediction::Epsilon,
                    Some("v_prediction") => Prediction::V,
                    Some("sample") => Prediction::Sample,
                    _ => return Err(unknown(key, value)),
                }
            }
            "final_sigmas_type" => {
                self.final_sigma_zero = match value.as_str() {
                    Some("zero") => true,
                    Some("sigma_min") => false,
                    _ => return Err(unknown(key, value)),
                }
            }
            "steps_offset" => self.steps_offset = integer(key, value)?,
            "set_alpha_to_one" => self.set_alpha_to_one = boolean(key, value)?,
            "clip_sample" => self.clip_sample = boolean(key, value)?,
            "clip_sample_range" => self.clip_sample_range = number(key, value)?,
            "thresholding" => self.thresholding = !value.is_null() && boolean(key, value)?,
            "dynamic_thresholding_ratio" => {
                self.dynamic_thresholding_ratio = number(key, value)?;
                if !(0.0..=1.0).contains(&self.dynamic_thresholding_ratio) {
                    return Err(unknown(key, value));
                }
            }
            "sample_max_value" => self.sample_max_value = number(key, value)?,
            "timestep_spacing" => {
                self.timestep_spacing = match value.as_str() {
                    Some("leading") => Spacing::Leading,
                    Some("trailing") => Spacing::Trailing,
                    Some("linspace") => Spacing::Linspace,
                    _ => return Err(unknown(key, value)),
                }
            }
            _ if SIGMA_KEYS.iter().any(|(k, _)| *k == key) => self.set_sigma_spacing(key, value)?,
            _ if IRRELEVANT.contains(&key) => {}
            _ if MUST_BE_OFF.contains(&key) => {
                let off = matches!(value, Value::Null | Value::Bool(false));
                if !off && !value.as_str().is_some_and(|v| HARMLESS.contains(&(key, v))) {
                    return Err(Error::invalid(key, format!("{value} is not supported by this program")));
                }
            }
            _ => return Err(Error::invalid(key, "unknown key in a scheduler config")),
        }
        Ok(())
    }

    fn set_sigma_spacing(&mut self, key: &str, value: &Value) -> Result<()> {
        if matches!(value, Value::Null) || !boolean(key, value)? {
            return Ok(());
        }
        if self.sigma_spacing != SigmaSpacing::Timesteps {
            return Err(Error::invalid(key, "is one of several ways of spreading the noise levels"));
        }
        if let Some((_, spacing)) = SIGMA_KEYS.iter().find(|(k, _)| *k == key) {
            self.sigma_spacing = *spacing;
        }
        Ok(())
    }

    /// The object that [`Config::from_json`] reads back unchanged, and diffusers as `DDIMScheduler`.
    pub fn to_json(&self) -> Value {
        json!({
            "_class_name": "DDIMScheduler",
            "num_train_timesteps": self.num_train_timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": match self.beta_schedule {
                BetaSchedule::Linear => "linear",
                BetaSchedule::ScaledLinear => "scaled_linear",
                BetaSchedule::SquaredCosine => "squaredcos_cap_v2",
            },
            "trained_betas": self.trained_betas,
            "rescale_betas_zero_snr": self.rescale_betas_zero_snr,
            "prediction_type": match self.prediction_type {
                Prediction::Epsilon => "epsilon",
                Prediction::V => "v_prediction",
                Prediction::Sample => "sample",
            },
            "steps_offset": self.steps_offset,
            "set_alpha_to_one": self.set_alpha_to_one,
            "clip_sample": self.clip_sample,
            "clip_sample_range": self.clip_sample_range,
            "thresholding": self.thresholding,
            "dynamic_thresholding_ratio": self.dynamic_thresholding_ratio,
            "sample_max_value": self.sample_max_value,
            "use_karras_sigmas": self.sigma_spacing == SigmaSpacing::Karras,
            "use_exponential_sigmas": self.sigma_spacing == SigmaSpacing::Exponential,
            "use_lu_lambdas": self.sigma_spacing == SigmaSpacing::Lu,
            "use_beta_sigmas": self.sigma_spacing == SigmaSpacing::Beta,
            "final_sigmas_type": if self.final_sigma_zero { "zero" } else { "sigma_min" },
            "timestep_spacing": match self.timestep_spacing {
                Spacing::Leading => "leading",
                Spacing::Trailing => "trailing",
                Spacing::Linspace => "linspace",
            },
        })
    }

    /// The T betas in single precision, before any rescaling.
    pub(super) fn betas(&self) -> Result<Vec<f32>> {
        let n = self.num_train_timesteps;
        if !(1..=100_000).contains(&n) {
            return Err(Error::invalid("num_train_timesteps", format!("{n} is not in 1..=100000")));
        }
        if let Some(trained) = &self.trained_betas {
            if trained.len() != n {
                let why = format!("{} betas for {n} timesteps", trained.len());
                return Err(Error::invalid("trained_betas", why));
            }
            return Ok(trained.iter().map(|&b| b as f32).collect());
        }
        Ok(match self.beta_schedule {
            BetaSchedule::Linear => linspace(self.beta_start, self.beta_end, n),
            BetaSchedule::ScaledLinear => {
                linspace(self.beta_start.sqrt(), self.beta_end.sqrt(), n).iter().map(|r| r * r).collect()
            }
            BetaSchedule::SquaredCosine => {
                let level = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
                let beta = |i: usize| 1.0 - level((i + 1) as f64 / n as f64) / level(i as f64 / n as f64);
                (0..n).map(|i| beta(i).min(0.999) as f32).collect()
            }
        })
    }
}

/// `torch.linspace` in single precision: symmetric, so that both ends are exact.
fn linspace(start: f64, end: f64, n: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = if n > 1 { (end - start) / (n - 1) as f32 } else { 0.0 };
    let at = |i: usize| {
        if i < n / 2 || n == 1 { start + step * i as f32 } else { end - step * (n - 1 - i) as f32 }
    };
    (0..n).map(at).collect()
}

fn class_defaults(map: &Map<String, Value>) -> Result<Defaults> {
    let Some(class) = map.get("_class_name") else { return Ok(Defaults::DDIM) };
    CLASSES
        .iter()
        .find(|(name, _)| class.as_str() == Some(name))
        .map(|(_, defaults)| *defaults)
        .ok_or_else(|| unknown("_class_name", class))
}

fn unknown(key: &str, value: &Value) -> Error {
    Error::invalid(key, format!("{value} is not a value this program knows"))
}

fn number(key: &str, value: &Value) -> Result<f64> {
    value.as_f64().ok_or_else(|| unknown(key, value))
}

fn integer(key: &str, value: &Value) -> Result<usize> {
    value.as_u64().and_then(|v| usize::try_from(v).ok()).ok_or_else(|| unknown(key, value))
}

fn boolean(key: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| unknown(key, value))
}

fn betas(key: &str, value: &Value) -> Result<Option<Vec<f64>>> {
    if value.is_null() {
        return Ok(None);
    }
    let list = value.as_array().ok_or_else(|| unknown(key, value))?;
    list.iter().map(|v| number(key, v)).collect::<Result<_>>().map(Some)
}
