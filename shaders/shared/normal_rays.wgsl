// What the kernels that walk the selected samples of a ray have in common.
#import normal

@group(0) @binding(1) var<storage, read> rays: array<f32>;
@group(0) @binding(2) var<storage, read> normal_offsets: array<u32>;
@group(0) @binding(3) var<storage, read> selected: array<u32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> query_field: array<vec4f>;

fn ray_direction(ray: u32) -> vec3f {
    return vec3f(rays[8u * ray + 4u], rays[8u * ray + 5u], rays[8u * ray + 6u]);
}

// The normal of a selected sample, and the regularised length of the density's gradient.
fn normal_and_length(pick: u32) -> vec4f {
    var corners = CORNERS;
    var gradient = vec3f(0.0);
    for (var k = 0u; k < 4u; k++) {
        gradient += corners[k] * query_field[4u * pick + k].x;
    }
    gradient /= 4.0 * p.epsilon;
    let length = sqrt(dot(gradient, gradient) + p.floor * p.floor);
    return vec4f(-gradient / length, length);
}
