//! Time: rational stamps as the container writes them.

use std::fmt;

/// A fraction; a time base is seconds a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    /// Numerator.
    pub num: i32,
    /// Denominator, not zero.
    pub den: i32,
}

impl Ratio {
    /// The value.
    pub fn value(self) -> f64 {
        f64::from(self.num) / f64::from(self.den)
    }

    /// Both parts positive.
    pub(super) fn positive(self) -> Option<Self> {
        (self.num > 0 && self.den > 0).then_some(self)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}

impl From<ffmpeg_next::Rational> for Ratio {
    fn from(r: ffmpeg_next::Rational) -> Self {
        Self { num: r.numerator(), den: r.denominator() }
    }
}

impl From<Ratio> for ffmpeg_next::Rational {
    fn from(r: Ratio) -> Self {
        Self::new(r.num, r.den)
    }
}

/// When a frame is shown, and for how long, in ticks of the stream's time base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Presentation time.
    pub pts: i64,
    /// Until the next frame; of the last one, what the container says.
    pub duration: i64,
}

/// True if `a` ticks of `a_base` are at or before `b` ticks of `b_base`, exactly.
pub(super) fn not_after((a, a_base): (i64, Ratio), (b, b_base): (i64, Ratio)) -> bool {
    let scaled =
        |t: i64, base: Ratio, other: Ratio| i128::from(t) * i128::from(base.num) * i128::from(other.den);
    scaled(a, a_base, b_base) <= scaled(b, b_base, a_base)
}

/// Ticks of a frame at `rate` frames a second, at least one.
pub(super) fn ticks_of_frame(base: Ratio, rate: Option<Ratio>) -> i64 {
    let Some(rate) = rate else { return 1 };
    let (num, den) =
        (i128::from(rate.den) * i128::from(base.den), i128::from(rate.num) * i128::from(base.num));
    i64::try_from((num + den / 2) / den.max(1)).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_is_exact() {
        let (film, mp4) = (Ratio { num: 1001, den: 24000 }, Ratio { num: 1, den: 24000 });
        assert!(not_after((1_000_000_007, film), (1_000_000_007 * 1001, mp4)));
        assert!(!not_after((1_000_000_007, film), (1_000_000_007 * 1001 - 1, mp4)));
        assert!(not_after((i64::MIN / 2, film), (0, mp4)));
    }

    #[test]
    fn frames_in_ticks() {
        let rate = |num, den| Some(Ratio { num, den });
        assert_eq!(ticks_of_frame(Ratio { num: 1, den: 24000 }, rate(24000, 1001)), 1001);
        assert_eq!(ticks_of_frame(Ratio { num: 1, den: 1000 }, rate(30, 1)), 33);
        assert_eq!(ticks_of_frame(Ratio { num: 1, den: 25 }, rate(1000, 1)), 1);
        assert_eq!(ticks_of_frame(Ratio { num: 1, den: 25 }, None), 1);
    }
}
