// One item a ray: positions and intervals of the samples in the mask, from the ray's offset on.
#import invocation
#import march

@group(0) @binding(1) var<storage, read> rays: array<f32>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read_write> positions: array<f32>;
@group(0) @binding(5) var<storage, read_write> intervals: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn march_write(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.rays {
        return;
    }
    let at = 8u * i;
    let origin = vec3f(rays[at], rays[at + 1u], rays[at + 2u]);
    let direction = vec3f(rays[at + 4u], rays[at + 5u], rays[at + 6u]);
    let ray = Ray(origin, rays[at + 3u], direction, rays[at + 7u]);
    let word = jitter_word(p.first_ray + i);
    var out = offsets[i];
    for (var w = 0u; w < p.mask_words; w++) {
        var left = mask[i * p.mask_words + w];
        while left != 0u {
            let sample = bin_sample(ray, word, 32u * w + countTrailingZeros(left));
            left &= left - 1u;
            let position = origin + direction * sample.x;
            positions[3u * out] = position.x;
            positions[3u * out + 1u] = position.y;
            positions[3u * out + 2u] = position.z;
            intervals[2u * out] = sample.x;
            intervals[2u * out + 1u] = sample.y;
            out++;
        }
    }
}
