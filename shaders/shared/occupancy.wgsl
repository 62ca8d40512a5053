struct OccupancyParams {
    resolution: u32,
    step: u32,
    seed: vec2u,
    decay: f32,
    threshold: f32,
    pad: vec2u,
}

@group(0) @binding(0) var<uniform> p: OccupancyParams;

fn cells() -> u32 {
    return p.resolution * p.resolution * p.resolution;
}
