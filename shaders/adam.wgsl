// One item a parameter: Adam (Kingma and Ba, 2015), then the gradient is zero for the next step.
#import invocation

struct AdamParams {
    n: u32,
    rate: f32,
    beta1: f32,
    beta2: f32,
    v_scale: f32,
    eps: f32,
    pad: vec2u,
}

@group(0) @binding(0) var<uniform> p: AdamParams;
@group(0) @binding(1) var<storage, read_write> params: array<f32>;
@group(0) @binding(2) var<storage, read_write> grad: array<f32>;
@group(0) @binding(3) var<storage, read_write> m: array<f32>;
@group(0) @binding(4) var<storage, read_write> v: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn adam(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.n {
        return;
    }
    let g = grad[i];
    let m_new = p.beta1 * m[i] + (1.0 - p.beta1) * g;
    let v_new = p.beta2 * v[i] + (1.0 - p.beta2) * g * g;
    m[i] = m_new;
    v[i] = v_new;
    params[i] -= p.rate * m_new / (sqrt(v_new) * p.v_scale + p.eps);
    grad[i] = 0.0;
}
