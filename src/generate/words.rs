//! What the prior is told in words: the prompt, its variants by view, and what to push away from.

use crate::config::{Config, Method};
use crate::distill::debias::Vocabulary;
use crate::distill::view::{PerpNeg, View, ViewPrompts};
use crate::prior::Prior;
use crate::prior::conditioning::Conditioning;
use crate::render::camera::Camera;
use crate::{Error, Result};

/// What the noise-free loss takes for "not a picture" if no negative prompt is given (Katzir et al. 2023).
const UNREAL: &str =
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy";

/// The texts of a run, encoded.
pub(super) struct Words {
    /// Empty or negative prompt.
    without: Conditioning,
    /// The prompt without words for a view.
    plain: Conditioning,
    /// The prompt for each [`View`]; empty for a prior that is told the camera.
    by_view: Vec<Conditioning>,
    /// The negative prompt of the noise-free loss.
    unreal: Option<Conditioning>,
}

/// Texts for the cameras of one step.
pub(super) struct Said {
    pub(super) without: Conditioning,
    pub(super) with: Conditioning,
    pub(super) negatives: Vec<Conditioning>,
    /// Perp-Neg's weights, a list a camera.
    pub(super) weights: Vec<Vec<f64>>,
}

impl Words {
    /// # Errors
    /// Texts that cannot be encoded; Perp-Neg for a prior that is told the camera.
    pub(super) fn encode(prior: &Prior, config: &Config, prompt: &str) -> Result<Self> {
        let told = prior.is_camera_conditioned();
        if told && config.sds.debias_prompt {
            return Err(Error::invalid("sds.debias_prompt", "this prior is told the camera itself")
                .hint("words contradict views only where views are told by words, as to Stable Diffusion"));
        }
        if told && config.sds.perp_neg {
            return Err(Error::invalid("sds.perp_neg", "this prior is told the camera itself")
                .hint("Perp-Neg helps priors that know views by words only, such as Stable Diffusion"));
        }
        let noise_free = config.method == Method::Nfsd;
        let negative = config.sds.negative_prompt.as_str();
        // The noise-free loss has a branch of its own for it.
        let mut texts = vec![if noise_free { String::new() } else { negative.to_owned() }, prompt.to_owned()];
        if !told {
            let words = ViewPrompts::default();
            let vocabulary = Vocabulary::with(&config.sds.view_words)?;
            let seen = |view| match config.sds.debias_prompt {
                true => vocabulary.without_contradictions(prompt, view),
                false => prompt.to_owned(),
            };
            texts.extend(View::ALL.iter().map(|v| words.prompt(&seen(*v), *v)));
        }
        if noise_free {
            texts.push(if negative.is_empty() { UNREAL } else { negative }.to_owned());
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut all = prior.encode_texts(&texts)?;
        let unreal = if noise_free { all.pop() } else { None };
        let by_view = all.split_off(2);
        let (plain, without) = (all.pop(), all.pop());
        match (without, plain) {
            (Some(without), Some(plain)) => Ok(Self { without, plain, by_view, unreal }),
            _ => Err(Error::Failed("the prior encoded no text".into())),
        }
    }

    /// The prompt without words for a view.
    pub(super) fn plain(&self) -> &Conditioning {
        &self.plain
    }

    /// What is said for each of `cameras`.
    pub(super) fn said(&self, cameras: &[Camera], config: &Config) -> Result<Said> {
        let mut said = Said {
            without: self.without.clone(),
            with: self.plain.clone(),
            negatives: self.unreal.iter().cloned().collect(),
            weights: Vec::new(),
        };
        if self.by_view.is_empty() {
            return Ok(said);
        }
        if config.sds.perp_neg {
            return self.perp_neg(cameras, said);
        }
        let rows: Vec<Conditioning> = cameras.iter().map(|c| self.of(seen(c)).clone()).collect();
        said.with = Conditioning::stack(&rows)?;
        Ok(said)
    }

    fn of(&self, view: View) -> &Conditioning {
        let row = View::ALL.iter().position(|v| *v == view).unwrap_or(0);
        &self.by_view[row]
    }

    fn perp_neg(&self, cameras: &[Camera], mut said: Said) -> Result<Said> {
        let (mut with, mut negatives) = (Vec::new(), [Vec::new(), Vec::new()]);
        for camera in cameras {
            let (azimuth, _) = angles(camera);
            let at = PerpNeg::at(azimuth);
            // From above there is nothing to tell apart.
            let above = seen(camera) == View::Overhead;
            let [(a, share), (b, rest)] = at.positive;
            with.push(match above {
                true => self.of(View::Overhead).clone(),
                false => self.of(a).mixed(self.of(b), share, rest)?,
            });
            for (into, (view, _)) in negatives.iter_mut().zip(at.negatives) {
                into.push(self.of(view).clone());
            }
            said.weights.push(at.negatives.iter().map(|(_, w)| if above { 0.0 } else { *w }).collect());
        }
        said.with = Conditioning::stack(&with)?;
        said.negatives = negatives.iter().map(|rows| Conditioning::stack(rows)).collect::<Result<_>>()?;
        Ok(said)
    }
}

fn seen(camera: &Camera) -> View {
    let (azimuth, elevation) = angles(camera);
    ViewPrompts::default().view(azimuth, elevation)
}

/// Azimuth and elevation in degrees of a camera that looks at the origin.
fn angles(camera: &Camera) -> (f32, f32) {
    let p = camera.origin();
    let elevation = (p.y / p.length().max(f32::MIN_POSITIVE)).asin();
    (p.x.atan2(p.z).to_degrees(), elevation.to_degrees())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use glam::Vec3;

    #[test]
    fn angles_invert_orbit() {
        for (azimuth, elevation) in [(0.0, 0.0), (90.0, 30.0), (-135.0, -10.0)] {
            let (a, e) = angles(&Camera::orbit(azimuth, elevation, 2.4, Vec3::ZERO, 0.7, 64));
            assert!((a - azimuth).abs() < 1e-3 && (e - elevation).abs() < 1e-3, "{a} {e}");
        }
    }

    /// Each text is a row of its own number: without 0, plain 1, views 2 to 5.
    fn numbered() -> Words {
        let row = |i: usize| Conditioning {
            context: Tensor::full(i as f32, (1, 1, 1), &Device::Cpu).unwrap(),
            pooled: None,
        };
        Words { without: row(0), plain: row(1), by_view: (2..6).map(row).collect(), unreal: None }
    }

    fn numbers(c: &Conditioning) -> Vec<f32> {
        c.context.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn cameras_get_the_words_of_their_view_and_perp_neg_pushes_from_the_others() {
        let words = numbered();
        let orbit = |a, e| Camera::orbit(a, e, 2.4, Vec3::ZERO, 0.7, 8);
        let cameras = [orbit(0.0, 0.0), orbit(90.0, 0.0), orbit(180.0, 0.0), orbit(0.0, 80.0)];
        let mut config = Config::default();
        let said = words.said(&cameras, &config).unwrap();
        assert_eq!(numbers(&said.with), [2.0, 3.0, 4.0, 5.0]);
        assert!(said.negatives.is_empty() && said.weights.is_empty());
        config.sds.perp_neg = true;
        let said = words.said(&[orbit(45.0, 0.0), orbit(180.0, 0.0), orbit(0.0, 80.0)], &config).unwrap();
        // Half front, half side; the back; from above.
        let near = |a: Vec<f32>, b: [f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(near(numbers(&said.with), [2.5, 4.0, 5.0]), "{:?}", numbers(&said.with));
        assert!(near(numbers(&said.negatives[0]), [2.0, 3.0, 2.0]));
        assert!(near(numbers(&said.negatives[1]), [3.0, 2.0, 3.0]));
        assert!(said.weights[0][0] < -0.5 && (said.weights[0][0] - said.weights[0][1]).abs() < 1e-5);
        assert!(said.weights[1].iter().all(|w| *w < -0.3) && said.weights[2] == [0.0, 0.0]);
        // A prior that is told the camera hears the prompt alone.
        let told = Words { by_view: Vec::new(), ..numbered() };
        config.sds.perp_neg = false;
        assert_eq!(numbers(&told.said(&cameras, &config).unwrap().with), [1.0]);
    }
}
