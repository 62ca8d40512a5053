//! Push-pull filling of the texels that no chart covers (Gortler et al. 1996), so that neither
//! bilinear filtering nor mip levels ever mix in a background colour.

use glam::Vec3;

/// A picture with holes.
struct Level {
    width: usize,
    height: usize,
    /// Colour and whether it is known.
    texels: Vec<(Vec3, bool)>,
}

/// Fills the unknown texels of a `width`-wide picture: direct neighbours of known texels (`rings`
/// times) take the mean of what they touch, the rest comes from coarser and coarser means. Without a
/// known texel everything becomes mid grey.
pub fn fill(width: usize, colors: &mut [Vec3], known: &mut [bool], rings: usize) {
    for _ in 0..rings {
        dilate(width, colors, known);
    }
    let texels = colors.iter().copied().zip(known.iter().copied()).collect();
    let mut pyramid = vec![Level { width, height: colors.len() / width.max(1), texels }];
    while let Some(next) = pyramid.last().and_then(pull) {
        pyramid.push(next);
    }
    let mut coarse = pyramid.pop();
    if let Some(top) = &mut coarse {
        top.texels.iter_mut().filter(|t| !t.1).for_each(|t| *t = (Vec3::splat(0.5), true));
    }
    while let (Some(above), Some(mut level)) = (&coarse, pyramid.pop()) {
        push(above, &mut level);
        coarse = Some(level);
    }
    if let Some(full) = coarse {
        colors.iter_mut().zip(full.texels).for_each(|(c, t)| *c = t.0);
    }
    known.fill(true);
}

fn dilate(width: usize, colors: &mut [Vec3], known: &mut [bool]) {
    let height = known.len() / width.max(1);
    let mut grown = Vec::new();
    for at in (0..known.len()).filter(|&i| !known[i]) {
        let (x, y) = (at % width, at / width);
        let (mut sum, mut count) = (Vec3::ZERO, 0.0);
        for ny in y.saturating_sub(1)..(y + 2).min(height) {
            for nx in x.saturating_sub(1)..(x + 2).min(width) {
                if known[ny * width + nx] {
                    sum += colors[ny * width + nx];
                    count += 1.0;
                }
            }
        }
        if count > 0.0 {
            grown.push((at, sum / count));
        }
    }
    for (at, color) in grown {
        colors[at] = color;
        known[at] = true;
    }
}

/// The next coarser level: means over the known texels of 2 × 2 blocks.
fn pull(fine: &Level) -> Option<Level> {
    if fine.width <= 1 && fine.height <= 1 {
        return None;
    }
    let (width, height) = (fine.width.div_ceil(2), fine.height.div_ceil(2));
    let texels = (0..width * height)
        .map(|i| {
            let (x, y) = (i % width * 2, i / width * 2);
            let block = [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)];
            let known: Vec<Vec3> = block
                .into_iter()
                .filter(|p| p.0 < fine.width && p.1 < fine.height)
                .map(|p| fine.texels[p.1 * fine.width + p.0])
                .filter_map(|t| t.1.then_some(t.0))
                .collect();
            (known.iter().sum::<Vec3>() / known.len().max(1) as f32, !known.is_empty())
        })
        .collect();
    Some(Level { width, height, texels })
}

fn push(coarse: &Level, fine: &mut Level) {
    let width = fine.width;
    for (i, texel) in fine.texels.iter_mut().enumerate().filter(|(_, t)| !t.1) {
        *texel = (coarse.texels[i / width / 2 * coarse.width + i % width / 2].0, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texels_stay_and_the_rest_is_between_them() {
        let (width, height) = (13, 7);
        let mut colors = vec![Vec3::splat(9.0); width * height];
        let mut known = vec![false; width * height];
        for (at, value) in [(0, 0.2), (50, 0.8)] {
            colors[at] = Vec3::splat(value);
            known[at] = true;
        }
        fill(width, &mut colors, &mut known, 2);
        assert!(known.iter().all(|k| *k));
        assert_eq!(colors[0], Vec3::splat(0.2));
        assert_eq!(colors[50], Vec3::splat(0.8));
        // Two rings copy exactly what they touch.
        assert!((colors[2 * width + 2] - Vec3::splat(0.2)).length() < 1e-6);
        assert!(colors.iter().all(|c| (0.2..=0.8001).contains(&c.x)));
    }

    #[test]
    fn nothing_known_gives_grey() {
        let mut colors = vec![Vec3::ZERO; 12];
        fill(4, &mut colors, &mut [false; 12], 4);
        assert!(colors.iter().all(|c| *c == Vec3::splat(0.5)));
        fill(1, &mut [], &mut [], 1);
    }
}
