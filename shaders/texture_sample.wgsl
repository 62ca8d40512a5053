// One item a pixel: the texture at its coordinates, zero where nothing is seen.
#import invocation
#import texture_taps

@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> uv: array<vec2f>;
@group(0) @binding(3) var<storage, read> footprint: array<vec4f>;
@group(0) @binding(4) var<storage, read> texels: array<f32>;
@group(0) @binding(5) var<storage, read_write> sampled: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn texture_sample(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.pixels {
        return;
    }
    let out = p.channels * i;
    for (var c = 0u; c < p.channels; c++) {
        sampled[out + c] = 0.0;
    }
    if ids[i] == 0u {
        return;
    }
    let mip = mip_place(footprint[i]);
    for (var l = 0u; l < 2u; l++) {
        let share = select(1.0 - mip.y, mip.y, l == 1u);
        if share == 0.0 {
            continue;
        }
        let taps = taps(u32(mip.x) + l, uv[i]);
        let weights = tap_weights(taps);
        for (var c = 0u; c < p.channels; c++) {
            let t = vec4f(texels[taps.at.x + c], texels[taps.at.y + c], texels[taps.at.z + c], texels[taps.at.w + c]);
            sampled[out + c] += share * dot(t, weights);
        }
    }
}
