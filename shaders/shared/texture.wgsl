// Parameters of the texture kernels, and where the levels of the pyramid lie.

struct TextureParams {
    pixels: u32,
    channels: u32,
    width: u32,
    height: u32,
    levels: u32,
    sampling: u32,
    wrap: u32,
    level: u32,
}

@group(0) @binding(0) var<uniform> p: TextureParams;

// Columns and rows of a level.
fn level_size(level: u32) -> vec2u {
    return max(vec2u(p.width >> level, p.height >> level), vec2u(1u));
}

// Where a level begins.
fn level_start(level: u32) -> u32 {
    var texels = 0u;
    for (var l = 0u; l < level; l++) {
        let size = level_size(l);
        texels += size.x * size.y;
    }
    return texels * p.channels;
}
