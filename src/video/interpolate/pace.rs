//! When the new frames are shown.

use crate::video::io::{Info, Ratio, Stamp};
use crate::{Error, Result};

/// How many frames are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// This many for each one, at equal steps between its time and the next one's.
    Factor(u32),
    /// Frames a second, at equal steps from the first frame's time on.
    Rate(Ratio),
}

/// A frame to be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moment {
    pub(super) stamp: Stamp,
    /// Share of the way from the frame before it to the one after, 0 … 1 (1 excluded).
    pub(super) share: f64,
}

/// Ticks of a frame of a steady rate where the clip does not begin on one of them.
const FINE: i64 = 1000;

/// From the source's frames to the moments between them.
#[derive(Debug)]
pub(super) struct Clock {
    pace: Pace,
    source: Ratio,
    /// Ticks of the source at the first frame.
    start: i64,
    /// Ticks of the output at the first frame, and of each frame (steady rates only).
    first: i64,
    step: i64,
    /// Frames that were asked for so far.
    next: i64,
}

impl Clock {
    /// For a clip whose first frame is at `start`; and the description of what is written.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a rate or a factor that no time base can carry.
    pub(super) fn new(pace: Pace, info: &Info, start: i64) -> Result<(Self, Info)> {
        let source = info.time_base;
        let clock = Self { pace, source, start, first: 0, step: 1, next: 0 };
        match pace {
            Pace::Factor(factor) => {
                let times = |value: i32| {
                    let product = i64::from(value) * i64::from(factor);
                    i32::try_from(product).map_err(|_| {
                        Error::invalid(
                            "--factor",
                            format!("{factor} is too much for a time base of {source}"),
                        )
                    })
                };
                let time_base = Ratio { num: source.num, den: times(source.den)? };
                let rate =
                    info.rate.map(|r| times(r.num).map(|num| Ratio { num, den: r.den })).transpose()?;
                Ok((clock, Info { time_base, rate, frames: None, ..info.clone() }))
            }
            Pace::Rate(rate) => clock.steady(rate, info),
        }
    }

    fn steady(mut self, rate: Ratio, info: &Info) -> Result<(Self, Info)> {
        if rate.num <= 0 || rate.den <= 0 {
            return Err(Error::invalid("--fps", format!("{rate} is no rate")));
        }
        // start · source · rate = above/below frames.
        let above = i128::from(self.start) * i128::from(self.source.num) * i128::from(rate.num);
        let below = i128::from(self.source.den) * i128::from(rate.den);
        let fits = i64::from(rate.num) * FINE <= i64::from(i32::MAX);
        self.step = if above % below == 0 || !fits { 1 } else { FINE };
        let rounded = (above * i128::from(self.step) + below / 2).div_euclid(below);
        self.first =
            i64::try_from(rounded).map_err(|_| Error::invalid("--fps", "the clip begins too late"))?;
        let den = i32::try_from(i64::from(rate.num) * self.step).unwrap_or(i32::MAX);
        let time_base = Ratio { num: rate.den, den };
        Ok((self, Info { time_base, rate: Some(rate), frames: None, ..info.clone() }))
    }

    /// The moments from a frame at `at` up to the next at `until` (excluded), in ticks of the source.
    pub(super) fn until(&mut self, at: i64, until: i64) -> Vec<Moment> {
        match self.pace {
            Pace::Factor(factor) => {
                let (n, span) = (i64::from(factor), until - at);
                let moment = |k: i64| Moment {
                    stamp: Stamp { pts: at * n + k * span, duration: span },
                    share: k as f64 / n as f64,
                };
                (0..n).map(moment).collect()
            }
            Pace::Rate(rate) => {
                let mut out = Vec::new();
                // In units of 1/(rate.num · source.den) seconds.
                let frame = i128::from(rate.den) * i128::from(self.source.den);
                let tick = i128::from(rate.num) * i128::from(self.source.num);
                let (low, high) = (i128::from(at - self.start) * tick, i128::from(until - self.start) * tick);
                while i128::from(self.next) * frame < high {
                    let past = i128::from(self.next) * frame - low;
                    let stamp = Stamp { pts: self.first + self.next * self.step, duration: self.step };
                    out.push(Moment { stamp, share: (past as f64 / (high - low) as f64).max(0.0) });
                    self.next += 1;
                }
                out
            }
        }
    }

    /// What is shown from the last frame, at `at`, to the clip's end, `duration` later.
    pub(super) fn last(&mut self, at: i64, duration: i64) -> Vec<Moment> {
        match self.pace {
            Pace::Factor(factor) => {
                let n = i64::from(factor);
                vec![Moment { stamp: Stamp { pts: at * n, duration: duration * n }, share: 0.0 }]
            }
            Pace::Rate(_) => {
                let mut held = self.until(at, at + duration.max(1));
                held.iter_mut().for_each(|m| m.share = 0.0);
                held
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(pace: Pace, base: (i32, i32), start: i64) -> (Clock, Ratio) {
        let ratio = Ratio { num: base.0, den: base.1 };
        let clip = Info {
            path: "x".into(),
            stream: 0,
            size: (8, 8),
            turn: crate::video::io::Turn::NONE,
            time_base: ratio,
            rate: None,
            frames: None,
            aspect: None,
            tags: crate::video::io::Tags::SRGB,
            codec: String::new(),
            pixel_format: String::new(),
            interlaced: false,
            others: Vec::new(),
        };
        let (clock, info) = Clock::new(pace, &clip, start).unwrap();
        (clock, info.time_base)
    }

    #[test]
    fn a_steady_rate_asks_for_frames_at_its_own_times() {
        // 23.976 to 60 frames a second: tick k of the source is k·1001/24000 s.
        let rate = Ratio { num: 60, den: 1 };
        let (mut clock, base) = clock(Pace::Rate(rate), (1001, 24000), 0);
        let mut all = Vec::new();
        for k in 0..24 {
            all.extend(clock.until(k, k + 1).into_iter().map(|m| (k, m)));
        }
        assert_eq!(base, Ratio { num: 1, den: 60 });
        // 24 source frames last 1.001 s: times 0 … 60/60.
        assert_eq!(all.len(), 61);
        for (m, (k, moment)) in all.iter().enumerate() {
            let (time, source) = (m as f64 / 60.0, 1001.0 / 24000.0);
            assert_eq!((moment.stamp.pts, moment.stamp.duration), (m as i64, 1));
            assert!((moment.share - (time / source - *k as f64)).abs() < 1e-9, "{m}");
            assert!((0.0..1.0).contains(&moment.share));
        }
        // Fewer frames than the source has are a choice among times, too.
        let (mut clock, _) = self::clock(Pace::Rate(Ratio { num: 10, den: 1 }), (1, 25), 0);
        let kept: Vec<usize> = (0..25).map(|k| clock.until(k, k + 1).len()).collect();
        assert_eq!(kept.iter().sum::<usize>(), 10);
    }

    #[test]
    fn a_clip_that_begins_between_frames_keeps_its_start() {
        // 0.1234 s at 30 frames a second is frame 3.702: a thousandth of a frame is fine enough.
        let (mut clock, base) = clock(Pace::Rate(Ratio { num: 30, den: 1 }), (1, 10_000), 1234);
        let first = clock.until(1234, 2234)[0];
        assert!((first.stamp.pts as f64 * base.value() - 0.1234).abs() < 0.5 / 30_000.0);
        assert_eq!(first.share, 0.0);
        let (_, base) = self::clock(Pace::Rate(Ratio { num: 30, den: 1 }), (1, 10_000), 1000);
        assert_eq!(base.den, 30, "0.1 s is frame 3");
    }
}
