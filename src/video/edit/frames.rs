//! Frames in and out: all that the editor knows of a clip.

use candle_core::Tensor;

use crate::{Error, Result};

/// A clip that can be asked for any frame.
pub trait FrameSource {
    /// Number of frames.
    fn len(&self) -> usize;

    /// True if there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width and height in pixels, the same for all frames.
    fn size(&self) -> (usize, usize);

    /// Frame `i`, `[C, H, W]` f32 on the CPU: pictures have 3 channels in −1..1, masks one in 0..1.
    ///
    /// # Errors
    /// If it cannot be decoded.
    fn frame(&self, i: usize) -> Result<Tensor>;
}

/// Where edited frames go.
pub trait FrameSink {
    /// Frame `i`, `[3, H, W]` f32 in −1..1 on the CPU; frames come in order, each once.
    ///
    /// # Errors
    /// If it cannot be written.
    fn put(&mut self, i: usize, frame: &Tensor) -> Result<()>;
}

/// Frames in memory.
#[derive(Debug, Clone, Default)]
pub struct Frames(pub Vec<Tensor>);

impl FrameSource for Frames {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn size(&self) -> (usize, usize) {
        self.0.first().and_then(|f| f.dims3().ok()).map_or((0, 0), |(_, h, w)| (w, h))
    }

    fn frame(&self, i: usize) -> Result<Tensor> {
        self.0.get(i).cloned().ok_or_else(|| Error::invalid("frame", format!("{i} of {}", self.0.len())))
    }
}

impl FrameSink for Frames {
    fn put(&mut self, i: usize, frame: &Tensor) -> Result<()> {
        if i != self.0.len() {
            return Err(Error::Failed(format!("frame {i} came after {}", self.0.len())));
        }
        self.0.push(frame.clone());
        Ok(())
    }
}

/// Frames `start..end` side by side, `[W, C, H, W']`, all of the clip's size.
///
/// # Errors
/// As [`FrameSource::frame`]; if a frame has another shape than the clip.
pub(super) fn batch(source: &dyn FrameSource, start: usize, end: usize, channels: usize) -> Result<Tensor> {
    let (w, h) = source.size();
    let frames: Vec<Tensor> = (start..end)
        .map(|i| {
            let frame = source.frame(i)?;
            if frame.dims() != [channels, h, w] {
                let why = format!("has shape {:?}, expected [{channels}, {h}, {w}]", frame.dims());
                return Err(Error::invalid(format!("frame {i}"), why));
            }
            Ok(frame)
        })
        .collect::<Result<_>>()?;
    Ok(Tensor::stack(&frames, 0)?)
}

/// `[B, C, H, W]` with the last row and column repeated until both sides are multiples of `factor`.
pub(super) fn pad(x: &Tensor, factor: usize) -> Result<Tensor> {
    let mut out = x.clone();
    for dim in [2, 3] {
        let n = out.dim(dim)?;
        let more = n.next_multiple_of(factor) - n;
        if more > 0 {
            out = out.pad_with_same(dim, 0, more)?;
        }
    }
    Ok(out.contiguous()?)
}

/// The upper left `size` (height, width).
pub(super) fn crop(x: &Tensor, (h, w): (usize, usize)) -> Result<Tensor> {
    Ok(x.narrow(2, 0, h)?.narrow(3, 0, w)?.contiguous()?)
}
