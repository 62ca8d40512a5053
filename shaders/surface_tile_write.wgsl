// One item a (view, triangle): enters it in the list of each tile that it may touch, in any order.
#import invocation
#import tiles

@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read> clip: array<f32>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read_write> cursors: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read_write> list: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn surface_tile_write(
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
                let tile = (view * p.tiles_y + u32(y)) * p.tiles_x + u32(x);
                list[offsets[tile] + atomicAdd(&cursors[tile], 1u)] = i % p.triangles;
            }
        }
    }
}
