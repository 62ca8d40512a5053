//! Latents of the source mixed into the edit's, before the noise is predicted.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Where a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Everywhere.
    Everywhere,
    /// Outside the mask; nowhere if there is none.
    Outside,
}

/// One rule: z ← (1−w) z + w z_source.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fuse {
    /// Share of the steps in which it holds; 1 includes the last latents.
    pub until: f64,
    /// Weight of the source, w.
    pub source: f64,
    /// Where.
    pub place: Place,
}

impl Fuse {
    /// A rule for all of the picture.
    pub const fn everywhere(until: f64, source: f64) -> Self {
        Self { until, source, place: Place::Everywhere }
    }

    /// A rule outside the mask.
    pub const fn outside(until: f64, source: f64) -> Self {
        Self { until, source, place: Place::Outside }
    }

    fn holds(&self, step: usize, steps: usize) -> bool {
        // Through f64: 0.6 of 50 steps are 30, whatever 0.6 is in binary.
        (step as f64) + 1e-9 < self.until * steps as f64 || (step == steps && self.until >= 1.0)
    }
}

/// `z` `[W, c, h, w]` before step `step` of `steps` (`step` = `steps`: after the last), with `source`
/// latents of the same noise level and `mask` `[W, 1, h, w]` (1: edited).
///
/// # Errors
/// If shapes do not fit.
pub fn fuse(
    z: &Tensor,
    source: &Tensor,
    mask: Option<&Tensor>,
    rules: &[Fuse],
    (step, steps): (usize, usize),
) -> Result<Tensor> {
    let mut z = z.clone();
    for rule in rules.iter().filter(|r| r.holds(step, steps)) {
        z = match (rule.place, mask) {
            (Place::Everywhere, _) => {
                (z.affine(1.0 - rule.source, 0.0)? + source.affine(rule.source, 0.0)?)?
            }
            (Place::Outside, Some(mask)) => {
                let weight = mask.affine(-rule.source, rule.source)?;
                let own = z.broadcast_mul(&weight.affine(-1.0, 1.0)?)?;
                (own + source.broadcast_mul(&weight)?)?
            }
            (Place::Outside, None) => z,
        };
    }
    Ok(z)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn row(values: &[f32]) -> Tensor {
        Tensor::from_vec(values.to_vec(), (1, 1, 1, values.len()), &Device::Cpu).unwrap()
    }

    fn values(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn rules_hold_for_their_steps_and_place() {
        let (z, source, mask) = (row(&[1.0, 2.0, 3.0]), row(&[5.0, 6.0, 7.0]), row(&[0.0, 0.5, 1.0]));
        let run = |rules: &[Fuse], step| values(&fuse(&z, &source, Some(&mask), rules, (step, 50)).unwrap());
        let outside = [Fuse::outside(0.6, 1.0)];
        assert_eq!(run(&outside, 29), [5.0, 4.0, 3.0]);
        assert_eq!(run(&outside, 30), [1.0, 2.0, 3.0]);
        assert_eq!(run(&[Fuse::everywhere(0.4, 0.25)], 0), [2.0, 3.0, 4.0]);
        // The last latents, only by a rule that lasts.
        assert_eq!(run(&[Fuse::outside(1.0, 1.0)], 50), [5.0, 4.0, 3.0]);
        assert_eq!(run(&[Fuse::outside(0.99, 1.0)], 50), [1.0, 2.0, 3.0]);
        assert_eq!(values(&fuse(&z, &source, None, &outside, (0, 50)).unwrap()), values(&z));
    }
}
