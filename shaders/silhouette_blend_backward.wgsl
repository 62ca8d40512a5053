// One item a pixel: the blend's gradient by its input.
#import blend
#import invocation

@group(0) @binding(1) var<storage, read> alphas: array<f32>;
@group(0) @binding(2) var<storage, read> blended_grad: array<f32>;
@group(0) @binding(3) var<storage, read_write> layers_grad: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn silhouette_blend_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * picture() {
        return;
    }
    for (var c = 0u; c < p.channels; c++) {
        let own = blended_grad[p.channels * i + c];
        var sum = own;
        for (var k = 0u; k < 4u; k++) {
            let share = shares(i, k);
            if share.x > 0.0 {
                sum -= share.x * own;
            } else if share.y > 0.0 {
                sum += share.y * blended_grad[p.channels * other_pixel(i, k) + c];
            }
        }
        layers_grad[p.channels * i + c] = sum;
    }
}
