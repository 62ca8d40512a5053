//! Penalties on renders, with exact gradients, on flat host arrays.
//!
//! Every function returns a [`Term`]: a value (mean over pixels) and its gradient on the array. The
//! arrays are those of the volume renderer: one number a pixel, or three (normals), pixels row by
//! row, pictures one after the other. Values are summed in double precision.

/// f32 for renders, f64 for finite differences.
pub trait Scalar: Copy {
    /// To double precision.
    fn widen(self) -> f64;
    /// From double precision.
    fn narrow(x: f64) -> Self;
}

impl Scalar for f32 {
    fn widen(self) -> f64 {
        f64::from(self)
    }

    fn narrow(x: f64) -> Self {
        x as Self
    }
}

impl Scalar for f64 {
    fn widen(self) -> f64 {
        self
    }

    fn narrow(x: f64) -> Self {
        x
    }
}

/// A penalty and its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct Term<T> {
    /// The penalty.
    pub value: f64,
    /// ∂value/∂array, as long as the array.
    pub gradient: Vec<T>,
}

impl<T: Scalar> Term<T> {
    /// Adds `weight` times the gradient to `target` (as long as the gradient) and returns `weight`
    /// times the value.
    pub fn accumulate(&self, weight: f64, target: &mut [T]) -> f64 {
        debug_assert_eq!(target.len(), self.gradient.len());
        for (t, g) in target.iter_mut().zip(&self.gradient) {
            *t = T::narrow(t.widen() + weight * g.widen());
        }
        weight * self.value
    }

    /// The mean of `f` over `x`, where `f` gives value and derivative.
    fn mean_of(x: &[T], f: impl Fn(f64) -> (f64, f64)) -> Self {
        let scale = 1.0 / x.len().max(1) as f64;
        let mut value = 0.0;
        let gradient = x
            .iter()
            .map(|x| {
                let (v, d) = f(x.widen());
                value += v * scale;
                T::narrow(d * scale)
            })
            .collect();
        Self { value, gradient }
    }
}

/// Sparsity: mean √(o² + .01) of the opacities. Empties space that nothing asks for.
pub fn sparsity<T: Scalar>(opacity: &[T]) -> Term<T> {
    Term::mean_of(opacity, |o| {
        let root = (o * o + 0.01).sqrt();
        (root, o / root)
    })
}

/// Opaqueness: mean binary cross-entropy of the opacities with themselves,
/// `−o ln o − (1−o) ln(1−o)`, o clamped to [.001, .999] (no gradient beyond). Pushes to 0 or 1.
pub fn opaque<T: Scalar>(opacity: &[T]) -> Term<T> {
    Term::mean_of(opacity, |raw| {
        let o = raw.clamp(1e-3, 1.0 - 1e-3);
        let value = -o * o.ln() - (1.0 - o) * (1.0 - o).ln();
        (value, if o == raw { ((1.0 - o) / o).ln() } else { 0.0 })
    })
}

/// Orientation: mean over pixels with any opacity of max(0, n·d)², for `normals` `[3·P]` weighted by
/// opacity as rendered and `directions` `[3·P]` from the camera into the scene. Penalises surfaces
/// that face away and are still seen. The gradient is on the normals; which pixels count is fixed.
pub fn orientation<T: Scalar>(normals: &[T], directions: &[T], opacity: &[T]) -> Term<T> {
    let seen = opacity.iter().filter(|o| o.widen() > 0.0).count().max(1);
    let scale = 1.0 / seen as f64;
    let mut term = Term { value: 0.0, gradient: vec![T::narrow(0.0); normals.len()] };
    let pixels = normals.chunks_exact(3).zip(directions.chunks_exact(3)).zip(opacity);
    for (((n, d), o), g) in pixels.zip(term.gradient.chunks_exact_mut(3)) {
        let dot: f64 = n.iter().zip(d).map(|(n, d)| n.widen() * d.widen()).sum();
        if dot > 0.0 && o.widen() > 0.0 {
            term.value += dot * dot * scale;
            g.iter_mut().zip(d).for_each(|(g, d)| *g = T::narrow(2.0 * dot * d.widen() * scale));
        }
    }
    term
}

/// Depth variance: mean of `z_variance` over the pixels whose opacity exceeds ½ (a fixed choice, no
/// gradient). Pulls the density of a ray into one thin surface.
pub fn z_variance<T: Scalar>(z_variance: &[T], opacity: &[T]) -> Term<T> {
    let solid = opacity.iter().filter(|o| o.widen() > 0.5).count().max(1);
    let scale = 1.0 / solid as f64;
    let mut value = 0.0;
    let mut one = |(z, o): (&T, &T)| {
        let share = if o.widen() > 0.5 { scale } else { 0.0 };
        value += z.widen() * share;
        T::narrow(share)
    };
    let gradient = z_variance.iter().zip(opacity).map(&mut one).collect();
    Term { value, gradient }
}

