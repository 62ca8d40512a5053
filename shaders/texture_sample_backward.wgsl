// One item a pixel: adds the gradient by the texels that it read, and writes that by its coordinates.
#import atomic_add texels_grad
#import invocation
#import texture_taps

@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> uv: array<vec2f>;
@group(0) @binding(3) var<storage, read> footprint: array<vec4f>;
@group(0) @binding(4) var<storage, read> texels: array<f32>;
@group(0) @binding(5) var<storage, read> sampled_grad: array<f32>;
@group(0) @binding(6) var<storage, read_write> texels_grad: array<FloatWord>;
@group(0) @binding(7) var<storage, read_write> uv_grad: array<vec2f>;

@compute @workgroup_size(WORKGROUP)
fn texture_sample_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.pixels {
        return;
    }
    var by_uv = vec2f(0.0);
    let mip = mip_place(footprint[i]);
    for (var l = 0u; l < 2u; l++) {
        let share = select(1.0 - mip.y, mip.y, l == 1u);
        if ids[i] == 0u || share == 0.0 {
            continue;
        }
        let level = u32(mip.x) + l;
        let taps = taps(level, uv[i]);
        let weights = tap_weights(taps);
        let size = vec2f(level_size(level));
        for (var c = 0u; c < p.channels; c++) {
            let grad = share * sampled_grad[p.channels * i + c];
            let t = vec4f(texels[taps.at.x + c], texels[taps.at.y + c], texels[taps.at.z + c], texels[taps.at.w + c]);
            add_to_texels_grad(taps.at.x + c, weights.x * grad);
            add_to_texels_grad(taps.at.y + c, weights.y * grad);
            add_to_texels_grad(taps.at.z + c, weights.z * grad);
            add_to_texels_grad(taps.at.w + c, weights.w * grad);
            if p.sampling > 0u {
                let by_x = mix(t.y - t.x, t.w - t.z, taps.f.y);
                let by_y = mix(t.z - t.x, t.w - t.y, taps.f.x);
                by_uv += grad * size * vec2f(by_x, by_y);
            }
        }
    }
    uv_grad[i] = by_uv;
}
