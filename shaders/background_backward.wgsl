// One item a ray: adds the gradient of the background's MLP. The 64 rays of a workgroup sum their
// contributions first, so that one atomic addition a weight and workgroup is left.
#import atomic_add background_mlp_grad
#import background
#import invocation

const PIXEL_WORDS = 6u;
const WEIGHTS = HIDDEN * (INPUTS + 3u);

@group(0) @binding(3) var<storage, read> background: array<f32>;
@group(0) @binding(4) var<storage, read> pixels: array<f32>;
@group(0) @binding(5) var<storage, read> pixel_grad: array<f32>;
@group(0) @binding(6) var<storage, read_write> background_mlp_grad: array<FloatWord>;

var<workgroup> inputs: array<f32, INPUTS * WORKGROUP>;
var<workgroup> by_logit: array<vec3f, WORKGROUP>;
var<workgroup> hidden: array<f32, HIDDEN * WORKGROUP>;
var<workgroup> by_hidden: array<f32, HIDDEN * WORKGROUP>;

fn logit_gradient(ray: u32) -> vec3f {
    let at = ray * PIXEL_WORDS;
    let color = vec3f(background[3u * ray], background[3u * ray + 1u], background[3u * ray + 2u]);
    let grad = vec3f(pixel_grad[at], pixel_grad[at + 1u], pixel_grad[at + 2u]);
    return grad * (1.0 - pixels[at + 3u]) * color * (1.0 - color);
}

// Gradient of one weight, summed over the workgroup's rays.
fn weight_gradient(weight: u32) -> f32 {
    var sum = 0.0;
    if weight < HIDDEN * INPUTS {
        let j = (weight / INPUTS) * WORKGROUP;
        let i = (weight % INPUTS) * WORKGROUP;
        for (var ray = 0u; ray < WORKGROUP; ray++) {
            sum += by_hidden[j + ray] * inputs[i + ray];
        }
    } else {
        let out = weight / HIDDEN - INPUTS;
        let j = (weight % HIDDEN) * WORKGROUP;
        for (var ray = 0u; ray < WORKGROUP; ray++) {
            sum += by_logit[ray][out] * hidden[j + ray];
        }
    }
    return sum;
}

@compute @workgroup_size(WORKGROUP)
fn background_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let ray = item(group, groups, local);
    // Threads without a ray take part with zeros: they must reach the barrier.
    var input: array<f32, INPUTS>;
    var grad = vec3f(0.0);
    if ray < p.rays {
        input = harmonics(ray);
        grad = logit_gradient(ray);
    }
    by_logit[local] = grad;
    for (var i = 0u; i < INPUTS; i++) {
        inputs[i * WORKGROUP + local] = input[i];
    }
    for (var j = 0u; j < HIDDEN; j++) {
        let sum = hidden_unit(j, &input);
        hidden[j * WORKGROUP + local] = max(sum, 0.0);
        by_hidden[j * WORKGROUP + local] = select(0.0, dot(output_column(j), grad), sum > 0.0);
    }
    workgroupBarrier();
    for (var weight = local; weight < WEIGHTS; weight += WORKGROUP) {
        let sum = weight_gradient(weight);
        if sum != 0.0 {
            add_to_background_mlp_grad(weight, sum);
        }
    }
}