/// Smoothness: mean square difference of the normals `[n·height·width·3]` of pixels that touch
/// horizontally, plus the same vertically (means over all components of all such pairs).
pub fn normal_smoothness<T: Scalar>(normals: &[T], width: usize, height: usize) -> Term<T> {
    let mut value = 0.0;
    let mut gradient = vec![0.0; normals.len()];
    let pictures = normals.len() / (width * height * 3).max(1);
    let mut pull = |a: usize, b: usize, scale: f64| {
        for c in 0..3 {
            let difference = normals[3 * a + c].widen() - normals[3 * b + c].widen();
            value += difference * difference * scale;
            gradient[3 * a + c] += 2.0 * difference * scale;
            gradient[3 * b + c] -= 2.0 * difference * scale;
        }
    };
    let mean = |pairs: usize| 1.0 / (3 * pictures * pairs).max(1) as f64;
    let across = mean(height * width.saturating_sub(1));
    let down = mean(height.saturating_sub(1) * width);
    for pixel in 0..pictures * width * height {
        let (x, y) = (pixel % width, pixel / width % height);
        if x + 1 < width {
            pull(pixel, pixel + 1, across);
        }
        if y + 1 < height {
            pull(pixel, pixel + width, down);
        }
    }
    Term { value, gradient: gradient.into_iter().map(T::narrow).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    fn draw(stream: u32, n: usize, low: f32, high: f32) -> Vec<f64> {
        let rng = Rng::new(4, Stream::Probe, stream);
        (0..n as u64).map(|i| f64::from(rng.range(i, low, high))).collect()
    }

    /// Central differences: error h²·f'''/6 and 1e-16/h, both below 1e-9 at h = 1e-6 for these
    /// functions with derivatives of order 1.
    fn check(name: &str, x: &[f64], f: impl Fn(&[f64]) -> Term<f64>) {
        let term = f(x);
        assert!(term.gradient.iter().any(|g| g.abs() > 1e-4), "{name}: no gradient to check");
        for i in 0..x.len() {
            let at = |h: f64| {
                let mut x = x.to_vec();
                x[i] += h;
                f(&x).value
            };
            let want = (at(1e-6) - at(-1e-6)) / 2e-6;
            let got = term.gradient[i];
            assert!((got - want).abs() < 1e-8, "{name}[{i}]: {got} against {want}");
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let opacity = draw(0, 24, 0.05, 0.95);
        let (normals, directions) = (draw(1, 72, -1.0, 1.0), draw(2, 72, -1.0, 1.0));
        check("sparsity", &opacity, sparsity);
        check("opaque", &opacity, opaque);
        check("orientation", &normals, |n| orientation(n, &directions, &opacity));
        check("z_variance", &draw(3, 24, 0.0, 2.0), |z| z_variance(z, &opacity));
        check("normal_smoothness", &normals, |n| normal_smoothness(n, 4, 3));
    }

    #[test]
    fn values_by_hand() {
        assert!((sparsity(&[0.0f32, 0.0]).value - 0.1).abs() < 1e-12);
        assert!((opaque(&[0.5f64]).value - 2f64.ln()).abs() < 1e-12);
        assert_eq!(opaque(&[0.0f32, 1.0]).gradient, [0.0, 0.0]);
        // A surface that faces the camera costs nothing; one that faces away costs 1; an empty
        // pixel is not counted.
        let (normals, rays) = ([0.0, 0.0, 1.0, 0.0, 0.0, -1.0, 0.0, 0.0, -1.0], [0.0, 0.0, -1.0].repeat(3));
        assert!((orientation(&normals, &rays, &[1.0, 1.0, 0.0]).value - 0.5).abs() < 1e-12);
        assert!((z_variance(&[1.0, 2.0, 9.0], &[0.9, 0.6, 0.4]).value - 1.5).abs() < 1e-12);
        // Two pictures of 2 x 1: differences 1 and 3 in one of three components.
        let normals = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0];
        assert!((normal_smoothness(&normals, 2, 1).value - 10.0 / 6.0).abs() < 1e-12);
        let mut sum = vec![1.0f32; 2];
        assert!((sparsity(&[0.0f32, 0.0]).accumulate(3.0, &mut sum) - 0.3).abs() < 1e-7);
        assert_eq!(sum, [1.0, 1.0]);
        // Nothing at all is not a division by zero.
        assert_eq!(sparsity::<f32>(&[]).value, 0.0);
        assert_eq!(normal_smoothness::<f32>(&[], 0, 0).value, 0.0);
    }
}
