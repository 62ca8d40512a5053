// One item a pixel: adds the blend's gradient by the ends of the edges that its two pairs cross.
#import atomic_add clip_grad
#import invocation
#import pair
#import triangle

@group(0) @binding(1) var<storage, read> alphas: array<f32>;
@group(0) @binding(2) var<storage, read> edges: array<u32>;
@group(0) @binding(3) var<storage, read> layers: array<f32>;
@group(0) @binding(4) var<storage, read> blended_grad: array<f32>;
@group(0) @binding(5) var<storage, read> indices: array<u32>;
@group(0) @binding(6) var<storage, read> clip: array<f32>;
@group(0) @binding(7) var<storage, read_write> clip_grad: array<FloatWord>;

fn add_end(at: u32, along_across: vec2f, w: f32, pixel: vec2f, axis: u32) {
    let by_pixel = turned(along_across, axis);
    add_to_clip_grad(at, by_pixel.x);
    add_to_clip_grad(at + 1u, by_pixel.y);
    add_to_clip_grad(at + 2u, w - dot(pixel, by_pixel));
}

// From the gradient by the crossing's coordinate N/D along the axis, N = xₐy_b − yₐx_b and
// D = wₐy_b − yₐw_b (x along, y across, times w and relative to the pixel), to the edge's ends.
fn pull_crossing(view: u32, ia: u32, ib: u32, pixel: vec2f, axis: u32, by_crossing: f32) {
    let a = vertex(view, ia);
    let b = vertex(view, ib);
    let ra = turned(relative(a, pixel), axis);
    let rb = turned(relative(b, pixel), axis);
    let bottom = a.z * rb.y - ra.y * b.z;
    let by_top = by_crossing / bottom;
    let by_bottom = -by_top * ((ra.x * rb.y - ra.y * rb.x) / bottom);
    let first = view * p.vertices;
    add_end(3u * (first + ia), vec2f(by_top * rb.y, -by_top * rb.x - by_bottom * b.z), by_bottom * rb.y, pixel, axis);
    add_end(3u * (first + ib), vec2f(-by_top * ra.y, by_top * ra.x + by_bottom * a.z), -by_bottom * ra.y, pixel, axis);
}

@compute @workgroup_size(WORKGROUP)
fn silhouette_move_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * picture() {
        return;
    }
    let here = i % picture();
    for (var axis = 0u; axis < 2u; axis++) {
        let code = edges[2u * i + axis];
        if code == 0u || !has_neighbour(here, axis) {
            continue;
        }
        let alpha = alphas[2u * i + axis];
        let second = i + step_along(axis);
        let taker = select(second, i, alpha > 0.0);
        let giver = select(i, second, alpha > 0.0);
        var by_alpha = 0.0;
        for (var c = 0u; c < p.channels; c++) {
            let step = layers[p.channels * giver + c] - layers[p.channels * taker + c];
            by_alpha += blended_grad[p.channels * taker + c] * step;
        }
        by_alpha *= select(1.0, -1.0, alpha < 0.0);
        let edge_index = (code & ~SECOND_OWNS) - 1u;
        let triangle = edge_index / 3u;
        let k = edge_index % 3u;
        let source = select(here + step_along(axis), here, (code & SECOND_OWNS) == 0u);
        // α = ½ − d with d the crossing's coordinate, or d − ½ with d the negative of it.
        pull_crossing(
            i / picture(),
            indices[3u * triangle + (k + 1u) % 3u],
            indices[3u * triangle + (k + 2u) % 3u],
            center(source),
            axis,
            -by_alpha,
        );
    }
}
