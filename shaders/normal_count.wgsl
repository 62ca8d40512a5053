// One item a ray: how many of its samples have a weight above the threshold.
#import invocation
#import normal

@group(0) @binding(1) var<storage, read> offsets: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> counts: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn normal_count(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let ray = item(group, groups, local);
    if ray >= p.rays {
        return;
    }
    var count = 0u;
    for (var i = offsets[ray]; i < offsets[ray + 1u]; i++) {
        count += u32(weights[i] > p.threshold);
    }
    counts[ray] = count;
}
