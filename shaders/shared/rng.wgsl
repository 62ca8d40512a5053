// Philox4x32-10, counter based: the same words as src/rng.rs for the same seed, stream, step, index.

const STREAM_JITTER = 2u;
const STREAM_OCCUPANCY = 7u;

// The 64-bit product of two words as (low, high), from products of 16-bit halves.
fn multiply_wide(a: u32, b: u32) -> vec2u {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    // At most (2^16 - 1)^2 + 2 (2^16 - 1) = 2^32 - 1: no sum overflows.
    let middle = a1 * b0 + ((a0 * b0) >> 16u);
    let carry = a0 * b1 + (middle & 0xffffu);
    return vec2u(a * b, a1 * b1 + (middle >> 16u) + (carry >> 16u));
}

fn philox(start: vec4u, seed: vec2u) -> vec4u {
    var counter = start;
    var key = seed;
    for (var round = 0u; round < 10u; round++) {
        let p0 = multiply_wide(counter.x, 0xD2511F53u);
        let p1 = multiply_wide(counter.z, 0xCD9E8D57u);
        counter = vec4u(p1.y ^ counter.y ^ key.x, p1.x, p0.y ^ counter.w ^ key.y, p0.x);
        key += vec2u(0x9E3779B9u, 0xBB67AE85u);
    }
    return counter;
}

// Uniform in [0, 1), 24 bits.
fn unit(word: u32) -> f32 {
    return f32(word >> 8u) * (1.0 / 16777216.0);
}
