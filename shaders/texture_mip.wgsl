// One item a texel of level `p.level`: the mean of the texels under it.
#import invocation
#import texture

@group(0) @binding(1) var<storage, read_write> texels: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn texture_mip(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    let fine = level_size(p.level - 1u);
    let coarse = level_size(p.level);
    if i >= coarse.x * coarse.y {
        return;
    }
    let scale = fine / coarse;
    let first = vec2u(i % coarse.x, i / coarse.x) * scale;
    let source = level_start(p.level - 1u);
    let to = level_start(p.level);
    for (var c = 0u; c < p.channels; c++) {
        var sum = 0.0;
        for (var y = 0u; y < scale.y; y++) {
            for (var x = 0u; x < scale.x; x++) {
                sum += texels[source + p.channels * ((first.y + y) * fine.x + first.x + x) + c];
            }
        }
        texels[to + p.channels * i + c] = sum / f32(scale.x * scale.y);
    }
}
