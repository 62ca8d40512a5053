// One item a vertex: adds the sum over the views of its screen positions' gradients.
#import invocation
#import surface

@group(0) @binding(1) var<storage, read> projections: array<vec4f>;
@group(0) @binding(2) var<storage, read> clip_grad: array<f32>;
@group(0) @binding(3) var<storage, read_write> positions_grad: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn surface_transform_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.vertices {
        return;
    }
    var sum = vec3f(positions_grad[3u * i], positions_grad[3u * i + 1u], positions_grad[3u * i + 2u]);
    for (var view = 0u; view < p.views; view++) {
        for (var r = 0u; r < 3u; r++) {
            sum += projections[3u * view + r].xyz * clip_grad[3u * (view * p.vertices + i) + r];
        }
    }
    positions_grad[3u * i] = sum.x;
    positions_grad[3u * i + 1u] = sum.y;
    positions_grad[3u * i + 2u] = sum.z;
}
