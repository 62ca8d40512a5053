//! Null-text optimisation (Mokady et al. 2023): the empty prompt's embedding is bent, step by step, until
//! guided sampling with the source's prompt follows the inversion back to the source.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};

use super::Run;
use crate::prior::conditioning::Conditioning;
use crate::prior::nn::adam::{AdamConfig, AdamW};
use crate::sample::Level;
use crate::sample::guidance::Branch;
use crate::video::edit::config::NullTextConfig;
use crate::video::edit::editor::{Report, Stage};
use crate::video::edit::session::Session;
use crate::video::edit::window::Window;
use crate::{Error, Result};

impl Run<'_> {
    /// An embedding for every step and window that uses one, in the store under `null`.
    pub(in crate::video::edit) fn null_text(&mut self, report: &mut Report<'_>) -> Result<()> {
        let Some(config) = self.config.null_text.clone() else { return Ok(()) };
        let (last, count) = (self.null_steps(), self.windows.len());
        let first = (1..=last).rev().find(|i| self.complete("null-path", *i)).unwrap_or(0);
        let session = self.guided_session(false)?;
        for step in first..last {
            session.begin();
            for window in self.windows.clone() {
                self.null_window(step, &window, &session, &config)?;
                session.settle();
                report.tick(Stage::NullText, step * count + window.index + 1, last * count)?;
            }
            self.forget("null-path", step)?;
        }
        Ok(())
    }

    /// Number of steps, from the noisiest on, with an embedding of their own.
    fn null_steps(&self) -> usize {
        let share = self.config.null_text.as_ref().map_or(0.0, |c| c.until);
        (share * self.steps() as f64).round() as usize
    }

    /// What takes the negative prompt's place at a step of the edit.
    pub(super) fn null(
        &self,
        step: usize,
        window: &Window,
        session: &Session<'_>,
    ) -> Result<Option<Conditioning>> {
        if step >= self.null_steps() {
            return Ok(None);
        }
        let context =
            self.get("null", step, window)?.to_dtype(session.texts.unconditional.context.dtype())?;
        Ok(Some(Conditioning { context, pooled: session.texts.unconditional.pooled.clone() }))
    }

    fn null_window(
        &mut self,
        step: usize,
        window: &Window,
        session: &Session<'_>,
        config: &NullTextConfig,
    ) -> Result<()> {
        self.show(window)?;
        let steps = self.steps();
        let (from, to) = (self.path.levels[step], self.path.levels[step + 1]);
        let z =
            if step == 0 { self.get("inverted", 0, window)? } else { self.get("null-path", step, window)? };
        let start = match step {
            0 => session.texts.unconditional.context.to_dtype(DType::F32)?,
            _ => self.get("null", step - 1, window)?,
        };
        session.ready();
        let told = &session.texts.unconditional;
        let conditional =
            session.answer(&z, from.t, window, &self.controls, Branch::Conditional, told)?.detach();
        let problem = Problem {
            aim: self.get("inverted", step + 1, window)?,
            base: base(&z, &conditional, (from, to), session.guidance.scale)?,
            share: coefficient(from, to) * (1.0 - session.guidance.scale),
            answer: &|context: &Tensor| {
                let context = context.to_dtype(told.context.dtype())?;
                let bent = Conditioning { context, pooled: told.pooled.clone() };
                session.answer(&z, from.t, window, &self.controls, Branch::Unconditional, &bent)
            },
        };
        let rate = config.rate * (1.0 - step as f64 / (2 * steps) as f64);
        let best = problem.solve(&start, config.iterations, rate, config.tolerance)?;
        // Once more without a tape: later windows look at these keys.
        let next = problem.next(&(problem.answer)(&best)?)?;
        self.put("null", step, window, &best)?;
        self.put("null-path", step + 1, window, &next)
    }
}

/// Of ε̂ in z' = (α'/α) z + (σ' − σ α'/α) ε̂.
fn coefficient(from: Level, to: Level) -> f64 {
    to.sigma() - to.alpha() / from.alpha() * from.sigma()
}

/// z' without what the empty prompt brings to it.
fn base(z: &Tensor, conditional: &Tensor, (from, to): (Level, Level), scale: f64) -> Result<Tensor> {
    let share = coefficient(from, to) * scale;
    Ok((z.affine(to.alpha() / from.alpha(), 0.0)? + conditional.affine(share, 0.0)?)?)
}

/// ‖`base` + `share`·ε(∅) − `aim`‖² → min over ∅.
pub(in crate::video::edit) struct Problem<'a> {
    pub(in crate::video::edit) aim: Tensor,
    pub(in crate::video::edit) base: Tensor,
    pub(in crate::video::edit) share: f64,
    /// ε̂ under an embedding `[1, L, C]`, f32.
    pub(in crate::video::edit) answer: &'a dyn Fn(&Tensor) -> Result<Tensor>,
}

impl Problem<'_> {
    fn next(&self, epsilon: &Tensor) -> Result<Tensor> {
        Ok((&self.base + epsilon.affine(self.share, 0.0)?)?)
    }

    /// The mean square, on the tape of `context`.
    pub(in crate::video::edit) fn loss(&self, context: &Tensor) -> Result<Tensor> {
        let off = (self.next(&(self.answer)(context)?)? - &self.aim)?;
        Ok(off.to_dtype(DType::F32)?.sqr()?.mean_all()?)
    }

    /// The best of `iterations` steps of Adam from `start` (itself among them); ends once the loss is below
    /// `tolerance`.
    fn solve(&self, start: &Tensor, iterations: usize, rate: f64, tolerance: f64) -> Result<Tensor> {
        let var = Var::from_tensor(start)?;
        let adam = AdamConfig { weight_decay: 0.0, ..AdamConfig::default() };
        let mut adam = AdamW::new(BTreeMap::from([("null".to_owned(), var.clone())]), adam)?;
        let mut best: Option<(f64, Tensor)> = None;
        for iteration in 0..=iterations {
            let loss = self.loss(var.as_tensor())?;
            let value = f64::from(loss.to_scalar::<f32>()?);
            if !value.is_finite() {
                return Err(Error::Failed("null-text optimisation: the loss is not finite".into())
                    .hint("lower null_text.rate"));
            }
            if best.as_ref().is_none_or(|(least, _)| value < *least) {
                best = Some((value, var.as_tensor().copy()?.detach()));
            }
            if iteration == iterations || value < tolerance {
                break;
            }
            adam.step(&loss.backward()?, rate)?;
        }
        best.map(|(_, tensor)| tensor)
            .ok_or_else(|| Error::Failed("null-text optimisation: nothing was tried".into()))
    }
}
