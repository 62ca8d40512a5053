// One item a pixel: the values' part of the layers' gradient, where something is seen.
#import invocation
#import surface

@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> layers_grad: array<f32>;
@group(0) @binding(3) var<storage, read_write> values_grad: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn surface_compose_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * picture() {
        return;
    }
    for (var c = 0u; c < p.channels; c++) {
        values_grad[p.channels * i + c] = select(0.0, layers_grad[(p.channels + 1u) * i + c], ids[i] != 0u);
    }
}
