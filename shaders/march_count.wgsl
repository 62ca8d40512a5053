// One item a ray: the ray through the pixel's centre, its entry and exit of the box, the bins whose
// samples lie in occupied cells, and their number.
#import invocation
#import march

const CAMERA_WORDS = 20u;

@group(0) @binding(1) var<storage, read> cameras: array<f32>;
@group(0) @binding(2) var<storage, read> occupancy: array<u32>;
@group(0) @binding(3) var<storage, read_write> rays: array<f32>;
@group(0) @binding(4) var<storage, read_write> mask: array<u32>;
@group(0) @binding(5) var<storage, read_write> counts: array<u32>;

fn camera_column(base: u32, i: u32) -> vec3f {
    let at = base + 4u * i;
    return vec3f(cameras[at], cameras[at + 1u], cameras[at + 2u]);
}

fn pixel_ray(number: u32) -> Ray {
    let size = vec2f(f32(p.width), f32(p.height));
    let pixel = number % (p.width * p.height);
    let base = number / (p.width * p.height) * CAMERA_WORDS;
    let tangent = cameras[base + 16u];
    let x = f32(pixel % p.width) + 0.5;
    let y = f32(pixel / p.width) + 0.5;
    let px = (2.0 * x / size.x - 1.0) * tangent * size.x / size.y;
    let py = (1.0 - 2.0 * y / size.y) * tangent;
    let toward = camera_column(base, 0u) * px + camera_column(base, 1u) * py - camera_column(base, 2u);
    var ray = Ray(camera_column(base, 3u), p.near, normalize(toward), 3.4028234e38);
    for (var axis = 0u; axis < 3u; axis++) {
        // A ray along a face of the box would otherwise divide 0 by 0.
        let d = select(ray.direction[axis], 1e-9, abs(ray.direction[axis]) < 1e-9);
        let a = (-p.half_extent - ray.origin[axis]) / d;
        let b = (p.half_extent - ray.origin[axis]) / d;
        ray.near = max(ray.near, min(a, b));
        ray.far = min(ray.far, max(a, b));
    }
    return ray;
}

fn is_occupied(position: vec3f) -> bool {
    let scale = 0.5 * f32(p.resolution);
    let last = vec3f(f32(p.resolution - 1u));
    let cell = vec3u(clamp((position + 1.0) * scale, vec3f(0.0), last));
    let index = cell.x + p.resolution * (cell.y + p.resolution * cell.z);
    return ((occupancy[index / 32u] >> (index % 32u)) & 1u) == 1u;
}

@compute @workgroup_size(WORKGROUP)
fn march_count(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.rays {
        return;
    }
    let number = p.first_ray + i;
    let ray = pixel_ray(number);
    rays[8u * i] = ray.origin.x;
    rays[8u * i + 1u] = ray.origin.y;
    rays[8u * i + 2u] = ray.origin.z;
    rays[8u * i + 3u] = ray.near;
    rays[8u * i + 4u] = ray.direction.x;
    rays[8u * i + 5u] = ray.direction.y;
    rays[8u * i + 6u] = ray.direction.z;
    rays[8u * i + 7u] = ray.far;

    // Negative for a ray that misses the box.
    let length = max(ceil((ray.far - ray.near) / p.step_size), 0.0);
    let bins = min(u32(min(length, 65536.0)), p.bins);
    let word = jitter_word(number);
    var count = 0u;
    for (var w = 0u; w < p.mask_words; w++) {
        var bits = 0u;
        let end = min(bins, 32u * (w + 1u));
        for (var bin = 32u * w; bin < end; bin++) {
            if is_occupied(ray.origin + ray.direction * bin_sample(ray, word, bin).x) {
                bits |= 1u << (bin & 31u);
            }
        }
        mask[i * p.mask_words + w] = bits;
        count += countOneBits(bits);
    }
    counts[i] = count;
}
