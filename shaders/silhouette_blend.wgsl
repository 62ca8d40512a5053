// One item a pixel: blends it with its four neighbours.
#import blend
#import invocation

@group(0) @binding(1) var<storage, read> alphas: array<f32>;
@group(0) @binding(2) var<storage, read> layers: array<f32>;
@group(0) @binding(3) var<storage, read_write> blended: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn silhouette_blend(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * picture() {
        return;
    }
    for (var c = 0u; c < p.channels; c++) {
        let own = layers[p.channels * i + c];
        var sum = own;
        for (var k = 0u; k < 4u; k++) {
            let takes = shares(i, k).x;
            if takes > 0.0 {
                sum += takes * (layers[p.channels * other_pixel(i, k) + c] - own);
            }
        }
        blended[p.channels * i + c] = sum;
    }
}
