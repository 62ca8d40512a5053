// Normals by finite differences of the density at the corners of a tetrahedron.

struct NormalParams {
    rays: u32,
    threshold: f32,
    epsilon: f32,
    floor: f32,
}

@group(0) @binding(0) var<uniform> p: NormalParams;

// Sum of the corners' outer products is 4 times the unit matrix; their sum is zero.
const CORNERS = array(vec3f(1.0, -1.0, -1.0), vec3f(-1.0, -1.0, 1.0), vec3f(-1.0, 1.0, -1.0), vec3f(1.0));
