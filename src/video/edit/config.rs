//! The settings of an edit: one struct, TOML presets under `scenes/video/`.

use candle_core::Tensor;
use glam::Vec3;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::attention::AttentionConfig;
use super::blend::BlendConfig;
use super::fusion::Fuse;
use super::tune::TuneConfig;
use crate::prior::Prior;
use crate::render::camera::Camera;
use crate::{Error, Result};

/// Vertical field of view, degrees, of the camera told to priors that take one.
const FOV_Y: f32 = 40.0;

/// What an edit changes; decides what of the source is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EditKind {
    /// A property of a thing ("red" to "blue"): inside its mask.
    Attribute,
    /// All but a thing, which is kept.
    Background,
    /// A thing becomes another of another outline.
    Shape,
    /// The look of the whole picture; no mask.
    Style,
}

/// What the first latents of the edit are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// The source's, by DDIM inversion.
    Inverted,
    /// One noise for all frames (mixed with the source's latents below full strength).
    Noise,
    /// The same, moved with the picture's motion (Text2Video-Zero).
    Warped,
}

/// DDIM inversion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InversionConfig {
    /// Largest number of fixed-point iterations a step.
    pub refinements: usize,
    /// Root mean square of the residual (latents have about unit size) at which they end.
    pub tolerance: f64,
}

/// Null-text optimisation (Mokady et al. 2023): the negative prompt's embedding of each step is found such
/// that guided sampling with the source's prompt gives the source back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NullTextConfig {
    /// Most steps of Adam for each step of the edit.
    pub iterations: usize,
    /// Their learning rate at the first step; half of it at the last.
    pub rate: f64,
    /// Mean square error of the latents at which they end.
    pub tolerance: f64,
    /// Share of the steps, from the noisiest on, that have an embedding of their own.
    pub until: f64,
}

/// From attention maps (or a user's mask) to where the edit happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskConfig {
    /// Share of a map's range above which a place belongs to the word.
    pub threshold: f64,
    /// Width of the soft edge around the threshold, in the same unit; 0 is a hard mask.
    pub softness: f64,
    /// Latent pixels by which the mask grows.
    pub dilation: usize,
}

/// What is held outside the mask after decoding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeepConfig {
    /// Colours are matched to the source's by what lies outside the mask.
    pub match_colors: bool,
    /// The source's own pixels are put back outside the mask.
    pub paste: bool,
    /// Pixels of the soft edge of what is put back.
    pub feather: usize,
}

/// The camera told to priors that take one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CameraConfig {
    /// Degrees, of the first frame.
    pub azimuth: f32,
    /// Degrees.
    pub elevation: f32,
    /// World units.
    pub distance: f32,
    /// Degrees by which the azimuth grows over the clip (360 for a full turntable).
    pub turn: f32,
}

/// Rules of fusion by kind of edit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FusionConfig {
    /// For [`EditKind::Attribute`].
    pub attribute: Vec<Fuse>,
    /// For [`EditKind::Background`].
    pub background: Vec<Fuse>,
    /// For [`EditKind::Shape`].
    pub shape: Vec<Fuse>,
    /// For [`EditKind::Style`].
    pub style: Vec<Fuse>,
}

/// The interleaved smoother (training-free ControlVideo): at these steps every other frame of x̂₀ is
/// replaced by the interpolation of its neighbours.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmootherConfig {
    /// Shares of the steps (0 … 1) at which odd frames are replaced, and at the step after even ones.
    pub at: Vec<f64>,
}

/// All settings of an edit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EditConfig {
    /// What the clip shows.
    pub source_prompt: String,
    /// What it is to show.
    pub target_prompt: String,
    /// What it is not to show.
    pub negative_prompt: String,
    /// What changes.
    pub kind: EditKind,
    /// Words of the source prompt that are edited (for [`EditKind::Background`]: kept). Nothing: no mask.
    pub phrase: String,
    /// Classifier-free guidance of the edit.
    pub guidance_scale: f64,
    /// Steps of the whole schedule.
    pub steps: usize,
    /// 0..=1: the share of the steps that are undone and done again; 0 returns the source.
    pub strength: f64,
    /// Frames evaluated together.
    pub window: usize,
    /// Keys all noise.
    pub seed: u64,
    /// The first latents.
    pub start: Start,
    /// Cross-frame attention.
    pub attention: AttentionConfig,
    /// Inversion.
    pub inversion: InversionConfig,
    /// Null-text optimisation; none if absent.
    pub null_text: Option<NullTextConfig>,
    /// Masks.
    pub mask: MaskConfig,
    /// Fusion of the source's latents.
    pub fusion: FusionConfig,
    /// Attention maps of the source; off if absent.
    pub blend: Option<BlendConfig>,
    /// Smoothing.
    pub smoother: SmootherConfig,
    /// Tuning of the prior to the clip, before all else (`ControlVideo`); none if absent.
    pub tune: Option<TuneConfig>,
    /// What is put back.
    pub keep: KeepConfig,
    /// The camera.
    pub camera: CameraConfig,
}

impl Default for InversionConfig {
    fn default() -> Self {
        Self { refinements: 5, tolerance: 1e-3 }
    }
}

