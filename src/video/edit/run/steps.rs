//! The loops over steps and windows: inversion, and the edit.

use std::sync::Mutex;

use candle_core::Tensor;

use super::Run;
use crate::Result;
use crate::video::edit::attention::lock;
use crate::video::edit::blend::{Blend, Maps, Role};
use crate::video::edit::editor::{Report, Stage};
use crate::video::edit::fusion::fuse;
use crate::video::edit::invert::{clean, ddim, invert};
use crate::video::edit::session::{Session, Watch};
use crate::video::edit::smooth::smooth;
use crate::video::edit::window::Window;
use crate::video::edit::words::{self, WordMaps};

impl Run<'_> {
    /// From the clean level up, every window at one level before any at the next.
    pub(in crate::video::edit) fn invert(&mut self, report: &mut Report<'_>) -> Result<()> {
        if !self.inverted() {
            return Ok(());
        }
        let (steps, count) = (self.steps(), self.windows.len());
        let tokens = match (&self.masks, self.config.phrase.is_empty()) {
            (None, false) => {
                Some(words::positions(self.prior, &self.config.source_prompt, &self.config.phrase)?)
            }
            _ => None,
        };
        // The lowest level that is whole; a level that is not is begun again, for its references are lost.
        let mut level = (0..=steps).find(|j| self.complete("inverted", *j)).unwrap_or(steps);
        let session = self.session(false)?;
        while level > 0 {
            session.begin();
            for window in self.windows.clone() {
                self.invert_window(level, &window, &session, tokens.as_deref())?;
                session.settle();
                report.tick(Stage::Invert, (steps - level) * count + window.index + 1, steps * count)?;
            }
            self.forget("words", level)?;
            level -= 1;
        }
        Ok(())
    }

    /// Latents of level `level` − 1 from those of `level`, and the words' maps summed so far.
    fn invert_window(
        &mut self,
        level: usize,
        window: &Window,
        session: &Session<'_>,
        tokens: Option<&[usize]>,
    ) -> Result<()> {
        self.show(window)?;
        let z = self.get("inverted", level, window)?;
        let (from, to) = (self.path.levels[level], self.path.levels[level - 1]);
        let mut newest: Option<Tensor> = None;
        let mut epsilon = |z: &Tensor| {
            let words = tokens.map(|t| Mutex::new(WordMaps::new(t, self.latent)));
            let watch = Watch { words: words.as_ref(), ..Watch::default() };
            let eps = session.predict(z, to.t, window, &self.controls, watch)?;
            newest = words.and_then(|w| lock(&w).sum.take());
            Ok(eps)
        };
        let (next, _) = invert(&z, (from, to), &self.config.inversion, &mut epsilon)?;
        if let Some(newest) = newest {
            let sum = match level == self.steps() {
                true => newest,
                false => (self.get("words", level, window)? + newest)?,
            };
            self.put("words", level - 1, window, &sum)?;
        }
        self.put("inverted", level - 1, window, &next)
    }

    /// From the noisiest level down.
    pub(in crate::video::edit) fn edit(&mut self, report: &mut Report<'_>) -> Result<()> {
        let (steps, count) = (self.steps(), self.windows.len());
        let first = (1..=steps).rev().find(|i| self.complete("edited", *i)).unwrap_or(0);
        let session = self.session(true)?;
        let source = match &self.config.blend {
            Some(_) => Some(self.session(false)?),
            None => None,
        };
        for step in first..steps {
            session.begin();
            source.iter().for_each(Session::begin);
            for window in self.windows.clone() {
                let next = self.edit_window(step, &window, &session, source.as_ref())?;
                self.put("edited", step + 1, &window, &next)?;
                report.tick(Stage::Edit, step * count + window.index + 1, steps * count)?;
            }
            self.forget("edited", step)?;
        }
        Ok(())
    }

    /// The latents of a window before `step`.
    fn latents(&self, step: usize, window: &Window) -> Result<Tensor> {
        if step > 0 {
            return self.get("edited", step, window);
        }
        if self.inverted() || self.config.strength < 1.0 {
            return self.source_latents(0, window);
        }
        self.noise(window)
    }

    fn edit_window(
        &mut self,
        step: usize,
        window: &Window,
        session: &Session<'_>,
        source: Option<&Session<'_>>,
    ) -> Result<Tensor> {
        self.show(window)?;
        let steps = self.steps();
        let (from, to) = (self.path.levels[step], self.path.levels[step + 1]);
        let mask = self.mask(window)?;
        let z = self.fused(&self.latents(step, window)?, step, window, mask.as_ref())?;
        let maps = Mutex::new(Maps::new());
        if let Some(source) = source {
            let blend = self.blend(step, &maps, Role::Take, &[], None);
            let watch = Watch { blend: Some(&blend), ..Watch::default() };
            source.predict(&self.source_latents(step, window)?, from.t, window, &self.controls, watch)?;
            source.settle();
        }
        let alignment = match source {
            Some(_) => words::alignment(self.prior, &self.config.source_prompt, &self.config.target_prompt)?,
            None => Vec::new(),
        };
        let blend = self.blend(step, &maps, Role::Give, &alignment, mask.as_ref());
        let null = self.null(step, window, session)?;
        let watch = Watch { blend: source.map(|_| &blend), unconditional: null.as_ref(), ..Watch::default() };
        let eps = session.predict(&z, from.t, window, &self.controls, watch)?;
        session.settle();
        let next = match self.parity(step) {
            Some(parity) => {
                let x0 = smooth(self.prior, &clean(&z, &eps, from)?, parity, self.interpolator)?;
                (x0.affine(to.alpha(), 0.0)? + eps.affine(to.sigma(), 0.0)?)?
            }
            None => ddim(&z, &eps, from, to)?,
        };
        if step + 1 < steps { Ok(next) } else { self.fused(&next, steps, window, mask.as_ref()) }
    }

    /// `z` under the rules of this kind of edit.
    fn fused(&self, z: &Tensor, step: usize, window: &Window, mask: Option<&Tensor>) -> Result<Tensor> {
        let rules = self.config.fuses();
        if rules.is_empty() {
            return Ok(z.clone());
        }
        fuse(z, &self.source_latents(step, window)?, mask, rules, (step, self.steps()))
    }

    fn blend<'b>(
        &self,
        step: usize,
        maps: &'b Mutex<Maps>,
        role: Role,
        alignment: &'b [Option<usize>],
        mask: Option<&'b Tensor>,
    ) -> Blend<'b> {
        let config = self.config.blend.clone().unwrap_or_default();
        let until = |share: f64| (step as f64) + 1e-9 < share * self.steps() as f64;
        Blend {
            maps,
            role,
            cross: until(config.cross_until),
            own: until(config.self_until),
            most_tokens: config.most_tokens,
            alignment,
            mask,
        }
    }

    /// Which rows are smoothed at `step`, if any: odd ones where the config says, even ones right after.
    fn parity(&self, step: usize) -> Option<usize> {
        let at = |share: &f64| (share * self.steps() as f64).floor() as usize;
        self.config.smoother.at.iter().find_map(|s| match step.checked_sub(at(s)) {
            Some(0) => Some(1),
            Some(1) => Some(0),
            _ => None,
        })
    }
}
