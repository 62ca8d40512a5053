// One item a pixel: adds the gradient of coordinates and depth to the corners', from b = e/Σe and
// w = Σ bₖ wₖ.
#import atomic_add clip_grad
#import invocation
#import triangle

@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read> clip: array<f32>;
@group(0) @binding(3) var<storage, read> ids: array<u32>;
@group(0) @binding(4) var<storage, read> raster_grad: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> clip_grad: array<FloatWord>;

// Adds corner k's part; r₁ and r₂ are those of the corners after it, e₁ and e₂ their gradients.
fn pull(at: u32, pixel: vec2f, r1: vec2f, r2: vec2f, e1: f32, e2: f32, by_w: f32) {
    let by_r = vec2f(e2 * r1.y - e1 * r2.y, e1 * r2.x - e2 * r1.x);
    add_to_clip_grad(at, by_r.x);
    add_to_clip_grad(at + 1u, by_r.y);
    add_to_clip_grad(at + 2u, by_w - dot(pixel, by_r));
}

@compute @workgroup_size(WORKGROUP)
fn surface_rasterize_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * picture() || ids[i] == 0u {
        return;
    }
    let grad = raster_grad[i];
    let view = i / picture();
    let id = ids[i] - 1u;
    let t = corners(view, id);
    if all(grad == vec4f(0.0)) || !t.found {
        return;
    }
    let pixel = center(i % picture());
    let e = edge_functions(t, pixel);
    let sum = e.x + e.y + e.z;
    let b = e / sum;
    let by_b = grad.xyz + vec3f(t.a.z, t.b.z, t.c.z) * grad.w;
    let by_e = (by_b - dot(by_b, b)) / sum;
    let ra = relative(t.a, pixel);
    let rb = relative(t.b, pixel);
    let rc = relative(t.c, pixel);
    let first = view * p.vertices;
    pull(3u * (first + indices[3u * id]), pixel, rb, rc, by_e.y, by_e.z, grad.w * b.x);
    pull(3u * (first + indices[3u * id + 1u]), pixel, rc, ra, by_e.z, by_e.x, grad.w * b.y);
    pull(3u * (first + indices[3u * id + 2u]), pixel, ra, rb, by_e.x, by_e.y, grad.w * b.z);
}
