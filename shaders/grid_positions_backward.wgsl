// One item a point: the gradient of its features by its position, through the trilinear weights.
#import field
#import invocation

@group(0) @binding(1) var<storage, read> positions: array<f32>;
@group(0) @binding(2) var<storage, read> grid: array<vec2f>;
@group(0) @binding(3) var<storage, read> features: array<vec2f>;
@group(0) @binding(4) var<storage, read_write> positions_grad: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn grid_positions_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.points {
        return;
    }
    let unit = unit_coordinates(vec3f(positions[3u * i], positions[3u * i + 1u], positions[3u * i + 2u]));
    var sum = vec3f(0.0);
    for (var l = 0u; l < p.active_levels; l++) {
        let level = p.table[l];
        let cell = locate(level, unit);
        let grad = features[l * p.points + i];
        var by = vec3f(0.0);
        for (var corner = 0u; corner < 8u; corner++) {
            let high = (vec3u(corner) & vec3u(1u, 2u, 4u)) != vec3u(0u);
            let w = select(1.0 - cell.part, cell.part, high);
            let sign = select(vec3f(-1.0), vec3f(1.0), high);
            by += sign * w.yzx * w.zxy * dot(grad, grid[corner_entry(level, cell, corner)]);
        }
        sum += by * (0.5 * f32(level.vertices - 1u));
    }
    // Beyond the box the coordinates stand still.
    sum = select(vec3f(0.0), sum, (unit > vec3f(0.0)) & (unit < vec3f(1.0)));
    positions_grad[3u * i] = sum.x;
    positions_grad[3u * i + 1u] = sum.y;
    positions_grad[3u * i + 2u] = sum.z;
}
