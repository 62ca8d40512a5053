// Which texels a coordinate reads.
#import texture

// Four texels of a level (offsets of their first channel) and the place between them.
struct Taps {
    at: vec4u,
    f: vec2f,
}

// A coordinate brought near 0 without changing what it means, so that it fits an integer.
fn reduced(u: f32) -> f32 {
    if !(abs(u) < 1e6) {
        return 0.0;
    }
    switch p.wrap {
        case 0u: { return u - floor(u); }
        case 1u: { return clamp(u, -1.0, 2.0); }
        default: { return u - 2.0 * floor(0.5 * u); }
    }
}

fn remainder(i: i32, n: i32) -> i32 {
    return ((i % n) + n) % n;
}

fn wrapped(i: i32, n: i32) -> u32 {
    switch p.wrap {
        case 0u: { return u32(remainder(i, n)); }
        case 1u: { return u32(clamp(i, 0, n - 1)); }
        default: {
            let m = remainder(i, 2 * n);
            return u32(select(2 * n - 1 - m, m, m < n));
        }
    }
}

// Lower and upper texel as whole numbers, and the share of the upper.
fn place(u: f32, n: u32) -> vec3f {
    let x = reduced(u) * f32(n) - 0.5;
    var low = floor(x);
    var share = x - low;
    if p.sampling == 0u {
        low = floor(x + 0.5);
        share = 0.0;
    }
    return vec3f(f32(wrapped(i32(low), i32(n))), f32(wrapped(i32(low) + 1, i32(n))), share);
}

fn taps(level: u32, uv: vec2f) -> Taps {
    let size = level_size(level);
    let x = place(uv.x, size.x);
    let y = place(uv.y, size.y);
    let columns = vec4u(u32(x.x), u32(x.y), u32(x.x), u32(x.y));
    let rows = vec4u(u32(y.x), u32(y.x), u32(y.y), u32(y.y));
    return Taps(level_start(level) + p.channels * (rows * size.x + columns), vec2f(x.z, y.z));
}

fn tap_weights(taps: Taps) -> vec4f {
    let g = 1.0 - taps.f;
    return vec4f(g.x * g.y, taps.f.x * g.y, g.x * taps.f.y, taps.f.x * taps.f.y);
}

// The lower of the two levels to mix, and the share of the one above it.
fn mip_place(footprint: vec4f) -> vec2f {
    if p.sampling < 2u || p.levels < 2u {
        return vec2f(0.0);
    }
    let along_x = footprint.xz * vec2f(f32(p.width), f32(p.height));
    let along_y = footprint.yw * vec2f(f32(p.width), f32(p.height));
    let longest = max(dot(along_x, along_x), dot(along_y, along_y));
    // Half the logarithm of a square; below one texel a pixel, the level is 0.
    let level = min(0.5 * log2(clamp(longest, 1.0, 1e30)), f32(p.levels - 1u));
    let low = min(floor(level), f32(p.levels - 2u));
    return vec2f(low, level - low);
}
