// One item a pixel: how it blends with its right and its lower neighbour, and over which edge.
#import invocation
#import pair
#import triangle

@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> raster: array<vec4f>;
@group(0) @binding(3) var<storage, read> indices: array<u32>;
@group(0) @binding(4) var<storage, read> opposite: array<u32>;
@group(0) @binding(5) var<storage, read> clip: array<f32>;
@group(0) @binding(6) var<storage, read_write> alphas: array<f32>;
@group(0) @binding(7) var<storage, read_write> edges: array<u32>;

// How far beyond the segment's ends a crossing may lie, for rounding.
const SLACK = 1e-3;

// Share from the centre of the owning pixel to the crossing of edge (a, b) with the segment towards
// the neighbour, `direction` (±1) along `axis`; −1 if it does not cross there or is too flat.
fn crossing(a: vec3f, b: vec3f, pixel: vec2f, axis: u32, direction: f32) -> f32 {
    let ra = turned(relative(a, pixel), axis);
    let rb = turned(relative(b, pixel), axis);
    if (ra.y < 0.0) == (rb.y < 0.0) {
        return -1.0;
    }
    let by_along = a.z * rb.y - ra.y * b.z;
    let by_across = a.z * rb.x - ra.x * b.z;
    let steep = abs(by_along) > abs(by_across) || (axis == 0u && abs(by_along) == abs(by_across));
    let t = ra.y / (ra.y - rb.y);
    if !steep || a.z + t * (b.z - a.z) <= 0.0 {
        return -1.0;
    }
    let d = direction * (ra.x * rb.y - ra.y * rb.x) / by_along;
    if d >= -SLACK && d <= 1.0 + SLACK {
        return clamp(d, 0.0, 1.0);
    }
    return -1.0;
}

// The side of line (a, b) that v is on, seen from a.
fn side(a: vec3f, b: vec3f, v: vec3f) -> f32 {
    let pixel = a.xy / a.z;
    return cross2(relative(b, pixel), relative(v, pixel)) * select(-1.0, 1.0, v.z >= 0.0);
}

// Whether the surface ends at edge (a, b), c being its own third corner: nothing is joined, or it
// folds back, or the neighbour is seen edge-on.
fn is_silhouette(view: u32, a: vec3f, b: vec3f, c: vec3f, other: u32) -> bool {
    if other >= p.vertices {
        return true;
    }
    return !(side(a, b, c) * side(a, b, vertex(view, other)) < 0.0);
}

@compute @workgroup_size(WORKGROUP)
fn silhouette_pairs(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * picture() {
        return;
    }
    let view = i / picture();
    let here = i % picture();
    for (var axis = 0u; axis < 2u; axis++) {
        alphas[2u * i + axis] = 0.0;
        edges[2u * i + axis] = 0u;
        if !has_neighbour(here, axis) {
            continue;
        }
        let next = here + step_along(axis);
        let second = view * picture() + next;
        if ids[i] == ids[second] {
            continue;
        }
        let nearer = raster[second].w < raster[i].w;
        let second_owns = ids[i] == 0u || (ids[second] != 0u && nearer);
        let triangle = select(ids[i], ids[second], second_owns) - 1u;
        let pixel = center(select(here, next, second_owns));
        let direction = select(1.0, -1.0, second_owns);
        let t = corners(view, triangle);
        if !t.found {
            continue;
        }
        for (var k = 0u; k < 3u; k++) {
            var c = t.a;
            var a = t.b;
            var b = t.c;
            if k == 1u {
                c = t.b;
                a = t.c;
                b = t.a;
            } else if k == 2u {
                c = t.c;
                a = t.a;
                b = t.b;
            }
            let d = crossing(a, b, pixel, axis, direction);
            if d >= 0.0 && is_silhouette(view, a, b, c, opposite[3u * triangle + k]) {
                alphas[2u * i + axis] = select(0.5 - d, d - 0.5, second_owns);
                edges[2u * i + axis] = (1u + 3u * triangle + k) | select(0u, SECOND_OWNS, second_owns);
                break;
            }
        }
    }
}
