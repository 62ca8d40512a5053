// One item a word of 32 cells: which of them are above the threshold.
#import invocation
#import occupancy

@group(0) @binding(1) var<storage, read> ema: array<f32>;
@group(0) @binding(2) var<storage, read_write> occupancy: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn occupancy_bits(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let word = item(group, groups, local);
    if word >= cells() / 32u {
        return;
    }
    var bits = 0u;
    for (var i = 0u; i < 32u; i++) {
        bits |= u32(ema[32u * word + i] > p.threshold) << i;
    }
    occupancy[word] = bits;
}
