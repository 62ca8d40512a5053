// One item a pixel: adds the gradients by the attributes and by the pixel's coordinates.
#import atomic_add attributes_grad
#import invocation
#import surface

@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> raster: array<vec4f>;
@group(0) @binding(3) var<storage, read> attributes: array<f32>;
@group(0) @binding(4) var<storage, read> attribute_indices: array<u32>;
@group(0) @binding(5) var<storage, read> values_grad: array<f32>;
@group(0) @binding(6) var<storage, read_write> attributes_grad: array<FloatWord>;
@group(0) @binding(7) var<storage, read_write> raster_grad: array<vec4f>;

@compute @workgroup_size(WORKGROUP)
fn surface_interpolate_backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = item(group, groups, local);
    if i >= p.views * picture() || ids[i] == 0u {
        return;
    }
    let first = 3u * ids[i] - 3u;
    let b = raster[i];
    let at = p.channels
        * vec3u(attribute_indices[first], attribute_indices[first + 1u], attribute_indices[first + 2u]);
    if any(at + p.channels > vec3u(arrayLength(&attributes))) {
        return;
    }
    var by_b = vec3f(0.0);
    for (var c = 0u; c < p.channels; c++) {
        let grad = values_grad[p.channels * i + c];
        add_to_attributes_grad(at.x + c, b.x * grad);
        add_to_attributes_grad(at.y + c, b.y * grad);
        add_to_attributes_grad(at.z + c, b.z * grad);
        by_b += vec3f(attributes[at.x + c], attributes[at.y + c], attributes[at.z + c]) * grad;
    }
    raster_grad[i] += vec4f(by_b, 0.0);
}
