// One item a cell: the decayed maximum of its density.
#import invocation
#import occupancy

@group(0) @binding(1) var<storage, read> field: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> ema: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn occupancy_update(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let cell = item(group, groups, local);
    if cell >= cells() {
        return;
    }
    ema[cell] = max(p.decay * ema[cell], field[cell].x);
}
