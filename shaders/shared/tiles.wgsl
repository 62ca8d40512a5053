// Which tiles of the screen a triangle may be seen in.
#import triangle

struct Box {
    low: vec2f,
    high: vec2f,
}

fn extend(box: Box, v: vec2f) -> Box {
    return Box(min(box.low, v), max(box.high, v));
}

fn finite(v: vec3f) -> bool {
    return all(abs(v) <= vec3f(LARGEST));
}

// The box of an edge's part in front of the near plane, joined to `box`.
fn extend_by_edge(box: Box, a: vec3f, b: vec3f) -> Box {
    var out = box;
    if a.z >= p.near {
        out = extend(out, a.xy / a.z);
    }
    if (a.z >= p.near) != (b.z >= p.near) {
        let cut = a + (b - a) * ((p.near - a.z) / (b.z - a.z));
        out = extend(out, cut.xy / p.near);
    }
    return out;
}

// First and last tile column, first and last row; the last is before the first if there is none.
fn tile_range(t: Triangle) -> vec4i {
    let none = vec4i(0, -1, 0, -1);
    if !t.found || !finite(t.a) || !finite(t.b) || !finite(t.c) {
        return none;
    }
    var box = Box(vec2f(LARGEST), vec2f(-LARGEST));
    box = extend_by_edge(box, t.a, t.b);
    box = extend_by_edge(box, t.b, t.c);
    box = extend_by_edge(box, t.c, t.a);
    // One pixel of room for rounding.
    let size = vec2f(f32(p.width), f32(p.height));
    let first = vec2i(clamp(floor(box.low - 1.0), vec2f(0.0), size));
    let last = vec2i(clamp(ceil(box.high + 1.0), vec2f(0.0), size)) - 1;
    if any(first > last) {
        return none;
    }
    let tile = i32(TILE);
    return vec4i(first.x / tile, last.x / tile, first.y / tile, last.y / tile);
}

// Whether the whole box is on the outer side of a line, for certain.
fn outside(line: vec3f, low: vec2f, high: vec2f) -> bool {
    let x = select(low.x, high.x, line.x > 0.0);
    let y = select(low.y, high.y, line.y > 0.0);
    let terms = vec3f(line.x * x, line.y * y, line.z);
    let rounding = 1e-5 * (abs(terms.x) + abs(terms.y) + abs(terms.z));
    return terms.x + terms.y + terms.z < -rounding;
}

// Whether the triangle may be seen in the tile; asked of triangles of many tiles only.
fn touches(t: Triangle, x: i32, y: i32) -> bool {
    let sign = select(-1.0, 1.0, dot(t.a, cross(t.b, t.c)) >= 0.0);
    let low = vec2f(f32(x), f32(y)) * f32(TILE);
    let high = low + f32(TILE);
    return !outside(cross(t.b, t.c) * sign, low, high)
        && !outside(cross(t.c, t.a) * sign, low, high)
        && !outside(cross(t.a, t.b) * sign, low, high);
}
