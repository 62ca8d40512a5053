//! Which frames a frame looks at: self-attention with keys and values of other frames.
//!
//! Within one window the frames are the batch. Keys and values of frames outside of it (the clip's first,
//! the previous window's last) are kept, per place in the network, from when their own windows were
//! evaluated at the same step; so the windows of a step are evaluated in order, and nothing twice.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::blend::Blend;
use super::tune::Tuned;
use super::window::Window;
use super::words::WordMaps;
use crate::prior::unet::attention::{AttentionHook, Call, Site};
use crate::{Error, Result};

/// A source of keys and values for a frame's self-attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    /// The frame itself.
    Own,
    /// The clip's first frame.
    First,
    /// The last frame of the window before (the clip's first frame, in the first window).
    PreviousLast,
    /// The last frame of the frame's own window.
    CurrentLast,
    /// The frame before (the first frame has itself).
    Previous,
    /// All frames of the window: full attention over the clip if the window holds it.
    Window,
}

/// Which attentions look at which frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttentionConfig {
    /// A frame that several of these name counts once.
    pub keys: Vec<Keys>,
    /// Attentions of fewer channels than this times the network's first width see their own frame only.
    pub least_width: f64,
}

impl Default for AttentionConfig {
    /// LOVECon's: cross-window attention in all levels but the finest (640 channels of SD's 320).
    fn default() -> Self {
        Self { keys: vec![Keys::First, Keys::PreviousLast, Keys::CurrentLast], least_width: 2.0 }
    }
}