impl Default for NullTextConfig {
    /// Video-P2P's.
    fn default() -> Self {
        Self { iterations: 10, rate: 1e-2, tolerance: 1e-5, until: 1.0 }
    }
}

impl Default for MaskConfig {
    fn default() -> Self {
        Self { threshold: 0.4, softness: 0.1, dilation: 1 }
    }
}

impl Default for KeepConfig {
    fn default() -> Self {
        Self { match_colors: true, paste: true, feather: 2 }
    }
}

impl Default for CameraConfig {
    fn default() -> Self {
        Self { azimuth: 0.0, elevation: 15.0, distance: 2.4, turn: 0.0 }
    }
}

impl CameraConfig {
    /// What a prior is told of the given `frames` of a clip of `length`, `[n, 16]`; nothing if it takes no
    /// camera.
    pub(super) fn embeddings(
        &self,
        prior: &Prior,
        frames: &[usize],
        length: usize,
    ) -> Result<Option<Tensor>> {
        if !prior.is_camera_conditioned() {
            return Ok(None);
        }
        let (side, fov_y) = (prior.image_size(), FOV_Y.to_radians());
        let camera = |i: &usize| {
            let azimuth = self.azimuth + self.turn * *i as f32 / length as f32;
            Camera::orbit(azimuth, self.elevation, self.distance, Vec3::ZERO, fov_y, side).embedding()
        };
        let values: Vec<f32> = frames.iter().flat_map(camera).collect();
        Ok(Some(Tensor::from_vec(values, (frames.len(), 16), &prior.device)?))
    }
}

impl Default for FusionConfig {
    /// LOVECon's schedules.
    fn default() -> Self {
        Self {
            attribute: vec![Fuse::everywhere(0.6, 0.03), Fuse::outside(0.8, 1.0)],
            background: vec![Fuse::outside(0.4, 1.0)],
            shape: vec![Fuse::outside(0.8, 1.0)],
            style: vec![Fuse::everywhere(0.4, 0.05)],
        }
    }
}

impl Default for EditConfig {
    fn default() -> Self {
        Self {
            source_prompt: String::new(),
            target_prompt: String::new(),
            negative_prompt: String::new(),
            kind: EditKind::Attribute,
            phrase: String::new(),
            guidance_scale: 12.0,
            steps: 50,
            strength: 1.0,
            window: 8,
            seed: 0,
            start: Start::Inverted,
            attention: AttentionConfig::default(),
            inversion: InversionConfig::default(),
            null_text: None,
            mask: MaskConfig::default(),
            fusion: FusionConfig::default(),
            blend: None,
            smoother: SmootherConfig::default(),
            tune: None,
            keep: KeepConfig::default(),
            camera: CameraConfig::default(),
        }
    }
}

/// Name and text of every preset.
pub const PRESETS: [(&str, &str); 8] = [
    ("lovecon", include_str!("../../../scenes/video/lovecon.toml")),
    ("per-frame", include_str!("../../../scenes/video/per-frame.toml")),
    ("text2video-zero", include_str!("../../../scenes/video/text2video-zero.toml")),
    ("controlvideo-training-free", include_str!("../../../scenes/video/controlvideo-training-free.toml")),
    ("controlvideo", include_str!("../../../scenes/video/controlvideo.toml")),
    ("fatezero", include_str!("../../../scenes/video/fatezero.toml")),
    ("video-p2p", include_str!("../../../scenes/video/video-p2p.toml")),
    ("vid2vid-zero", include_str!("../../../scenes/video/vid2vid-zero.toml")),
];

impl EditConfig {
    /// A preset by name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is no preset; the hint lists them.
    pub fn preset(name: &str) -> Result<Self> {
        Self::layered(name, &Table::new(), "flags")
    }

    /// A preset with the keys of `over` (from `origin`: a file, say) laid over it.
    ///
    /// # Errors
    /// As [`EditConfig::preset`]; [`Error::Invalid`] for unknown keys, wrong types and values out of range.
    pub fn layered(preset: &str, over: &Table, origin: &str) -> Result<Self> {
        let Some((name, text)) = PRESETS.iter().find(|(n, _)| *n == preset) else {
            return Err(unknown(preset));
        };
        let parse = |e: toml::de::Error| Error::invalid(format!("preset `{name}`"), e.to_string());
        let mut table: Table = text.parse().map_err(parse)?;
        merge(&mut table, over);
        let config = Self::deserialize(Value::Table(table))
            .map_err(|e| Error::invalid(origin, e.to_string().trim_end().to_owned()))?;
        config.check()?;
        Ok(config)
    }

    /// The rules of fusion of this kind of edit.
    pub fn fuses(&self) -> &[Fuse] {
        match self.kind {
            EditKind::Attribute => &self.fusion.attribute,
            EditKind::Background => &self.fusion.background,
            EditKind::Shape => &self.fusion.shape,
            EditKind::Style => &self.fusion.style,
        }
    }

