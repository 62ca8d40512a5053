// One item a ray: weights of its samples, and r, g, b, opacity, depth, z-variance.
#import invocation
#import composite

@group(0) @binding(5) var<storage, read_write> weights: array<f32>;
@group(0) @binding(6) var<storage, read_write> pixels: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn composite(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let ray = item(group, groups, local);
    if ray >= p.rays {
        return;
    }
    let start = offsets[ray];
    let end = offsets[ray + 1u];
    var transmittance = 1.0;
    var opacity = 0.0;
    var depth = 0.0;
    var rgb = vec3f(0.0);
    var i = start;
    for (; i < end && transmittance >= p.early_stop; i++) {
        let alpha = sample_alpha(i);
        let weight = transmittance * alpha;
        weights[i] = weight;
        transmittance *= 1.0 - alpha;
        opacity += weight;
        depth += weight * intervals[i].x;
        rgb += weight * field[i].yzw;
    }
    let visible = i;
    for (; i < end; i++) {
        weights[i] = 0.0;
    }
    var variance = 0.0;
    if opacity >= MIN_OPACITY {
        let mean = depth / opacity;
        for (i = start; i < visible; i++) {
            let off = intervals[i].x - mean;
            variance += weights[i] * off * off;
        }
    }
    rgb += (1.0 - opacity) * ray_background(ray);
    let at = ray * PIXEL_WORDS;
    pixels[at] = rgb.x;
    pixels[at + 1u] = rgb.y;
    pixels[at + 2u] = rgb.z;
    pixels[at + 3u] = opacity;
    pixels[at + 4u] = depth;
    pixels[at + 5u] = variance;
}
