//! Warping, scaling and the learned rectifier against finite differences and known values.

use candle_core::{DType, Device, Tensor};

use super::{check_frozen, check_gradients, check_threads, normal, normals};
use crate::prior::nn::{prelu, scale, warp};

#[test]
fn warps_and_scales_are_differentiated_exactly() {
    // Flows of some pixels: beyond the border, too. No sample is within 1e-5 of a kink by chance.
    let args = normals(31, &[&[2, 3, 5, 6], &[2, 2, 5, 6]]);
    let warped = |a: &[Tensor]| warp(&a[0], &(&a[1] * 1.7)?);
    check_gradients(&warped, &args);
    check_frozen(&warped, &args);
    check_threads(&warped, &args);
    let x = [normal(32, &[2, 2, 5, 7])];
    for (h, w) in [(10, 14), (3, 4), (5, 21), (1, 1)] {
        let scaled = move |a: &[Tensor]| scale(&a[0], h, w);
        check_gradients(&scaled, &x);
        check_threads(&scaled, &x);
    }
}

#[test]
fn the_rectifier_is_its_formula_and_differentiated_exactly() {
    let args = normals(33, &[&[2, 3, 4, 5], &[3]]);
    let f = |a: &[Tensor]| prelu(&a[0], &a[1]);
    check_gradients(&f, &args);
    check_frozen(&f, &args);
    check_threads(&f, &args);
    let x = Tensor::new(&[[[[2f32, -2.0]], [[0.5, -4.0]]]], &Device::Cpu).unwrap();
    let y = prelu(&x, &Tensor::new(&[0.5f32, 0.25], &Device::Cpu).unwrap()).unwrap();
    assert_eq!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [2.0, -1.0, 0.5, -1.0]);
}

fn ramp(h: usize, w: usize) -> Tensor {
    let data: Vec<f32> = (0..2 * h * w).map(|i| (i * 7 % 23) as f32).collect();
    Tensor::from_vec(data, (1, 2, h, w), &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn no_flow_is_bit_exact_and_whole_flow_is_a_shift() {
    let x = ramp(5, 6);
    let none = Tensor::zeros((1, 2, 5, 6), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(values(&warp(&x, &none).unwrap()), values(&x));
    let right = (none + 2.0).unwrap();
    let (moved, x) = (values(&warp(&x, &right).unwrap()), values(&x));
    assert_eq!(
        (moved[0], moved[30], moved[5], moved[4 * 6]),
        (x[2 * 6 + 2], x[30 + 2 * 6 + 2], x[2 * 6 + 5], x[4 * 6 + 2])
    );
}

#[test]
fn scaling_is_pytorchs() {
    // torch: interpolate([0, 1, 2, 3], scale_factor=.5) = [.5, 2.5]; of [0, 4], factor 2: [0, 1, 3, 4].
    let row = |v: &[f32]| Tensor::from_slice(v, (1, 1, 1, v.len()), &Device::Cpu).unwrap();
    assert_eq!(values(&scale(&row(&[0.0, 1.0, 2.0, 3.0]), 1, 2).unwrap()), [0.5, 2.5]);
    assert_eq!(values(&scale(&row(&[0.0, 4.0]), 1, 4).unwrap()), [0.0, 1.0, 3.0, 4.0]);
}
