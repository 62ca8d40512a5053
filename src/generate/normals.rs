//! Normals as pictures (Fantasia3D; ProlificDreamer's second stage).
//!
//! The renderer blends unit normals n to zero at silhouettes, as it does coverage m to zero. The picture of a
//! normal is (n + 1)/2 before black, so 2x − 1 is n + m − 1: −1 where nothing is seen.

/// `[views, 3, …]` in −1 … 1.
pub(super) fn picture(normal: &[f32], mask: &[f32], views: usize) -> Vec<f32> {
    planes(normal, mask, views, 3)
}

/// `[views, 4, …]`: the same and coverage, which take a latent's four channels.
pub(super) fn with_mask(normal: &[f32], mask: &[f32], views: usize) -> Vec<f32> {
    planes(normal, mask, views, 4)
}

fn planes(normal: &[f32], mask: &[f32], views: usize, channels: usize) -> Vec<f32> {
    let pixels = mask.len() / views.max(1);
    let mut out = Vec::with_capacity(channels * mask.len());
    for view in 0..views {
        for c in 0..channels {
            out.extend((view * pixels..(view + 1) * pixels).map(|i| match c {
                3 => mask[i],
                c => normal[3 * i + c] + mask[i] - 1.0,
            }));
        }
    }
    out
}

/// The gradients by coverage and by normals `[views, …, 3]` from the one by the planes.
pub(super) fn back(gradient: &[f32], channels: usize, views: usize) -> (Vec<f32>, Vec<f32>) {
    let pixels = gradient.len() / (channels * views).max(1);
    let (mut by_mask, mut by_normal) = (vec![0.0; views * pixels], vec![0.0; 3 * views * pixels]);
    for (plane, gradient) in gradient.chunks(pixels.max(1)).enumerate() {
        let (view, c) = (plane / channels, plane % channels);
        for (i, g) in gradient.iter().enumerate() {
            let at = view * pixels + i;
            by_mask[at] += g;
            if c < 3 {
                by_normal[3 * at + c] = *g;
            }
        }
    }
    (by_mask, by_normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_have_their_values_and_their_gradient_is_the_transpose() {
        let normal = [0.0, 0.5, 0.75, 0.0, 0.0, 0.0, -0.5, 0.0, 0.0, 1.0, 0.0, 0.0];
        let mask = [1.0, 0.0, 0.5, 1.0];
        assert_eq!(
            picture(&normal, &mask, 2),
            [
                0.0, -1.0, 0.5, -1.0, 0.75, -1.0, // First view: x of both pixels, y, z.
                -1.0, 1.0, -0.5, 0.0, -0.5, 0.0,
            ]
        );
        let four = with_mask(&normal, &mask, 2);
        assert_eq!((&four[6..8], &four[14..16]), (&[1.0, 0.0][..], &[0.5, 1.0][..]));
        for channels in [3, 4] {
            let base = planes(&normal, &mask, 2, channels);
            let g: Vec<f32> = (0..base.len()).map(|i| (i as f32 * 0.7).sin()).collect();
            let (by_mask, by_normal) = back(&g, channels, 2);
            let dot = |x: &[f32]| x.iter().zip(&g).map(|(x, g)| x * g).sum::<f32>();
            for i in 0..12 {
                let mut moved = normal;
                moved[i] += 1.0;
                let change = dot(&planes(&moved, &mask, 2, channels)) - dot(&base);
                assert!((change - by_normal[i]).abs() < 1e-5, "{i}");
            }
            for i in 0..4 {
                let mut moved = mask;
                moved[i] += 1.0;
                let change = dot(&planes(&normal, &moved, 2, channels)) - dot(&base);
                assert!((change - by_mask[i]).abs() < 1e-5, "{i}");
            }
        }
    }
}