impl AttentionConfig {
    /// Refuses an empty set.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn check(&self) -> Result<()> {
        if self.keys.is_empty() {
            return Err(Error::invalid("attention.keys", "is empty").hint("[\"own\"] is per-frame attention"));
        }
        if !(0.0..=1000.0).contains(&self.least_width) {
            return Err(Error::invalid("attention.least_width", "is outside 0 … 1000"));
        }
        Ok(())
    }

    /// The frames whose keys and values `frame` of `window` sees, in rising order.
    pub fn frames(&self, frame: usize, window: &Window) -> Vec<usize> {
        let mut all = Vec::new();
        for keys in &self.keys {
            match keys {
                Keys::Own => all.push(frame),
                Keys::First => all.push(0),
                Keys::PreviousLast => all.push(window.start.saturating_sub(1)),
                Keys::CurrentLast => all.push(window.end - 1),
                Keys::Previous => all.push(frame.saturating_sub(1)),
                Keys::Window => all.extend(window.start..window.end),
            }
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Keys and values `[1, N, C]` of one frame at one place.
struct Pair {
    k: Tensor,
    v: Tensor,
}

/// Keys and values of one frame at every place, by its name.
type Places = HashMap<String, Pair>;

/// Keys and values of frames that later windows look at, by attempt: a window whose step is solved by
/// iteration sees, in its n-th evaluation, what the windows before it were in theirs. So windows of equal
/// frames have equal iterates, also where none converges; where all do, the last attempts are the solution.
#[derive(Default)]
pub(super) struct References {
    first: Vec<Places>,
    before: Vec<Places>,
    last: Vec<Places>,
    attempts: usize,
}

impl References {
    /// Before an evaluation of the window.
    pub(super) fn attempt(&mut self) {
        self.attempts += 1;
    }

    /// After the last evaluation of a window: its last frame is the one before from now on.
    pub(super) fn turn(&mut self) {
        self.before = std::mem::take(&mut self.last);
        self.attempts = 0;
    }

    /// Forgets all, before the first window of a step.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps what later windows may ask for.
    fn keep(&mut self, site: &Site, call: &Call<'_>, window: &Window) -> Result<()> {
        // Copies: a view would keep the whole window's keys in memory.
        let row = |t: &Tensor, i: usize| t.narrow(0, i, 1)?.copy();
        let pair = |i: usize| -> Result<Pair> { Ok(Pair { k: row(call.k, i)?, v: row(call.v, i)? }) };
        let at = self.attempts.saturating_sub(1);
        let put = |list: &mut Vec<Places>, pair: Pair| {
            if list.len() <= at {
                list.resize_with(at + 1, Places::new);
            }
            list[at].insert(site.name.clone(), pair);
        };
        if window.start == 0 {
            put(&mut self.first, pair(0)?);
        }
        put(&mut self.last, pair(window.len() - 1)?);
        Ok(())
    }

    /// Keys and values of a frame outside the window, of this attempt or the last one there was.
    fn outside(&self, site: &Site, frame: usize) -> Result<&Pair> {
        let kept = if frame == 0 { &self.first } else { &self.before };
        let at = self.attempts.saturating_sub(1).min(kept.len().saturating_sub(1));
        kept.get(at).and_then(|places| places.get(&site.name)).ok_or_else(|| {
            Error::Failed(format!("attention: frame {frame} was not evaluated before ({})", site.name))
        })
    }
}

/// The hook of one network and branch in one window.
pub(super) struct FrameHook<'a> {
    pub(super) config: &'a AttentionConfig,
    /// Attentions of fewer channels are left alone.
    pub(super) least_channels: usize,
    pub(super) window: Window,
    pub(super) references: &'a Mutex<References>,
    /// Where cross-attention maps are gathered, if they are.
    pub(super) words: Option<&'a Mutex<WordMaps>>,
    /// Maps of the source's evaluation, taken or given.
    pub(super) blend: Option<&'a Blend<'a>>,
    /// What was tuned to a clip.
    pub(super) tuned: Option<&'a Tuned>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}

impl AttentionHook for FrameHook<'_> {
    fn attend(&self, site: &Site, call: Call<'_>) -> Result<Tensor> {
        if call.q.dim(0)? != self.window.len() {
            return Err(Error::invalid(
                "window",
                format!("{} frames, {} rows", self.window.len(), call.q.dim(0)?),
            ));
        }
        match (site.cross, self.blend) {
            (true, blend) => {
                if let Some(words) = self.words {
                    lock(words).add(&call)?;
                }
                blend.map_or_else(|| call.attend(), |b| b.cross(site, &call))
            }
            (false, _) => {
                let attended = self.frames(site, &call)?;
                match self.tuned {
                    Some(tuned) => tuned.apply(site, &call, &attended),
                    None => Ok(attended),
                }
            }
        }
    }
}

impl FrameHook<'_> {
    /// Self-attention over the keys and values of the frames that the set names.
    fn frames(&self, site: &Site, call: &Call<'_>) -> Result<Tensor> {
        let (_, n, channels) = call.q.dims3()?;
        if channels < self.least_channels || self.config.keys == [Keys::Own] {
            return self.finish(site, call, (0, self.window.len()));
        }
        let mut references = lock(self.references);
        references.keep(site, call, &self.window)?;
        let mut out = Vec::new();
        for (row, count, frames) in self.runs() {
            let rows = |t: &Tensor| -> Result<Tensor> {
                Ok(t.narrow(0, row, count)?.contiguous()?.reshape((1, count * n, channels))?)
            };
            let (k, v) = self.gather(site, call, &frames, &references)?;
            let q = rows(call.q)?;
            let shared = Call { q: &q, k: &k, v: &v, ..*call };
            out.push(self.finish(site, &shared, (row, count))?.reshape((count, n, channels))?);
        }
        Ok(Tensor::cat(&out, 0)?)
    }

    /// Attends, with the source's maps where they are to be used.
    fn finish(&self, site: &Site, call: &Call<'_>, rows: (usize, usize)) -> Result<Tensor> {
        match self.blend {
            Some(blend) => blend.frames(site, call, rows),
            None => call.attend(),
        }
    }

    /// Runs of rows that see the same frames: first row, number of rows, frames.
    fn runs(&self) -> Vec<(usize, usize, Vec<usize>)> {
        let mut runs: Vec<(usize, usize, Vec<usize>)> = Vec::new();
        for row in 0..self.window.len() {
            let frames = self.config.frames(self.window.start + row, &self.window);
            match runs.last_mut() {
                Some((_, count, same)) if *same == frames => *count += 1,
                _ => runs.push((row, 1, frames)),
            }
        }
        runs
    }

    /// Keys and values of `frames` side by side, `[1, M, C]`.
    fn gather(
        &self,
        site: &Site,
        call: &Call<'_>,
        frames: &[usize],
        references: &References,
    ) -> Result<(Tensor, Tensor)> {
        let (mut k, mut v) = (Vec::new(), Vec::new());
        for &frame in frames {
            if self.window.contains(frame) {
                k.push(call.k.narrow(0, frame - self.window.start, 1)?);
                v.push(call.v.narrow(0, frame - self.window.start, 1)?);
            } else {
                let pair = references.outside(site, frame)?;
                k.push(pair.k.clone());
                v.push(pair.v.clone());
            }
        }
        Ok((Tensor::cat(&k, 1)?.contiguous()?, Tensor::cat(&v, 1)?.contiguous()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::edit::window::windows;

    #[test]
    fn sets_name_each_frame_once_and_only_what_is_at_hand() {
        let config = AttentionConfig::default();
        let all = windows(20, 8);
        let of = |f: usize| config.frames(f, &all[f / 8]);
        assert_eq!(of(3), [0, 7]);
        assert_eq!(of(8), [0, 7, 15]);
        assert_eq!(of(17), [0, 15, 19]);
        let sparse = AttentionConfig { keys: vec![Keys::First, Keys::Previous], least_width: 0.0 };
        assert_eq!(sparse.frames(0, &all[0]), [0]);
        assert_eq!(sparse.frames(8, &all[1]), [0, 7]);
        let full = AttentionConfig { keys: vec![Keys::Own, Keys::Window], least_width: 0.0 };
        assert_eq!(full.frames(9, &all[1]), (8..16).collect::<Vec<_>>());
    }
}
