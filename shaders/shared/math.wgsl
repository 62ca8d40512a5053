// Elementary functions that keep their relative accuracy near zero.

// log(1 + e^x).
fn softplus(x: f32) -> f32 {
    // log(1 + y) = 2 artanh(y / (2 + y)); the argument is at most 1/3, where s^15 / 15 is 5e-9.
    let y = exp(-abs(x));
    let s = y / (2.0 + y);
    let s2 = s * s;
    var q = 1.0 / 13.0;
    q = q * s2 + 1.0 / 11.0;
    q = q * s2 + 1.0 / 9.0;
    q = q * s2 + 1.0 / 7.0;
    q = q * s2 + 0.2;
    q = q * s2 + 1.0 / 3.0;
    q = q * s2 + 1.0;
    return max(x, 0.0) + 2.0 * s * q;
}

// 1 − e^−x for x >= 0.
fn one_minus_exp_neg(x: f32) -> f32 {
    // Taylor below 1/2: 1 − e^−x would cancel there.
    var t = 1.0 - x / 7.0;
    t = 1.0 - x / 6.0 * t;
    t = 1.0 - x / 5.0 * t;
    t = 1.0 - x / 4.0 * t;
    t = 1.0 - x / 3.0 * t;
    t = x * (1.0 - x / 2.0 * t);
    return select(1.0 - exp(-min(x, 87.0)), t, x < 0.5);
}
