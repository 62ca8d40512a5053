// One item a point: hash-grid features, MLP with one hidden ReLU layer, density and colour.
#import field
#import invocation
#import math

@group(0) @binding(1) var<storage, read> positions: array<f32>;
@group(0) @binding(2) var<storage, read> grid: array<vec2f>;
@group(0) @binding(3) var<storage, read> mlp: array<f32>;
@group(0) @binding(4) var<storage, read_write> field: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> features: array<vec2f>;

fn encode(level: Level, position: vec3f) -> vec2f {
    let cell = locate(level, position);
    var sum = vec2f(0.0);
    for (var corner = 0u; corner < 8u; corner++) {
        sum += corner_weight(cell, corner) * grid[corner_entry(level, cell, corner)];
    }
    return sum;
}

fn density_of(logit: f32) -> f32 {
    if p.activation == 0u {
        return softplus(logit);
    }
    return exp(clamp(logit, -15.0, 15.0));
}

@compute @workgroup_size(WORKGROUP)
fn field_forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.points {
        return;
    }
    let position = vec3f(positions[3u * i], positions[3u * i + 1u], positions[3u * i + 2u]);
    let unit = unit_coordinates(position);
    var x: array<vec2f, MAX_LEVELS>;
    for (var l = 0u; l < p.levels; l++) {
        var feature = vec2f(0.0);
        if l < p.active_levels {
            feature = encode(p.table[l], unit);
        }
        x[l] = feature;
        if p.keep_features != 0u {
            features[l * p.points + i] = feature;
        }
    }
    // The hidden layer is never stored: each unit goes into the four outputs at once.
    let w2 = 2u * p.levels * p.hidden;
    var out = vec4f(0.0);
    var row = 0u;
    for (var j = 0u; j < p.hidden; j++) {
        var sum = 0.0;
        for (var l = 0u; l < p.levels; l++) {
            sum += mlp[row] * x[l].x + mlp[row + 1u] * x[l].y;
            row += 2u;
        }
        let at = w2 + j;
        let column = vec4f(mlp[at], mlp[at + p.hidden], mlp[at + 2u * p.hidden], mlp[at + 3u * p.hidden]);
        out += column * max(sum, 0.0);
    }
    let bias = p.blob_scale * (1.0 - length(position) / p.blob_radius);
    // e^-x overflows f32 beyond 88.
    let color = 1.0 / (1.0 + exp(min(-out.yzw, vec3f(88.0))));
    field[i] = vec4f(density_of(out.x + bias), color);
}
