// One item a texel of the level before `p.level`: adds its share of the coarser texel's gradient.
#import invocation
#import texture

@group(0) @binding(1) var<storage, read_write> texels_grad: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn texture_mip_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    let fine = level_size(p.level - 1u);
    let coarse = level_size(p.level);
    if i >= fine.x * fine.y {
        return;
    }
    let scale = fine / coarse;
    let parent = i / fine.x / scale.y * coarse.x + i % fine.x / scale.x;
    let source = level_start(p.level) + p.channels * parent;
    let to = level_start(p.level - 1u) + p.channels * i;
    for (var c = 0u; c < p.channels; c++) {
        texels_grad[to + c] += texels_grad[source + c] / f32(scale.x * scale.y);
    }
}
