//! The regularisers' share of the gradient by a render.

use std::collections::BTreeMap;

use crate::config::RegularizeConfig;
use crate::distill::regularize::{Scalar, Term, normal_smoothness, opaque, sparsity, z_variance};
use crate::render::volume::{RenderGrad, RenderOutput};

/// Weighted penalties on a render and their gradients; empty where no weight asks for one.
#[derive(Debug, Default)]
pub(crate) struct Penalty {
    /// Weighted sum.
    pub(crate) value: f64,
    /// The weighted terms that are not zero.
    terms: Vec<(&'static str, f64)>,
    opacity: Vec<f32>,
    z_variance: Vec<f32>,
    normal: Vec<f32>,
    orientation: Vec<f32>,
}

/// Whether the render must come with normals.
pub(crate) fn needs_normals(weights: &RegularizeConfig) -> bool {
    weights.orientation > 0.0 || weights.smoothness > 0.0
}

impl Penalty {
    /// Evaluates the terms whose weight is not zero.
    pub(crate) fn of(output: &RenderOutput, weights: &RegularizeConfig) -> Self {
        let mut p = Self::default();
        let Self { opacity, z_variance: depth, normal, orientation, .. } = &mut p;
        let mut terms = vec![
            ("opaque", add(opacity, weights.opaque, || opaque(&output.opacity))),
            ("sparsity", add(opacity, weights.sparsity, || sparsity(&output.opacity))),
            (
                "z_variance",
                add(depth, weights.z_variance, || z_variance(&output.z_variance, &output.opacity)),
            ),
        ];
        if let Some(n) = &output.normal {
            let smooth = || normal_smoothness(n, output.width, output.height);
            terms.push(("smoothness", add(normal, weights.smoothness, smooth)));
        }
        if let Some(o) = &output.orientation {
            terms.push(("orientation", add(orientation, weights.orientation, || mean(o))));
        }
        p.value = terms.iter().map(|(_, value)| value).sum();
        p.terms = terms.into_iter().filter(|(_, value)| *value != 0.0).collect();
        p
    }

    /// The weighted terms by name.
    pub(crate) fn named(&self) -> BTreeMap<&'static str, f32> {
        self.terms.iter().map(|(name, value)| (*name, *value as f32)).collect()
    }

    /// Adds what comes back from shading; `opacity` and `normal` may be empty.
    pub(super) fn add_shading(&mut self, opacity: &[f32], normal: &[f32]) {
        for (into, more) in [(&mut self.opacity, opacity), (&mut self.normal, normal)] {
            if !more.is_empty() {
                into.resize(more.len(), 0.0);
                into.iter_mut().zip(more).for_each(|(i, m)| *i += m);
            }
        }
    }

    /// The gradient together with the one by the colours.
    pub(crate) fn gradient<'a>(&'a self, rgb: &'a [f32]) -> RenderGrad<'a> {
        let some = |x: &'a Vec<f32>| (!x.is_empty()).then_some(x.as_slice());
        RenderGrad {
            rgb: Some(rgb),
            opacity: some(&self.opacity),
            depth: None,
            z_variance: some(&self.z_variance),
            normal: some(&self.normal),
            orientation: some(&self.orientation),
        }
    }
}

/// Adds `weight` times the term's gradient to `target`, which it sizes; returns the weighted value.
fn add(target: &mut Vec<f32>, weight: f64, term: impl FnOnce() -> Term<f32>) -> f64 {
    if weight == 0.0 {
        return 0.0;
    }
    let term = term();
    target.resize(term.gradient.len(), 0.0);
    term.accumulate(weight, target)
}

/// The renderer has already weighted and squared; what is left is the mean.
fn mean(x: &[f32]) -> Term<f32> {
    let n = x.len().max(1) as f64;
    let value = x.iter().map(|v| v.widen()).sum::<f64>() / n;
    Term { value, gradient: vec![f32::narrow(1.0 / n); x.len()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output() -> RenderOutput {
        RenderOutput {
            views: 1,
            width: 2,
            height: 1,
            opacity: vec![0.3, 0.9],
            z_variance: vec![0.5, 0.25],
            orientation: Some(vec![0.2, 0.6]),
            normal: Some(vec![0.0, 0.0, 1.0, 0.0, 0.6, 0.8]),
            ..RenderOutput::default()
        }
    }

    #[test]
    fn weights_of_zero_leave_no_gradient() {
        let none = RegularizeConfig {
            opaque: 0.0,
            sparsity: 0.0,
            z_variance: 0.0,
            orientation: 0.0,
            smoothness: 0.0,
            ..RegularizeConfig::default()
        };
        let p = Penalty::of(&output(), &none);
        let rgb = [1.0];
        let g = p.gradient(&rgb);
        assert!(p.value == 0.0 && g.opacity.is_none() && g.z_variance.is_none() && g.normal.is_none());
        assert!(g.orientation.is_none() && g.rgb == Some(&rgb[..]) && !needs_normals(&none));
    }

    #[test]
    fn terms_add_up() {
        let w = RegularizeConfig {
            opaque: 2.0,
            sparsity: 3.0,
            z_variance: 5.0,
            orientation: 7.0,
            smoothness: 11.0,
            ..RegularizeConfig::default()
        };
        let o = output();
        let p = Penalty::of(&o, &w);
        // Only the second pixel is solid; its neighbour's normal differs by (0, .6, −.2).
        let smooth = normal_smoothness(o.normal.as_ref().unwrap(), 2, 1).value;
        let expected = 2.0 * opaque(&o.opacity).value
            + 3.0 * sparsity(&o.opacity).value
            + 5.0 * 0.25
            + 7.0 * 0.4
            + 11.0 * smooth;
        assert!((p.value - expected).abs() < 1e-6, "{} {expected}", p.value);
        assert_eq!(p.terms.len(), 5);
        let rgb = [];
        let g = p.gradient(&rgb);
        assert_eq!(g.z_variance.unwrap(), [0.0, 5.0]);
        assert_eq!(g.orientation.unwrap(), [3.5, 3.5]);
        let both = 2.0 * opaque(&o.opacity).gradient[0] + 3.0 * sparsity(&o.opacity).gradient[0];
        assert!((g.opacity.unwrap()[0] - both).abs() < 1e-6);
        assert!(needs_normals(&w));
    }
}
