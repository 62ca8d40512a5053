// One item a ray: the index of each sample above the threshold, and its four query points.
#import invocation
#import normal

@group(0) @binding(1) var<storage, read> offsets: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> positions: array<f32>;
@group(0) @binding(4) var<storage, read> normal_offsets: array<u32>;
@group(0) @binding(5) var<storage, read_write> selected: array<u32>;
@group(0) @binding(6) var<storage, read_write> queries: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn normal_points(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let ray = item(group, groups, local);
    if ray >= p.rays {
        return;
    }
    var corners = CORNERS;
    var pick = normal_offsets[ray];
    for (var i = offsets[ray]; i < offsets[ray + 1u]; i++) {
        if weights[i] > p.threshold {
            selected[pick] = i;
            let center = vec3f(positions[3u * i], positions[3u * i + 1u], positions[3u * i + 2u]);
            for (var k = 0u; k < 4u; k++) {
                let query = center + corners[k] * p.epsilon;
                let at = 12u * pick + 3u * k;
                queries[at] = query.x;
                queries[at + 1u] = query.y;
                queries[at + 2u] = query.z;
            }
            pick++;
        }
    }
}
