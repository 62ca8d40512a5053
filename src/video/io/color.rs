//! Colour coding of a clip: which matrix and range its codes are in, and what its tags say.

use ffmpeg_next::chroma::Location;
use ffmpeg_next::color::{Primaries, Range, Space, TransferCharacteristic};

use super::chroma::Siting;
use crate::{Error, Result};

/// The four tags of a clip and where its chroma samples lie, as they are written in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tags {
    /// Matrix coefficients.
    pub space: Space,
    /// Limited ("tv") or full ("pc").
    pub range: Range,
    /// Primaries.
    pub primaries: Primaries,
    /// Transfer curve.
    pub transfer: TransferCharacteristic,
    /// Chroma siting.
    pub location: Location,
}

impl Tags {
    /// sRGB pictures, coded as Y'CbCr BT.709 in limited range: what players expect of them.
    pub const SRGB: Self = Self {
        space: Space::BT709,
        range: Range::MPEG,
        primaries: Primaries::BT709,
        transfer: TransferCharacteristic::IEC61966_2_1,
        location: Location::Left,
    };

    /// True for the two transfer curves of high dynamic range, PQ and HLG.
    pub fn is_hdr(&self) -> bool {
        matches!(self.transfer, TransferCharacteristic::SMPTE2084 | TransferCharacteristic::ARIB_STD_B67)
    }

    /// Siting of chroma, horizontally and vertically; unspecified is MPEG-2's (left).
    pub(super) fn siting(&self) -> (Siting, Siting) {
        let horizontal = match self.location {
            Location::Center | Location::Top | Location::Bottom => Siting::Centred,
            _ => Siting::Cosited,
        };
        let vertical = match self.location {
            Location::TopLeft | Location::Top => Siting::Cosited,
            _ => Siting::Centred,
        };
        (horizontal, vertical)
    }
}

/// How codes become numbers: luma weights, range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Coding {
    /// Weight of red in luma.
    pub(super) kr: f32,
    /// Weight of blue in luma.
    pub(super) kb: f32,
    /// Codes use the whole range.
    pub(super) full: bool,
}

impl Coding {
    /// The coding of Y'CbCr pictures with these tags, of the given height (an untagged clip is
    /// BT.709 from 720 rows on and BT.601 below: what players assume).
    ///
    /// # Errors
    /// [`Error::Failed`] for matrices that are no plain luma weights.
    pub(super) fn of(tags: &Tags, height: usize) -> Result<Self> {
        let (kr, kb) = match tags.space {
            Space::BT709 => BT709,
            Space::BT470BG | Space::SMPTE170M => BT601,
            Space::BT2020NCL => BT2020,
            Space::SMPTE240M => (0.212, 0.087),
            Space::FCC => (0.30, 0.11),
            Space::Unspecified | Space::Reserved | Space::RGB => {
                if height >= 720 {
                    BT709
                } else {
                    BT601
                }
            }
            other => {
                return Err(Error::Failed(format!("colour matrix {other:?} is not supported")).hint(
                    "convert the clip first, for example: ffmpeg -i in.mp4 -vf colorspace=bt709 out.mp4",
                ));
            }
        };
        Ok(Self { kr, kb, full: tags.range == Range::JPEG })
    }

    /// Red, green and blue of luma (0 … 1) and colour differences (−½ … ½).
    pub(super) fn to_rgb(self, [y, cb, cr]: [f32; 3]) -> [f32; 3] {
        let (r, b) = (y + 2.0 * (1.0 - self.kr) * cr, y + 2.0 * (1.0 - self.kb) * cb);
        let g = (y - self.kr * r - self.kb * b) / (1.0 - self.kr - self.kb);
        [r, g, b]
    }

    /// The inverse of [`Self::to_rgb`].
    pub(super) fn encode_rgb(self, [r, g, b]: [f32; 3]) -> [f32; 3] {
        let y = self.kr * r + (1.0 - self.kr - self.kb) * g + self.kb * b;
        [y, (b - y) / (2.0 * (1.0 - self.kb)), (r - y) / (2.0 * (1.0 - self.kr))]
    }
}

