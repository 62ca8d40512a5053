// One item a pixel: the nearest triangle of its tile's list (of equally near ones the first), its
// barycentric coordinates and depth; when peeling, the nearest behind `front_raster`.
#import invocation
#import triangle_cover

@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read> clip: array<f32>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read> list: array<u32>;
@group(0) @binding(5) var<storage, read> front_ids: array<u32>;
@group(0) @binding(6) var<storage, read> front_raster: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> ids: array<u32>;
@group(0) @binding(8) var<storage, read_write> raster: array<vec4f>;

@compute @workgroup_size(WORKGROUP)
fn surface_rasterize(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * picture() {
        return;
    }
    let view = i / picture();
    let pixel = center(i % picture());
    let tile = (view * p.tiles_y + u32(pixel.y) / TILE) * p.tiles_x + u32(pixel.x) / TILE;
    var front_id = 1u;
    var front = 0.0;
    if p.peel == 1u {
        front_id = front_ids[i];
        front = front_raster[i].w;
    }
    var best_id = 0u;
    var best = vec4f(0.0);
    let end = select(offsets[tile + 1u], 0u, front_id == 0u);
    for (var at = offsets[tile]; at < end; at++) {
        let id = list[at] + 1u;
        let triangle = corners(view, id - 1u);
        if !triangle.found {
            continue;
        }
        let found = cover(triangle, pixel);
        if found.w == 0.0 || (p.peel == 1u && !(found.w > front || (found.w == front && id > front_id))) {
            continue;
        }
        if best_id == 0u || found.w < best.w || (found.w == best.w && id < best_id) {
            best_id = id;
            best = found;
        }
    }
    ids[i] = best_id;
    raster[i] = best;
}
