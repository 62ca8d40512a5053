use std::sync::Arc;

use candle_core::{Tensor, Var};

use super::*;
use crate::prior::nn::{Kept, Padding, conv2d, conv2d_kept, fallback, winograd};

/// (input, output channels, kernel, stride, padding): vectors' tails, channel tails, several images
/// side by side, bands of rows, both strides, the asymmetric padding.
const CASES: [([usize; 4], usize, usize, usize, Padding); 9] = [
    ([3, 5, 6, 7], 9, 3, 1, Padding::Same(1)),
    ([40, 3, 4, 4], 10, 3, 1, Padding::Same(1)),
    ([2, 8, 5, 5], 33, 1, 1, Padding::Same(0)),
    ([2, 3, 9, 8], 4, 3, 2, Padding::Same(1)),
    ([2, 3, 8, 8], 4, 3, 2, Padding::BottomRight),
    ([1, 3, 7, 6], 2, 3, 1, Padding::Same(0)),
    ([1, 2, 9, 9], 3, 5, 3, Padding::Same(2)),
    ([2, 3, 7, 5], 3, 1, 2, Padding::Same(0)),
    ([1, 70, 40, 36], 6, 3, 1, Padding::Same(1)),
];

fn inputs(case: &([usize; 4], usize, usize, usize, Padding)) -> Vec<Tensor> {
    let (x, co, k, ..) = *case;
    normals(1, &[&x, &[co, x[1], k, k], &[co]])
}

/// candle's own convolution and its gradients.
fn candle_conv2d(a: &[Tensor], stride: usize, padding: Padding) -> candle_core::Result<Tensor> {
    let (_, _, height, width) = a[0].dims4()?;
    let ((before, after), k) = (padding.sides(), a[1].dim(2)?);
    let out = |n: usize| (n + before + after - k) / stride + 1;
    // candle takes the input gradient's size of a strided convolution from the height alone, so the
    // input is made square first.
    let rest = |n: usize| if stride > 1 { height.max(width) - n } else { 0 } + after - before;
    let x = a[0].pad_with_zeros(2, 0, rest(height))?.pad_with_zeros(3, 0, rest(width))?;
    let y = x.conv2d(&a[1], before, stride, 1, 1)?;
    let y = y.narrow(2, 0, out(height))?.narrow(3, 0, out(width))?;
    y.broadcast_add(&a[2].reshape((1, (), 1, 1))?)
}

#[test]
fn conv_agrees_with_candle() {
    for case in &CASES {
        let (_, _, _, stride, padding) = *case;
        let ours = |a: &[Tensor]| conv2d(&a[0], &a[1], Some(&a[2]), stride, padding);
        let stock = |a: &[Tensor]| candle_conv2d(a, stride, padding);
        // Sums of up to a few hundred terms of size one in f32.
        check_same(&ours, &stock, &inputs(case), 1e-5);
    }
}

#[test]
fn conv_gradients_are_exact() {
    for case in &CASES[..8] {
        let (_, _, _, stride, padding) = *case;
        check_gradients(&|a| conv2d(&a[0], &a[1], Some(&a[2]), stride, padding), &inputs(case));
        check_gradients(&|a| conv2d(&a[0], &a[1], None, stride, padding), &inputs(case)[..2]);
    }
}

/// What runs on GPUs, with candle's CPU convolution beneath it.
#[test]
fn the_convolution_of_other_devices_agrees_with_candle_and_differences() {
    for case in &CASES[..8] {
        let (_, _, _, stride, padding) = *case;
        let ours = |a: &[Tensor]| fallback::conv2d(&a[0], &a[1], Some(&a[2]), stride, padding);
        check_same(&ours, &|a| candle_conv2d(a, stride, padding), &inputs(case), 1e-5);
        check_gradients(&ours, &inputs(case));
        check_frozen(&ours, &inputs(case));
    }
}

#[test]
fn conv_ignores_the_thread_count() {
    for case in &CASES {
        let (_, _, _, stride, padding) = *case;
        check_threads(&|a| conv2d(&a[0], &a[1], Some(&a[2]), stride, padding), &inputs(case));
    }
}

/// Filters above a million elements for small pictures take the way that packs them block by block.
#[test]
fn large_filters_agree_with_candle_at_any_thread_count() {
    let cases = [
        ([3, 345, 4, 5], 350, 3, 1, Padding::Same(1)),
        ([1, 345, 7, 6], 350, 3, 2, Padding::Same(1)),
        ([2, 1030, 3, 3], 1030, 1, 1, Padding::Same(0)),
    ];
    for case in &cases {
        let (_, _, _, stride, padding) = *case;
        let ours = |a: &[Tensor]| conv2d(&a[0], &a[1], Some(&a[2]), stride, padding);
        let stock = |a: &[Tensor]| candle_conv2d(a, stride, padding);
        // Sums of up to three thousand terms in f32.
        check_same(&ours, &stock, &inputs(case), 2e-5);
        check_threads(&ours, &inputs(case));
    }
}

#[test]
fn conv_frozen_arguments_cost_nothing() {
    check_frozen(&|a| conv2d(&a[0], &a[1], Some(&a[2]), 1, Padding::Same(1)), &inputs(&CASES[0]));
}

