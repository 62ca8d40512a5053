// One item a cell: a random point inside of it.
#import invocation
#import occupancy
#import rng

@group(0) @binding(1) var<storage, read_write> positions: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn occupancy_points(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let cell = item(group, groups, local);
    if cell >= cells() {
        return;
    }
    let words = philox(vec4u(cell, 0u, p.step, STREAM_OCCUPANCY), p.seed);
    let res = p.resolution;
    let corner = vec3u(cell % res, cell / res % res, cell / (res * res));
    let u = vec3f(unit(words.x), unit(words.y), unit(words.z));
    let position = (vec3f(corner) + u) * (2.0 / f32(res)) - 1.0;
    positions[3u * cell] = position.x;
    positions[3u * cell + 1u] = position.y;
    positions[3u * cell + 2u] = position.z;
}
