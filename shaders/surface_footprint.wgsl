// One item a pixel: slopes of (u, v) by the pixel, ∂u/∂x, ∂u/∂y, ∂v/∂x, ∂v/∂y.
#import invocation
#import triangle

@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read> clip: array<f32>;
@group(0) @binding(4) var<storage, read> uvs: array<vec2f>;
@group(0) @binding(5) var<storage, read> uv_indices: array<u32>;
@group(0) @binding(6) var<storage, read_write> footprint: array<vec4f>;

@compute @workgroup_size(WORKGROUP)
fn surface_footprint(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * picture() {
        return;
    }
    let id = max(ids[i], 1u) - 1u;
    let t = corners(i / picture(), id);
    let at = vec3u(uv_indices[3u * id], uv_indices[3u * id + 1u], uv_indices[3u * id + 2u]);
    if ids[i] == 0u || !t.found || any(at >= vec3u(arrayLength(&uvs))) {
        footprint[i] = vec4f(0.0);
        return;
    }
    let e = edge_functions(t, center(i % picture()));
    let sum = e.x + e.y + e.z;
    let a = slope(t.b, t.c);
    let b = slope(t.c, t.a);
    let c = slope(t.a, t.b);
    let all = a + b + c;
    let by_a = (a - all * (e.x / sum)) / sum;
    let by_b = (b - all * (e.y / sum)) / sum;
    let by_c = (c - all * (e.z / sum)) / sum;
    let u = by_a * uvs[at.x].x + by_b * uvs[at.y].x + by_c * uvs[at.z].x;
    let v = by_a * uvs[at.x].y + by_b * uvs[at.y].y + by_c * uvs[at.z].y;
    footprint[i] = vec4f(u, v);
}
