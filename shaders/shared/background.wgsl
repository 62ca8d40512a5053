// The background's MLP: spherical harmonics of the direction, one hidden ReLU layer, sigmoid.

const HIDDEN = 16u;
const INPUTS = 9u;

struct BackgroundParams {
    rays: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: BackgroundParams;
@group(0) @binding(1) var<storage, read> rays: array<f32>;
@group(0) @binding(2) var<storage, read> background_mlp: array<f32>;

// Real spherical harmonics of degree 0, 1, 2 (orthonormal) of a ray's direction.
fn harmonics(ray: u32) -> array<f32, INPUTS> {
    let x = rays[8u * ray + 4u];
    let y = rays[8u * ray + 5u];
    let z = rays[8u * ray + 6u];
    return array<f32, INPUTS>(
        0.2820948,
        0.4886025 * y,
        0.4886025 * z,
        0.4886025 * x,
        1.0925484 * x * y,
        1.0925484 * y * z,
        0.31539157 * (3.0 * z * z - 1.0),
        1.0925484 * x * z,
        0.5462742 * (x * x - y * y),
    );
}

// One hidden unit before its ReLU.
fn hidden_unit(j: u32, input: ptr<function, array<f32, INPUTS>>) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < INPUTS; i++) {
        sum += background_mlp[j * INPUTS + i] * (*input)[i];
    }
    return sum;
}

// Weights of hidden unit j in the three outputs.
fn output_column(j: u32) -> vec3f {
    let at = HIDDEN * INPUTS + j;
    return vec3f(background_mlp[at], background_mlp[at + HIDDEN], background_mlp[at + 2u * HIDDEN]);
}
