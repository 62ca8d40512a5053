// Rays and their bins. Bin k of a ray covers near + k·step_size to near + (k + 1)·step_size, cut at
// the exit from the sampled box.
#import rng

struct MarchParams {
    rays: u32,
    first_ray: u32,
    width: u32,
    height: u32,
    bins: u32,
    mask_words: u32,
    resolution: u32,
    jitter: u32,
    seed: vec2u,
    step: u32,
    step_size: f32,
    half_extent: f32,
    near: f32,
    pad: vec2u,
}

struct Ray {
    origin: vec3f,
    near: f32,
    direction: vec3f,
    far: f32,
}

@group(0) @binding(0) var<uniform> p: MarchParams;

// One random word a ray, turned by the golden ratio from bin to bin: each sample is uniform in its
// bin and neighbours are stratified.
fn jitter_word(number: u32) -> u32 {
    if p.jitter == 0u {
        return 0u;
    }
    return philox(vec4u(number, 0u, p.step, STREAM_JITTER), p.seed).x;
}

// Position along the ray, and length, of the sample in a bin.
fn bin_sample(ray: Ray, word: u32, bin: u32) -> vec2f {
    let start = ray.near + f32(bin) * p.step_size;
    let length = max(min(ray.far - start, p.step_size), 0.0);
    let u = select(unit(word + bin * 0x9E3779B9u), 0.5, p.jitter == 0u);
    return vec2f(start + u * length, length);
}
