// One item a pixel: (values, 1) where something is seen, else (background, 0).
#import invocation
#import surface

@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> background: array<f32>;
@group(0) @binding(4) var<storage, read_write> layers: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn surface_compose(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * picture() {
        return;
    }
    let seen = ids[i] != 0u;
    let out = (p.channels + 1u) * i;
    for (var c = 0u; c < p.channels; c++) {
        if seen {
            layers[out + c] = values[p.channels * i + c];
        } else {
            layers[out + c] = background[p.channels * (i / picture()) + c];
        }
    }
    layers[out + p.channels] = select(0.0, 1.0, seen);
}
