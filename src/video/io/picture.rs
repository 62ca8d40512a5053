//! One picture of a clip, as the editor sees it.

/// Planar RGB, rows from the top, in the clip's own transfer curve (what an sRGB screen shows).
///
/// Nominal values lie in 0 … 1. Codes of a clip outside the RGB cube (Y'CbCr has many) go beyond, and
/// they are kept: clamping them would change a clip that nobody edited.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[3, height, width]`.
    pub rgb: Vec<f32>,
    /// `[height, width]`, straight (not premultiplied), where the clip has it.
    pub alpha: Option<Vec<f32>>,
}

impl Picture {
    /// A picture of one colour.
    pub fn filled(width: usize, height: usize, color: [f32; 3]) -> Self {
        let rgb = color.iter().flat_map(|&c| std::iter::repeat_n(c, width * height)).collect();
        Self { width, height, rgb, alpha: None }
    }

    /// A picture from a function of column and row.
    pub fn from_fn(width: usize, height: usize, f: impl Fn(usize, usize) -> [f32; 3]) -> Self {
        let mut picture = Self::filled(width, height, [0.0; 3]);
        let n = width * height;
        for y in 0..height {
            for x in 0..width {
                for (c, value) in f(x, y).into_iter().enumerate() {
                    picture.rgb[c * n + y * width + x] = value;
                }
            }
        }
        picture
    }

    /// One plane: 0 red, 1 green, 2 blue.
    pub fn plane(&self, channel: usize) -> &[f32] {
        let n = self.width * self.height;
        &self.rgb[channel * n..(channel + 1) * n]
    }

    /// Rec. 709 luma of each pixel, `[height, width]`.
    pub fn luma(&self) -> Vec<f32> {
        let (r, g, b) = (self.plane(0), self.plane(1), self.plane(2));
        r.iter().zip(g).zip(b).map(|((r, g), b)| 0.2126 * r + 0.7152 * g + 0.0722 * b).collect()
    }

    /// Every plane through `f` (`[height, width]` in, a plane of the new size out).
    pub(crate) fn map_planes(&self, size: (usize, usize), f: impl Fn(&[f32]) -> Vec<f32> + Sync) -> Self {
        let rgb = (0..3).flat_map(|c| f(self.plane(c))).collect();
        Self { width: size.0, height: size.1, rgb, alpha: self.alpha.as_deref().map(f) }
    }

    /// The picture over a colour, without its transparency.
    #[must_use]
    pub fn flattened(mut self, background: [f32; 3]) -> Self {
        let Some(alpha) = self.alpha.take() else { return self };
        for (plane, back) in self.rgb.chunks_exact_mut(alpha.len().max(1)).zip(background) {
            for (value, &a) in plane.iter_mut().zip(&alpha) {
                *value = a * *value + (1.0 - a) * back;
            }
        }
        self
    }

    /// 8-bit RGB, interleaved.
    pub fn to_rgb8(&self) -> image::RgbImage {
        let n = self.width * self.height;
        let code = |v: f32| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
        image::RgbImage::from_fn(self.width as u32, self.height as u32, |x, y| {
            let at = y as usize * self.width + x as usize;
            image::Rgb([0, 1, 2].map(|c| code(self.rgb[c * n + at])))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flattening_is_the_over_operator() {
        let mut picture = Picture::filled(2, 1, [1.0, 0.5, 0.0]);
        picture.alpha = Some(vec![0.25, 1.0]);
        let flat = picture.flattened([0.0, 0.0, 1.0]);
        assert_eq!(flat.rgb, [0.25, 1.0, 0.125, 0.5, 0.75, 0.0]);
        assert_eq!(flat.alpha, None);
    }
}