const BT601: (f32, f32) = (0.299, 0.114);
const BT709: (f32, f32) = (0.2126, 0.0722);
const BT2020: (f32, f32) = (0.2627, 0.0593);

/// The line between numbers and codes of one component.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    /// Code of zero.
    pub(super) offset: f32,
    /// Codes a unit.
    pub(super) unit: f32,
    /// Largest code.
    pub(super) max: f32,
}

impl Scale {
    /// Luma, red, green, blue.
    pub(super) fn luma(depth: u32, full: bool) -> Self {
        let (max, step) = (code_max(depth), step(depth));
        if full {
            Self { offset: 0.0, unit: max, max }
        } else {
            Self { offset: 16.0 * step, unit: 219.0 * step, max }
        }
    }

    /// Colour differences.
    pub(super) fn chroma(depth: u32, full: bool) -> Self {
        let (max, step) = (code_max(depth), step(depth));
        Self { offset: 128.0 * step, unit: if full { max } else { 224.0 * step }, max }
    }

    /// The number of a code.
    pub(super) fn value(self, code: f32) -> f32 {
        (code - self.offset) / self.unit
    }

    /// The nearest code of a number; one that is not finite becomes zero's.
    pub(super) fn code(self, value: f32) -> u16 {
        let code = value.mul_add(self.unit, self.offset);
        // `as` maps NaN to 0.
        code.round().clamp(0.0, self.max) as u16
    }
}

fn code_max(depth: u32) -> f32 {
    ((1u32 << depth) - 1) as f32
}

fn step(depth: u32) -> f32 {
    f32::from(1u16 << depth.saturating_sub(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(space: Space, range: Range) -> Tags {
        Tags { space, range, ..Tags::SRGB }
    }

    #[test]
    fn known_codes() {
        // BT.709, limited, 8 bit: pure red is (63, 102, 240); BT.601: (81, 90, 240).
        for (space, codes) in [(Space::BT709, [63, 102, 240]), (Space::SMPTE170M, [81, 90, 240])] {
            let coding = Coding::of(&tags(space, Range::MPEG), 100).unwrap();
            let [y, cb, cr] = coding.encode_rgb([1.0, 0.0, 0.0]);
            let (luma, chroma) = (Scale::luma(8, false), Scale::chroma(8, false));
            assert_eq!([luma.code(y), chroma.code(cb), chroma.code(cr)], codes);
        }
        // BT.2020, 10 bit, white and black.
        assert_eq!((Scale::luma(10, false).code(1.0), Scale::luma(10, false).code(0.0)), (940, 64));
        assert_eq!(Scale::luma(8, true).code(f32::NAN), 0);
    }

    #[test]
    fn every_code_survives() {
        for space in [Space::BT709, Space::BT470BG, Space::BT2020NCL, Space::SMPTE240M] {
            for (depth, full) in [(8, false), (8, true), (10, false), (12, true)] {
                let range = if full { Range::JPEG } else { Range::MPEG };
                let coding = Coding::of(&tags(space, range), 100).unwrap();
                let (luma, chroma) = (Scale::luma(depth, full), Scale::chroma(depth, full));
                let max = code_max(depth) as u32;
                for i in 0..=max {
                    let codes = [i, (i * 7 + 3) % (max + 1), (i * 13 + 5) % (max + 1)].map(|c| c as f32);
                    let ycc = [luma.value(codes[0]), chroma.value(codes[1]), chroma.value(codes[2])];
                    let [y, cb, cr] = coding.encode_rgb(coding.to_rgb(ycc));
                    let back = [luma.code(y), chroma.code(cb), chroma.code(cr)].map(f32::from);
                    assert_eq!(back, codes, "{space:?} {depth} {full}");
                }
            }
        }
    }

    #[test]
    fn constant_luminance_is_refused() {
        assert!(Coding::of(&tags(Space::BT2020CL, Range::MPEG), 100).is_err());
    }
}
