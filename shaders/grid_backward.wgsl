// One item a (level, point), level by level: scatters the features' gradient to the eight corners.
#import atomic_add grid_grad
#import field
#import invocation

@group(0) @binding(1) var<storage, read> positions: array<f32>;
@group(0) @binding(2) var<storage, read> features: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> grid_grad: array<FloatWord>;

@compute @workgroup_size(WORKGROUP)
fn grid_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.active_levels * p.points {
        return;
    }
    let grad = features[i];
    if all(grad == vec2f(0.0)) {
        return;
    }
    let level = p.table[i / p.points];
    let point = 3u * (i % p.points);
    let position = vec3f(positions[point], positions[point + 1u], positions[point + 2u]);
    let cell = locate(level, unit_coordinates(position));
    for (var corner = 0u; corner < 8u; corner++) {
        let weight = corner_weight(cell, corner);
        let entry = 2u * corner_entry(level, cell, corner);
        add_to_grid_grad(entry, weight * grad.x);
        add_to_grid_grad(entry + 1u, weight * grad.y);
    }
}
