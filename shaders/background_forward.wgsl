// One item a ray: the background's colour in its direction.
#import background
#import invocation

@group(0) @binding(3) var<storage, read_write> background: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn background_forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let ray = item(group, groups, local);
    if ray >= p.rays {
        return;
    }
    var input = harmonics(ray);
    var logits = vec3f(0.0);
    for (var j = 0u; j < HIDDEN; j++) {
        logits += output_column(j) * max(hidden_unit(j, &input), 0.0);
    }
    let color = 1.0 / (1.0 + exp(min(-logits, vec3f(88.0))));
    background[3u * ray] = color.x;
    background[3u * ray + 1u] = color.y;
    background[3u * ray + 2u] = color.z;
}
