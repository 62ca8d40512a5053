// Edge functions of homogeneous screen triangles. The entry file declares `indices` and `clip`.
#import surface

struct Triangle {
    found: bool,
    a: vec3f,
    b: vec3f,
    c: vec3f,
}

// One vertex in `view`: x·w, y·w, w.
fn vertex(view: u32, index: u32) -> vec3f {
    let at = 3u * (view * p.vertices + index);
    return vec3f(clip[at], clip[at + 1u], clip[at + 2u]);
}

// The corners in `view`; not found for an index without a vertex.
fn corners(view: u32, triangle: u32) -> Triangle {
    let ids = vec3u(indices[3u * triangle], indices[3u * triangle + 1u], indices[3u * triangle + 2u]);
    if any(ids >= vec3u(p.vertices)) {
        return Triangle(false, vec3f(0.0), vec3f(0.0), vec3f(0.0));
    }
    return Triangle(true, vertex(view, ids.x), vertex(view, ids.y), vertex(view, ids.z));
}

// Screen offset of a vertex from a pixel, times w.
fn relative(v: vec3f, pixel: vec2f) -> vec2f {
    return v.xy - pixel * v.z;
}

fn cross2(a: vec2f, b: vec2f) -> f32 {
    return a.x * b.y - a.y * b.x;
}

// An order of vertices by value: both triangles at an edge compute the same number.
fn in_order(a: vec3f, b: vec3f) -> bool {
    if a.x != b.x {
        return a.x < b.x;
    }
    if a.y != b.y {
        return a.y < b.y;
    }
    return a.z <= b.z;
}

// Twice the area of (pixel, a, b), times both w.
fn edge(a: vec3f, b: vec3f, ra: vec2f, rb: vec2f) -> f32 {
    if in_order(a, b) {
        return cross2(ra, rb);
    }
    return -cross2(rb, ra);
}

// The edge function's slope by the pixel.
fn slope(a: vec3f, b: vec3f) -> vec2f {
    return vec2f(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z);
}

fn agreed_slope(a: vec3f, b: vec3f) -> vec2f {
    if in_order(a, b) {
        return slope(a, b);
    }
    return -slope(b, a);
}

// The three edge functions at a pixel; each is zero on the edge opposite its corner.
fn edge_functions(t: Triangle, pixel: vec2f) -> vec3f {
    let a = relative(t.a, pixel);
    let b = relative(t.b, pixel);
    let c = relative(t.c, pixel);
    return vec3f(edge(t.b, t.c, b, c), edge(t.c, t.a, c, a), edge(t.a, t.b, a, b));
}
