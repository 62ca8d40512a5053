// Parameters of the kernels over triangle meshes, and the numbering of pixels.

struct SurfaceParams {
    views: u32,
    vertices: u32,
    triangles: u32,
    width: u32,
    height: u32,
    tiles_x: u32,
    tiles_y: u32,
    cull: u32,
    near: f32,
    peel: u32,
    channels: u32,
    pad: u32,
}

const TILE = 16u;
const LARGEST = 3.4028234e38;

@group(0) @binding(0) var<uniform> p: SurfaceParams;

// Pixels of one picture.
fn picture() -> u32 {
    return p.width * p.height;
}

// The centre of pixel `local` of a picture.
fn center(local: u32) -> vec2f {
    return vec2f(f32(local % p.width) + 0.5, f32(local / p.width) + 0.5);
}
