// Emission-absorption quadrature: alpha = 1 − exp(−density·length), weight = transmittance·alpha.
#import math

// Rays with less opacity have no z-variance: their mean depth is not defined.
const MIN_OPACITY = 1e-6;
const PIXEL_WORDS = 6u;

struct CompositeParams {
    rays: u32,
    first_ray: u32,
    rays_per_background: u32,
    use_weight_grad: u32,
    early_stop: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: CompositeParams;
@group(0) @binding(1) var<storage, read> offsets: array<u32>;
@group(0) @binding(2) var<storage, read> intervals: array<vec2f>;
@group(0) @binding(3) var<storage, read> field: array<vec4f>;
@group(0) @binding(4) var<storage, read> background: array<f32>;

fn sample_alpha(i: u32) -> f32 {
    return one_minus_exp_neg(field[i].x * intervals[i].y);
}

fn ray_background(ray: u32) -> vec3f {
    let row = 3u * ((p.first_ray + ray) / p.rays_per_background);
    return vec3f(background[row], background[row + 1u], background[row + 2u]);
}
