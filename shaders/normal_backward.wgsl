// One item a ray: gradient by the queried densities, and by the weights of the selected samples
// (without the orientation penalty's part, which is cut). `weight_grad` arrives as zeros.
#import invocation
#import normal_rays

@group(0) @binding(6) var<storage, read> normals_grad: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> query_field_grad: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> weight_grad: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn normal_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let ray = item(group, groups, local);
    if ray >= p.rays {
        return;
    }
    var corners = CORNERS;
    let direction = ray_direction(ray);
    let grad = normals_grad[ray];
    for (var pick = normal_offsets[ray]; pick < normal_offsets[ray + 1u]; pick++) {
        let found = normal_and_length(pick);
        let normal = found.xyz;
        let sample = selected[pick];
        let away = max(dot(normal, direction), 0.0);
        let by_normal = (grad.xyz + direction * (2.0 * away * grad.w)) * weights[sample];
        // n = −g/s, s = √(|g|² + floor²): ∂n/∂g = −(1 − n nᵀ)/s.
        let by_gradient = (normal * dot(normal, by_normal) - by_normal) / found.w;
        weight_grad[sample] = dot(grad.xyz, normal);
        for (var k = 0u; k < 4u; k++) {
            let by_density = dot(corners[k], by_gradient) / (4.0 * p.epsilon);
            query_field_grad[4u * pick + k] = vec4f(by_density, 0.0, 0.0, 0.0);
        }
    }
}
