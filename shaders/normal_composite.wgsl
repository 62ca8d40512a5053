// One item a ray: weighted sum of the normals, and of the orientation penalty.
#import invocation
#import normal_rays

@group(0) @binding(6) var<storage, read_write> normals: array<vec4f>;

@compute @workgroup_size(WORKGROUP)
fn normal_composite(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let ray = item(group, groups, local);
    if ray >= p.rays {
        return;
    }
    let direction = ray_direction(ray);
    var sum = vec4f(0.0);
    for (var pick = normal_offsets[ray]; pick < normal_offsets[ray + 1u]; pick++) {
        let normal = normal_and_length(pick).xyz;
        let away = max(dot(normal, direction), 0.0);
        sum += weights[selected[pick]] * vec4f(normal, away * away);
    }
    normals[ray] = sum;
}
