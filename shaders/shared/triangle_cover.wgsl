// Where a triangle is seen.
#import triangle

// Whether the pixel is on the inner side of an edge; exactly on it, left and top edges own it.
fn owned(e: f32, sign: f32, a: vec3f, b: vec3f) -> bool {
    if e != 0.0 {
        return e * sign > 0.0;
    }
    let outward = agreed_slope(a, b) * sign;
    return outward.x > 0.0 || (outward.x == 0.0 && outward.y > 0.0);
}

// Barycentric coordinates and w where the triangle covers the pixel's centre; w is 0 elsewhere.
fn cover(t: Triangle, pixel: vec2f) -> vec4f {
    let e = edge_functions(t, pixel);
    if min(min(e.x, e.y), e.z) < 0.0 && max(max(e.x, e.y), e.z) > 0.0 {
        return vec4f(0.0);
    }
    let sum = e.x + e.y + e.z;
    if !(abs(sum) > 0.0) || (p.cull == 1u && sum > 0.0) {
        return vec4f(0.0);
    }
    let sign = select(-1.0, 1.0, sum > 0.0);
    if !owned(e.x, sign, t.b, t.c) || !owned(e.y, sign, t.c, t.a) || !owned(e.z, sign, t.a, t.b) {
        return vec4f(0.0);
    }
    let b = e / sum;
    let w = b.x * t.a.z + b.y * t.b.z + b.z * t.c.z;
    if w >= p.near && w <= LARGEST {
        return vec4f(b, w);
    }
    return vec4f(0.0);
}
