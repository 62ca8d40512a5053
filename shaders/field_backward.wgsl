// One item a point: the MLP's gradient, and that of the features in their place.
//
// The 64 points of a workgroup share their contributions: for a tile of hidden units at a time,
// each thread first works out the tile's activations and gradients of its own point, then sums a
// share of the weights' gradients over all points. One atomic addition a weight and workgroup is left.
#import atomic_add mlp_grad
#import field
#import invocation
#import math

// Hidden units of a tile. With 64 points it keeps the workgroup memory below 16 KiB.
const TILE = 8u;
const MAX_INPUTS = 2u * MAX_LEVELS;
// Odd, so that the points' rows start in different banks.
const STRIDE = MAX_INPUTS + 1u;

@group(0) @binding(1) var<storage, read> mlp: array<f32>;
@group(0) @binding(2) var<storage, read> field: array<vec4f>;
@group(0) @binding(3) var<storage, read> field_grad: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> features: array<vec2f>;
@group(0) @binding(5) var<storage, read_write> mlp_grad: array<FloatWord>;

var<workgroup> inputs: array<f32, WORKGROUP * STRIDE>;
var<workgroup> by_logit: array<vec4f, WORKGROUP>;
var<workgroup> hidden: array<f32, TILE * WORKGROUP>;
var<workgroup> by_hidden: array<f32, TILE * WORKGROUP>;

// The activations' derivatives follow from their values: softplus' = 1 − e^−density, exp' = density,
// sigmoid' = c(1 − c).
fn logit_gradient(value: vec4f, grad: vec4f) -> vec4f {
    var slope = vec4f(value.x, value.yzw * (1.0 - value.yzw));
    if p.activation == 0u {
        slope.x = one_minus_exp_neg(value.x);
    }
    return grad * slope;
}

@compute @workgroup_size(WORKGROUP)
fn field_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    let exists = i < p.points;
    let width = 2u * p.levels;
    let w2 = width * p.hidden;
    let own = local * STRIDE;
    // Threads without a point take part with zeros: they must reach every barrier.
    var grad = vec4f(0.0);
    for (var l = 0u; l < p.levels; l++) {
        var feature = vec2f(0.0);
        if exists {
            feature = features[l * p.points + i];
        }
        inputs[own + 2u * l] = feature.x;
        inputs[own + 2u * l + 1u] = feature.y;
    }
    if exists {
        grad = logit_gradient(field[i], field_grad[i]);
    }
    by_logit[local] = grad;
    var by_input: array<f32, MAX_INPUTS>;
    for (var first = 0u; first < p.hidden; first += TILE) {
        for (var r = 0u; r < TILE; r++) {
            let j = first + r;
            let row = j * width;
            var sum = 0.0;
            for (var k = 0u; k < width; k++) {
                sum += mlp[row + k] * inputs[own + k];
            }
            let at = w2 + j;
            let column =
                vec4f(mlp[at], mlp[at + p.hidden], mlp[at + 2u * p.hidden], mlp[at + 3u * p.hidden]);
            let slope = select(0.0, dot(column, grad), sum > 0.0);
            hidden[r * WORKGROUP + local] = max(sum, 0.0);
            by_hidden[r * WORKGROUP + local] = slope;
            if slope != 0.0 {
                for (var k = 0u; k < width; k++) {
                    by_input[k] += slope * mlp[row + k];
                }
            }
        }
        workgroupBarrier();
        for (var k = local; k < TILE * width; k += WORKGROUP) {
            let r = (k / width) * WORKGROUP;
            let column = k % width;
            var sum = 0.0;
            for (var point = 0u; point < WORKGROUP; point++) {
                sum += by_hidden[r + point] * inputs[point * STRIDE + column];
            }
            if sum != 0.0 {
                add_to_mlp_grad(first * width + k, sum);
            }
        }
        if local < 4u * TILE {
            let r = local / 4u;
            let out = local % 4u;
            var sum = 0.0;
            for (var point = 0u; point < WORKGROUP; point++) {
                sum += hidden[r * WORKGROUP + point] * by_logit[point][out];
            }
            if sum != 0.0 {
                add_to_mlp_grad(w2 + out * p.hidden + first + r, sum);
            }
        }
        workgroupBarrier();
    }
    if exists {
        for (var l = 0u; l < p.levels; l++) {
            features[l * p.points + i] = vec2f(by_input[2u * l], by_input[2u * l + 1u]);
        }
    }
}
