//! Frames to latents, control pictures, motion, and the user's masks.

use candle_core::{DType, Device, Tensor};
use image::RgbImage;

use super::Run;
use crate::Result;
use crate::paint::{self, control};
use crate::video::edit::config::Start;
use crate::video::edit::editor::{ControlPictures, Report, Stage};
use crate::video::edit::frames::{batch, pad};
use crate::video::edit::motion::Luma;
use crate::video::edit::window::Window;
use crate::video::edit::{grid, mask};

impl Run<'_> {
    /// Latents of every window (level `steps` of `inverted`), and what the controls see.
    pub(in crate::video::edit) fn encode(&mut self, report: &mut Report<'_>) -> Result<()> {
        let total = self.windows.len();
        for window in self.windows.clone() {
            // Latents last: a window that has them has all.
            if !self.store.has(&super::key("inverted", self.steps(), &window)) {
                let frames = self.frames(&window)?;
                self.control_pictures(&window, &frames)?;
                if self.config.start == Start::Warped {
                    self.motion(&window)?;
                }
                let latents = self.prior.vae.encode_mean(&frames.to_device(&self.prior.device)?)?;
                self.put("inverted", self.steps(), &window, &latents)?;
            }
            report.tick(Stage::Encode, window.index + 1, total)?;
        }
        Ok(())
    }

    /// The source's frames, padded to whole latents, on the CPU.
    pub(super) fn frames(&self, window: &Window) -> Result<Tensor> {
        pad(&batch(self.source, window.start, window.end, 3)?, self.prior.vae.factor())
    }

    /// Bytes `[W, 3, H, W']` of every control's pictures.
    fn control_pictures(&self, window: &Window, frames: &Tensor) -> Result<()> {
        for (i, pictures) in self.pictures.iter().enumerate() {
            let bytes = match pictures {
                ControlPictures::Canny => edges(frames, &|p| Ok(control::edges(p)))?,
                ControlPictures::SoftEdges(hed) => edges(frames, &|p| hed.edges(p))?,
                ControlPictures::Frames(source) => {
                    let given = batch(*source, window.start, window.end, 3)?;
                    let given = pad(&given, self.prior.vae.factor())?;
                    given.affine(127.5, 127.5)?.round()?.clamp(0f64, 255f64)?.to_dtype(DType::U8)?
                }
            };
            self.put(&format!("control{i}"), 0, window, &bytes)?;
        }
        Ok(())
    }

    /// Translations `[W, 2]` in pixels from the first frame, summed from frame to frame.
    fn motion(&self, window: &Window) -> Result<()> {
        let mut at = (0.0, 0.0);
        let mut before = None;
        if window.start > 0 {
            let earlier =
                self.store.get(&super::key("motion", 0, &self.before(window)?))?.to_vec2::<f64>()?;
            if let Some([x, y]) = earlier.last().map(Vec::as_slice) {
                at = (*x, *y);
            }
            before = Some(Luma::new(&self.source.frame(window.start - 1)?)?);
        }
        let mut rows = Vec::new();
        for i in window.start..window.end {
            let luma = Luma::new(&self.source.frame(i)?)?;
            if let Some(before) = &before {
                let (dx, dy) = Luma::motion(before, &luma);
                at = (at.0 + dx, at.1 + dy);
            }
            before = Some(luma);
            rows.extend([at.0, at.1]);
        }
        self.put("motion", 0, window, &Tensor::from_vec(rows, (window.len(), 2), &Device::Cpu)?)
    }

    /// Masks of all windows, from the user's frames or the summed maps.
    pub(in crate::video::edit) fn masks(&mut self) -> Result<()> {
        if !self.masked() {
            return Ok(());
        }
        for window in self.windows.clone() {
            if self.store.has(&super::key("mask", 0, &window)) {
                continue;
            }
            let named = match self.masks {
                Some(masks) => {
                    let given = pad(&batch(masks, window.start, window.end, 1)?, self.prior.vae.factor())?;
                    grid::resize(&given, self.latent)?.clamp(0f64, 1f64)?
                }
                None => mask::from_maps(&self.get("words", 0, &window)?, &self.config.mask)?,
            };
            self.put("mask", 0, &window, &mask::edited(&named, self.config.kind)?)?;
        }
        Ok(())
    }
}

/// Edges of pictures `[W, 3, H, W']` in −1..1, as bytes of that shape.
fn edges(frames: &Tensor, of: &dyn Fn(&RgbImage) -> Result<RgbImage>) -> Result<Tensor> {
    let (count, _, h, w) = frames.dims4()?;
    let mut bytes = Vec::with_capacity(count * 3 * h * w);
    for row in frames.flatten_from(1)?.to_vec2::<f32>()? {
        let edges = of(&paint::picture(&row, w as u32))?;
        for channel in 0..3 {
            bytes.extend(edges.pixels().map(|p| p.0[channel]));
        }
    }
    Ok(Tensor::from_vec(bytes, (count, 3, h, w), &Device::Cpu)?)
}