#[test]
fn conv_rejects_what_does_not_fit() {
    let x = normal(0, &[1, 3, 4, 4]);
    for w in [[2, 4, 3, 3], [2, 3, 3, 1], [2, 3, 7, 7]] {
        assert!(conv2d(&x, &normal(0, &w), None, 1, Padding::Same(1)).is_err());
    }
    let w = normal(0, &[2, 3, 3, 3]);
    assert!(conv2d(&x, &w, Some(&normal(0, &[3])), 1, Padding::Same(1)).is_err());
    assert!(conv2d(&x, &w, None, 0, Padding::Same(1)).is_err());
}

/// Shapes that go by Winograd's way both forward and back: odd sizes, several pictures in a task, pictures cut in
/// both directions, channels that fill no register, no padding, and more filters than tiles (transformed by panels,
/// sums longer than a block).
const WINOGRAD: [([usize; 4], usize, usize, usize, Padding); 7] = [
    ([2, 65, 31, 29], 70, 3, 1, Padding::Same(1)),
    ([1, 66, 33, 40], 64, 3, 1, Padding::Same(0)),
    ([9, 64, 3, 27], 67, 3, 1, Padding::Same(1)),
    ([16, 25, 4, 3], 33, 3, 1, Padding::Same(1)),
    ([1, 24, 3, 301], 24, 3, 1, Padding::Same(2)),
    ([3, 390, 5, 6], 210, 3, 1, Padding::Same(1)),
    ([6, 24, 4, 4], 90, 3, 1, Padding::BottomRight),
];

#[test]
fn winograd_agrees_with_candle_and_differences_at_any_thread_count() {
    for case in &WINOGRAD {
        let ([b, ci, h, w], co, _, stride, padding) = *case;
        let (before, after) = padding.sides();
        let shape = |channels| crate::prior::nn::plan::Shape {
            batch: b,
            channels,
            height: h,
            width: w,
            dilation: 1,
            before,
            after: [after; 2],
            kernel: 3,
            stride,
        };
        assert!(winograd::pays(&shape(ci), co, false) && winograd::pays(&shape(co), ci, false), "{case:?}");
        let ours = |a: &[Tensor]| conv2d(&a[0], &a[1], Some(&a[2]), stride, padding);
        let stock = |a: &[Tensor]| candle_conv2d(a, stride, padding);
        // Sums of up to 3,500 terms of size one in f32.
        check_same(&ours, &stock, &inputs(case), 2e-5);
        if ci * co < 10_000 {
            check_gradients(&ours, &inputs(case));
        }
        check_threads(&ours, &inputs(case));
    }
}

/// One tap without padding is a product of matrices, by pictures or, of few pictures, by blocks.
#[test]
fn pointwise_convolutions_agree_with_candle_and_differences_at_any_thread_count() {
    for case in [
        ([1, 37, 9, 11], 65, 1, 1, Padding::Same(0)),
        ([3, 300, 5, 4], 31, 1, 1, Padding::Same(0)),
        ([5, 3, 1, 1], 40, 1, 1, Padding::Same(0)),
    ] {
        let ours = |a: &[Tensor]| conv2d(&a[0], &a[1], Some(&a[2]), 1, Padding::Same(0));
        check_same(&ours, &|a| candle_conv2d(a, 1, Padding::Same(0)), &inputs(&case), 1e-5);
        check_gradients(&ours, &inputs(&case));
        check_threads(&ours, &inputs(&case));
    }
}

/// What is kept of frozen weights gives what the weights give, both ways, the first time and later.
#[test]
fn kept_filters_give_the_same_result_and_gradient() {
    for case in [&WINOGRAD[0], &WINOGRAD[3], &([1, 64, 4, 4], 70, 3, 1, Padding::Same(1)), &CASES[0]] {
        let (_, _, _, stride, padding) = *case;
        let kept = Arc::new(Kept::default());
        for seed in [1, 5] {
            let mut a = inputs(case);
            a[0] = (&a[0] * f64::from(seed)).unwrap();
            let x = Var::from_tensor(&a[0]).unwrap();
            let plain = conv2d(x.as_tensor(), &a[1], Some(&a[2]), stride, padding).unwrap();
            let ours = conv2d_kept(x.as_tensor(), &a[1], Some(&a[2]), stride, padding, &kept).unwrap();
            assert!(difference(&ours, &plain) < 1e-11, "{case:?}");
            let by = |y: &Tensor| {
                let weights = normal(9, y.dims());
                (y * weights).unwrap().backward().unwrap().get(x.as_tensor()).unwrap().clone()
            };
            assert!(difference(&by(&ours), &by(&plain)) < 1e-11, "{case:?}: gradient");
        }
    }
}

/// Training changes variables in place: nothing of them may stay.
#[test]
fn nothing_is_kept_of_a_variable() {
    let (x, first, second) =
        (normal(0, &[2, 64, 8, 8]), normal(1, &[64, 64, 3, 3]), normal(2, &[64, 64, 3, 3]));
    let (w, kept) = (Var::from_tensor(&first).unwrap(), Arc::new(Kept::default()));
    let run = || conv2d_kept(&x, w.as_tensor(), None, 1, Padding::Same(1), &kept).unwrap();
    let before = run();
    w.set(&second).unwrap();
    let want = conv2d(&x, &second, None, 1, Padding::Same(1)).unwrap();
    assert!(difference(&run(), &want) < 1e-11 && difference(&before, &want) > 0.1);
}
