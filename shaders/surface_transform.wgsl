// One item a (view, vertex): position to homogeneous screen position.
#import invocation
#import surface

@group(0) @binding(1) var<storage, read> projections: array<vec4f>;
@group(0) @binding(2) var<storage, read> positions: array<f32>;
@group(0) @binding(3) var<storage, read_write> clip: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn surface_transform(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * p.vertices {
        return;
    }
    let at = 3u * (i % p.vertices);
    for (var r = 0u; r < 3u; r++) {
        let row = projections[3u * (i / p.vertices) + r];
        clip[3u * i + r] = row.x * positions[at] + row.y * positions[at + 1u] + row.z * positions[at + 2u] + row.w;
    }
}