    /// Refuses values out of range.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn check(&self) -> Result<()> {
        self.attention.check()?;
        let range = |key: &str, value: f64, low: f64, high: f64| {
            // Written so that NaN fails.
            if value >= low && value <= high {
                return Ok(());
            }
            Err(Error::invalid(key, format!("{value} is outside {low} … {high}")))
        };
        range("guidance_scale", self.guidance_scale, 0.0, 1000.0)?;
        range("steps", self.steps as f64, 1.0, 1000.0)?;
        range("strength", self.strength, 0.0, 1.0)?;
        range("window", self.window as f64, 1.0, 4096.0)?;
        range("inversion.refinements", self.inversion.refinements as f64, 0.0, 1000.0)?;
        range("inversion.tolerance", self.inversion.tolerance, 0.0, 1.0)?;
        range("mask.threshold", self.mask.threshold, 0.0, 1.0)?;
        range("mask.softness", self.mask.softness, 0.0, 1.0)?;
        range("mask.dilation", self.mask.dilation as f64, 0.0, 64.0)?;
        range("keep.feather", self.keep.feather as f64, 0.0, 512.0)?;
        if let Some(null) = &self.null_text {
            range("null_text.iterations", null.iterations as f64, 0.0, 10_000.0)?;
            range("null_text.rate", null.rate, 1e-12, 1.0)?;
            range("null_text.tolerance", null.tolerance, 0.0, 1.0)?;
            range("null_text.until", null.until, 0.0, 1.0)?;
            if self.start != Start::Inverted || self.guidance_scale == 1.0 {
                return Err(Error::invalid(
                    "null_text",
                    "needs the inverted start and a guidance scale other than 1",
                )
                .hint("set start = \"inverted\" and guidance_scale = 7.5, or leave null_text out"));
            }
        }
        if let Some(tune) = &self.tune {
            range("tune.frames", tune.frames as f64, 1.0, 4096.0)?;
            range("tune.steps", tune.steps as f64, 1.0, 1e6)?;
            range("tune.rate", tune.rate, 1e-12, 1.0)?;
            range("tune.max_grad_norm", tune.max_grad_norm, 1e-12, 1e12)?;
        }
        for at in &self.smoother.at {
            range("smoother.at", *at, 0.0, 1.0)?;
        }
        let f = &self.fusion;
        for fuse in [&f.attribute, &f.background, &f.shape, &f.style].into_iter().flatten() {
            range("fusion: until", fuse.until, 0.0, 1.0)?;
            range("fusion: source", fuse.source, 0.0, 1.0)?;
        }
        if let Some(blend) = &self.blend {
            range("blend.cross_until", blend.cross_until, 0.0, 1.0)?;
            range("blend.self_until", blend.self_until, 0.0, 1.0)?;
            if self.start != Start::Inverted {
                return Err(Error::invalid("blend", "needs the inverted start")
                    .hint("set start = \"inverted\", or leave blend out"));
            }
        }
        let camera = [self.camera.azimuth, self.camera.elevation, self.camera.turn];
        if camera.iter().any(|v| !v.is_finite()) {
            return Err(Error::invalid("camera", "must be numbers"));
        }
        range("camera.distance", f64::from(self.camera.distance), 0.1, 100.0)
    }
}

fn unknown(name: &str) -> Error {
    let names: Vec<&str> = PRESETS.iter().map(|(n, _)| *n).collect();
    let list = format!("presets: {}", names.join(", "));
    let error = Error::invalid("preset", format!("there is no `{name}`"));
    match crate::suggest::nearest(name, names) {
        Some(near) => error.hint(format!("did you mean `{near}`? {list}")),
        None => error.hint(list),
    }
}

/// Tables key by key, everything else as a whole.
fn merge(table: &mut Table, over: &Table) {
    for (key, value) in over {
        match (table.get_mut(key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_resolve_and_overrides_win() {
        for (name, _) in PRESETS {
            let config = EditConfig::preset(name).unwrap();
            let text = toml::to_string(&config).unwrap();
            assert_eq!(EditConfig::deserialize(Value::Table(text.parse().unwrap())).unwrap(), config);
        }
        // The default preset is the code's defaults, written out.
        assert_eq!(EditConfig::preset("lovecon").unwrap(), EditConfig::default());
        let over: Table = "steps = 7\n[mask]\nsoftness = 0.0".parse().unwrap();
        let config = EditConfig::layered("lovecon", &over, "x").unwrap();
        assert_eq!((config.steps, config.mask.softness, config.mask.threshold), (7, 0.0, 0.4));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let hint = EditConfig::preset("lovcon").unwrap_err();
        assert!(hint.hint_text().unwrap().contains("did you mean `lovecon`?"));
        for (text, name) in [
            ("stepz = 1", "stepz"),
            ("steps = 0", "steps"),
            ("strength = nan", "strength"),
            ("[attention]\nkeys = []", "attention.keys"),
            ("[fusion]\nstyle = [{until = 2.0, source = 0.0, place = \"everywhere\"}]", "until"),
        ] {
            let e = EditConfig::layered("lovecon", &text.parse().unwrap(), "x").unwrap_err();
            assert!(e.is_usage() && e.to_string().contains(name), "{text}: {e}");
        }
    }
}
