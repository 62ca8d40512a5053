//! What an encoder of pictures and words says about a clip: whether its frames show one thing, and which.
//!
//! With unit vectors `e_i` of the frames and `p` of the prompt: frame consistency is the mean of `e_i · e_{i+1}`,
//! prompt consistency the mean of `e_i · p` (Wu et al., "Tune-A-Video", 2023), and the frames' accuracy the share of
//! frames with `e_i · p > e_i · s`, `s` being the source's prompt (Qi et al., "FateZero", 2023).

use super::Mean;
use crate::Result;
use crate::video::io::Picture;

/// An encoder, and the prompts in its space.
pub struct Meaning<'a> {
    /// The unit vector of a picture.
    pub embed: &'a dyn Fn(&Picture) -> Result<Vec<f32>>,
    /// The unit vector of what the edit is to show.
    pub prompt: Vec<f32>,
    /// That of what the source shows.
    pub source_prompt: Option<Vec<f32>>,
}

/// Sums over the frames of one clip.
#[derive(Default)]
pub(super) struct Told {
    before: Option<Vec<f32>>,
    pub(super) frames: Mean,
    pub(super) prompt: Mean,
    pub(super) accuracy: Mean,
}

impl Told {
    /// Adds the next frame.
    pub(super) fn add(&mut self, picture: &Picture, meaning: &Meaning<'_>) -> Result<()> {
        let seen = (meaning.embed)(picture)?;
        self.frames.add(self.before.as_ref().map(|before| dot(before, &seen)));
        let near = dot(&seen, &meaning.prompt);
        self.prompt.add(Some(near));
        let source = meaning.source_prompt.as_ref().map(|s| dot(&seen, s));
        self.accuracy.add(source.map(|source| f64::from(u8::from(near > source))));
        self.before = Some(seen);
        Ok(())
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_compared_with_the_one_before_and_with_both_prompts() {
        // An encoder of brightness: red is (1, 0), black (0, 1).
        let embed = |p: &Picture| Ok(if p.plane(0)[0] > 0.5 { vec![1.0, 0.0] } else { vec![0.0, 1.0] });
        let meaning = Meaning { embed: &embed, prompt: vec![0.8, 0.6], source_prompt: Some(vec![0.0, 1.0]) };
        let mut told = Told::default();
        for red in [1.0, 1.0, 0.0, 1.0] {
            told.add(&Picture::filled(2, 2, [red, 0.0, 0.0]), &meaning).unwrap();
        }
        // Neighbours: alike, not, not. Three frames show .8 of the prompt and one .6; three are nearer to it.
        let value = |mean: &Mean| mean.value().unwrap();
        assert!((value(&told.frames) - 1.0 / 3.0).abs() < 1e-9);
        assert!((value(&told.prompt) - 0.75).abs() < 1e-6);
        assert!((value(&told.accuracy) - 0.75).abs() < 1e-9);
        let one = Meaning { source_prompt: None, ..meaning };
        let mut told = Told::default();
        told.add(&Picture::filled(2, 2, [1.0; 3]), &one).unwrap();
        assert!(told.frames.value().is_none() && told.accuracy.value().is_none());
    }
}
