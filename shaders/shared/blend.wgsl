// The four pairs of a pixel. The entry file declares `alphas`.
#import pair

// Pair k (left, above, right, below) of pixel i: the share that it takes of the other, and that the
// other takes of it.
fn shares(i: u32, k: u32) -> vec2f {
    let here = i % picture();
    let axis = k % 2u;
    if k < 2u {
        if (axis == 0u && here % p.width == 0u) || (axis == 1u && here < p.width) {
            return vec2f(0.0);
        }
        let alpha = alphas[2u * (i - step_along(axis)) + axis];
        return vec2f(max(-alpha, 0.0), max(alpha, 0.0));
    }
    let alpha = alphas[2u * i + axis];
    return vec2f(max(alpha, 0.0), max(-alpha, 0.0));
}

fn other_pixel(i: u32, k: u32) -> u32 {
    let step = step_along(k % 2u);
    return select(i - step, i + step, k >= 2u);
}
