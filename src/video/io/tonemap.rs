//! High dynamic range to standard range, when asked for.
//!
//! Light (PQ: SMPTE ST 2084; HLG: BT.2100 with a 1,000 cd/m² screen) relative to reference white of
//! 203 cd/m² (BT.2408), through extended Reinhard on the largest of the three components (so hue
//! stays), from BT.2020 into BT.709 primaries, and onto the sRGB curve.

use ffmpeg_next::color::TransferCharacteristic;

use super::color::Tags;
use super::picture::Picture;
use crate::render::color::linear_to_srgb;

/// Reference white, cd/m².
const WHITE: f32 = 203.0;
/// What maps to 1, in units of reference white.
const PEAK: f32 = 1000.0 / WHITE;

/// Maps the picture in place.
pub(super) fn apply(picture: &mut Picture, tags: &Tags) {
    let light = if tags.transfer == TransferCharacteristic::SMPTE2084 { pq } else { hlg };
    let n = picture.width * picture.height;
    let (r, rest) = picture.rgb.split_at_mut(n);
    let (g, b) = rest.split_at_mut(n);
    for i in 0..n {
        let mapped = compress(light([r[i], g[i], b[i]]));
        [r[i], g[i], b[i]] = to_709(mapped).map(|v| linear_to_srgb(v.clamp(0.0, 1.0)));
    }
}

/// PQ codes to light relative to reference white.
fn pq(code: [f32; 3]) -> [f32; 3] {
    let (m1, m2) = (0.159_301_76, 78.84375);
    let (c1, c2, c3) = (0.835_937_5, 18.851_563, 18.6875);
    code.map(|v| {
        let p = v.clamp(0.0, 1.0).powf(1.0 / m2);
        10_000.0 / WHITE * ((p - c1).max(0.0) / (c2 - c3 * p)).powf(1.0 / m1)
    })
}

/// HLG codes to light relative to reference white, with the system gamma of 1.2.
fn hlg(code: [f32; 3]) -> [f32; 3] {
    let (a, b, c) = (0.178_832_77, 0.284_668_92, 0.559_910_7);
    let scene = code.map(|v| {
        let v = v.clamp(0.0, 1.0);
        if v <= 0.5 { v * v / 3.0 } else { (((v - c) / a).exp() + b) / 12.0 }
    });
    let y = 0.2627 * scene[0] + 0.6780 * scene[1] + 0.0593 * scene[2];
    scene.map(|v| 1000.0 / WHITE * v * y.max(1e-9).powf(0.2))
}

/// Extended Reinhard: m(1 + m/p²)/(1 + m), so that the peak p becomes 1.
fn compress(light: [f32; 3]) -> [f32; 3] {
    let m = light.into_iter().fold(0.0, f32::max);
    let scale = (1.0 + m / (PEAK * PEAK)) / (1.0 + m);
    light.map(|v| v * scale)
}

/// Linear BT.2020 into linear BT.709 (BT.2087).
fn to_709([r, g, b]: [f32; 3]) -> [f32; 3] {
    [
        1.6605 * r - 0.5876 * g - 0.0728 * b,
        -0.1246 * r + 1.1329 * g - 0.0083 * b,
        -0.0182 * r - 0.1006 * g + 1.1187 * b,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_levels() {
        // PQ: code 0.58 is reference white; 0.7518 is 1,000 cd/m²; 1 is 10,000.
        assert!((pq([0.5807; 3])[0] - 1.0).abs() < 0.01);
        assert!((pq([0.7518; 3])[0] - PEAK).abs() < 0.02 * PEAK);
        assert!((pq([1.0; 3])[0] * WHITE - 10_000.0).abs() < 20.0);
        // HLG: 0.75 is reference white, 1 is 1,000 cd/m².
        assert!((hlg([0.75; 3])[0] - 1.0).abs() < 0.01);
        assert!((hlg([1.0; 3])[0] - PEAK).abs() < 0.01);
    }

    #[test]
    fn the_peak_is_white_black_is_black_and_grey_stays_grey() {
        for transfer in [TransferCharacteristic::SMPTE2084, TransferCharacteristic::ARIB_STD_B67] {
            let tags = Tags { transfer, ..Tags::SRGB };
            let mut last = -1.0;
            for code in [0.0, 0.2, 0.4, 0.6, 0.75] {
                let mut picture = Picture::filled(1, 1, [code; 3]);
                apply(&mut picture, &tags);
                let [r, g, b] = [picture.rgb[0], picture.rgb[1], picture.rgb[2]];
                assert!((r - g).abs() < 2e-3 && (b - g).abs() < 2e-3 && r > last, "{code}: {r} {g} {b}");
                last = r;
            }
            let mut ends = Picture::from_fn(2, 1, |x, _| [x as f32; 3]);
            apply(&mut ends, &tags);
            assert!(ends.rgb[0].abs() < 1e-4 && ends.rgb[1] > 0.99, "{:?}", ends.rgb);
        }
    }
}
