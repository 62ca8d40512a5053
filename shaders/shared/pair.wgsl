// Pairs of neighbouring pixels: axis 0 to the right, axis 1 below.
#import surface

const SECOND_OWNS = 0x80000000u;

fn has_neighbour(here: u32, axis: u32) -> bool {
    return select(here % p.width + 1u < p.width, here / p.width + 1u < p.height, axis == 1u);
}

fn step_along(axis: u32) -> u32 {
    return select(1u, p.width, axis == 1u);
}

// (along the axis, across it).
fn turned(v: vec2f, axis: u32) -> vec2f {
    return select(v, v.yx, axis == 1u);
}
