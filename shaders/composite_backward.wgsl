// One item a ray: gradient by the field's four outputs of every sample,
// dL/d(density_i) = length_i · (T_(i+1) g_i − Σ_(j>i) w_j g_j) with g_i = dL/dw_i.
#import invocation
#import composite

@group(0) @binding(5) var<storage, read> pixels: array<f32>;
@group(0) @binding(6) var<storage, read> pixel_grad: array<f32>;
@group(0) @binding(7) var<storage, read> weight_grad: array<f32>;
@group(0) @binding(8) var<storage, read_write> field_grad: array<vec4f>;

// The ray's pixel and its gradient, as far as the weights need them.
struct Pixel {
    rgb_grad: vec3f,
    opacity_grad: f32,
    depth_grad: f32,
    variance_grad: f32,
    mean: f32,
    background: vec3f,
}

fn load_pixel(ray: u32) -> Pixel {
    let at = ray * PIXEL_WORDS;
    let opacity = pixels[at + 3u];
    var pixel: Pixel;
    pixel.rgb_grad = vec3f(pixel_grad[at], pixel_grad[at + 1u], pixel_grad[at + 2u]);
    pixel.opacity_grad = pixel_grad[at + 3u];
    pixel.depth_grad = pixel_grad[at + 4u];
    if opacity >= MIN_OPACITY {
        pixel.mean = pixels[at + 4u] / opacity;
        pixel.variance_grad = pixel_grad[at + 5u];
    }
    pixel.background = ray_background(ray);
    return pixel;
}

// The mean depth minimises the variance: its own derivative is zero.
fn gradient_by_weight(pixel: Pixel, i: u32) -> f32 {
    let t = intervals[i].x;
    let off = t - pixel.mean;
    var g = pixel.opacity_grad + pixel.depth_grad * t + pixel.variance_grad * off * off;
    g += dot(pixel.rgb_grad, field[i].yzw - pixel.background);
    if p.use_weight_grad != 0u {
        g += weight_grad[i];
    }
    return g;
}

@compute @workgroup_size(WORKGROUP)
fn composite_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let ray = item(group, groups, local);
    if ray >= p.rays {
        return;
    }
    let pixel = load_pixel(ray);
    let start = offsets[ray];
    let end = offsets[ray + 1u];
    var transmittance = 1.0;
    var behind = 0.0;
    var i = start;
    for (; i < end && transmittance >= p.early_stop; i++) {
        let alpha = sample_alpha(i);
        let weight = transmittance * alpha;
        transmittance *= 1.0 - alpha;
        let g = gradient_by_weight(pixel, i);
        behind += weight * g;
        // The first word waits for the second loop, which needs the whole sum.
        field_grad[i] = vec4f(transmittance * g, weight * pixel.rgb_grad);
    }
    let visible = i;
    for (; i < end; i++) {
        field_grad[i] = vec4f(0.0);
    }
    transmittance = 1.0;
    for (i = start; i < visible; i++) {
        let alpha = sample_alpha(i);
        behind -= transmittance * alpha * gradient_by_weight(pixel, i);
        transmittance *= 1.0 - alpha;
        field_grad[i].x = intervals[i].y * (field_grad[i].x - behind);
    }
}
