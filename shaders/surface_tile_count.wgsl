// One item a (view, triangle): adds one to the count of each tile that it may touch.
#import invocation
#import tiles

@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read> clip: array<f32>;
@group(0) @binding(3) var<storage, read_write> counts: array<atomic<u32>>;

@compute @workgroup_size(WORKGROUP)
fn surface_tile_count(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * p.triangles {
        return;
    }
    let view = i / p.triangles;
    let triangle = corners(view, i % p.triangles);
    let range = tile_range(triangle);
    let many = (range.y - range.x + 1) * (range.w - range.z + 1) > 4;
    for (var y = range.z; y <= range.w; y++) {
        for (var x = range.x; x <= range.y; x++) {
            if !many || touches(triangle, x, y) {
                atomicAdd(&counts[(view * p.tiles_y + u32(y)) * p.tiles_x + u32(x)], 1u);
            }
        }
    }
}
