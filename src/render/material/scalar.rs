//! Numbers that shading is written over: plain ones, and ones that carry their derivatives.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// A real number, possibly with derivatives.
pub trait Scalar:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Mul<f64, Output = Self>
    + Add<f64, Output = Self>
    + Sub<f64, Output = Self>
{
    /// A constant.
    fn constant(value: f64) -> Self;
    /// The number without its derivatives: what branches look at.
    fn value(self) -> f64;
    /// Square root; its slope at 0 is taken as 0.
    fn sqrt(self) -> Self;
    /// Not less than `low`; below it a constant.
    fn at_least(self, low: f64) -> Self {
        if self.value() < low { Self::constant(low) } else { self }
    }
    /// Not more than `high`; above it a constant.
    fn at_most(self, high: f64) -> Self {
        if self.value() > high { Self::constant(high) } else { self }
    }
    /// `self + (other − self) · t`.
    fn lerp(self, other: Self, t: Self) -> Self {
        self + (other - self) * t
    }
}

impl Scalar for f64 {
    fn constant(value: f64) -> Self {
        value
    }

    fn value(self) -> f64 {
        self
    }

    fn sqrt(self) -> Self {
        self.sqrt()
    }
}

/// A number and its derivatives by `N` variables (forward mode: exact up to rounding).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dual<const N: usize> {
    /// The number.
    pub value: f64,
    /// Its derivatives.
    pub slope: [f64; N],
}

impl<const N: usize> Dual<N> {
    /// Variable `i` at `value`.
    pub fn variable(value: f64, i: usize) -> Self {
        let mut slope = [0.0; N];
        slope[i] = 1.0;
        Self { value, slope }
    }

    /// `f(self)` with f's value and slope there.
    fn chain(self, value: f64, slope: f64) -> Self {
        Self { value, slope: self.slope.map(|s| s * slope) }
    }

    /// `f(self, other)` with f's value and slopes by both.
    fn join(self, other: Self, value: f64, [by_self, by_other]: [f64; 2]) -> Self {
        let slope = std::array::from_fn(|i| self.slope[i] * by_self + other.slope[i] * by_other);
        Self { value, slope }
    }
}

impl<const N: usize> Scalar for Dual<N> {
    fn constant(value: f64) -> Self {
        Self { value, slope: [0.0; N] }
    }

    fn value(self) -> f64 {
        self.value
    }

    fn sqrt(self) -> Self {
        let root = self.value.sqrt();
        self.chain(root, if root > 0.0 { 0.5 / root } else { 0.0 })
    }
}

impl<const N: usize> Add for Dual<N> {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        self.join(o, self.value + o.value, [1.0, 1.0])
    }
}

impl<const N: usize> Sub for Dual<N> {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        self.join(o, self.value - o.value, [1.0, -1.0])
    }
}

impl<const N: usize> Mul for Dual<N> {
    type Output = Self;
    fn mul(self, o: Self) -> Self {
        self.join(o, self.value * o.value, [o.value, self.value])
    }
}

impl<const N: usize> Div for Dual<N> {
    type Output = Self;
    fn div(self, o: Self) -> Self {
        let ratio = self.value / o.value;
        self.join(o, ratio, [1.0 / o.value, -ratio / o.value])
    }
}

impl<const N: usize> Neg for Dual<N> {
    type Output = Self;
    fn neg(self) -> Self {
        self.chain(-self.value, -1.0)
    }
}

impl<const N: usize> Mul<f64> for Dual<N> {
    type Output = Self;
    fn mul(self, k: f64) -> Self {
        self.chain(self.value * k, k)
    }
}

impl<const N: usize> Add<f64> for Dual<N> {
    type Output = Self;
    fn add(self, k: f64) -> Self {
        Self { value: self.value + k, ..self }
    }
}

impl<const N: usize> Sub<f64> for Dual<N> {
    type Output = Self;
    fn sub(self, k: f64) -> Self {
        Self { value: self.value - k, ..self }
    }
}

/// Three numbers.
pub(super) type V3<T> = [T; 3];

pub(super) fn dot<T: Scalar>(a: V3<T>, b: V3<T>) -> T {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn add<T: Scalar>(a: V3<T>, b: V3<T>) -> V3<T> {
    std::array::from_fn(|i| a[i] + b[i])
}

pub(super) fn scale<T: Scalar>(a: V3<T>, k: T) -> V3<T> {
    a.map(|x| x * k)
}

/// Unit vector along `a`.
pub(super) fn normalize<T: Scalar>(a: V3<T>) -> V3<T> {
    let length = dot(a, a).sqrt().at_least(1e-12);
    a.map(|x| x / length)
}

/// A constant vector.
pub(super) fn fixed<T: Scalar>(v: glam::DVec3) -> V3<T> {
    v.to_array().map(T::constant)
}
