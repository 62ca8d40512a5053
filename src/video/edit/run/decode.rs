//! Latents to frames.

use candle_core::Device;

use super::Run;
use crate::Result;
use crate::video::edit::editor::{Report, Stage};
use crate::video::edit::frames::{FrameSink, crop};
use crate::video::edit::keep::keep;

impl Run<'_> {
    /// Every frame of the edit, what lies outside the mask held to the source, into `sink`.
    pub(in crate::video::edit) fn decode(
        &mut self,
        sink: &mut dyn FrameSink,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let (width, height) = self.source.size();
        for window in self.windows.clone() {
            let latents = self.get("edited", self.steps(), &window)?;
            let mut frames = self.prior.vae.decode(&latents)?.clamp(-1f64, 1f64)?;
            if let Some(mask) = self.mask(&window)? {
                let source = self.frames(&window)?.to_device(&self.prior.device)?;
                frames = keep(&frames, &source, &mask, &self.config.keep)?.clamp(-1f64, 1f64)?;
            }
            let frames = crop(&frames, (height, width))?.to_device(&Device::Cpu)?;
            for (row, i) in (window.start..window.end).enumerate() {
                sink.put(i, &frames.get(row)?)?;
            }
            report.tick(Stage::Decode, window.index + 1, self.windows.len())?;
        }
        Ok(())
    }
}
