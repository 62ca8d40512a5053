// One item a pixel: attributes of the vertices at the pixel, zero where nothing is seen.
#import invocation
#import surface

@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> raster: array<vec4f>;
@group(0) @binding(3) var<storage, read> attributes: array<f32>;
@group(0) @binding(4) var<storage, read> attribute_indices: array<u32>;
@group(0) @binding(5) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn surface_interpolate(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * picture() {
        return;
    }
    let first = 3u * max(ids[i], 1u) - 3u;
    let b = raster[i];
    let at = p.channels
        * vec3u(attribute_indices[first], attribute_indices[first + 1u], attribute_indices[first + 2u]);
    let seen = ids[i] != 0u && all(at + p.channels <= vec3u(arrayLength(&attributes)));
    for (var c = 0u; c < p.channels; c++) {
        var value = 0.0;
        if seen {
            value = b.x * attributes[at.x + c] + b.y * attributes[at.y + c] + b.z * attributes[at.z + c];
        }
        values[p.channels * i + c] = value;
    }
}
