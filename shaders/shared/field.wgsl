// The field's parameters, and the corners of a point's cell in one level of the hash grid.

const MAX_LEVELS = 16u;

struct Level {
    vertices: u32,
    offset: u32,
    entries: u32,
    hashed: u32,
}

struct FieldParams {
    points: u32,
    levels: u32,
    active_levels: u32,
    hidden: u32,
    activation: u32,
    keep_features: u32,
    blob_scale: f32,
    blob_radius: f32,
    table: array<Level, MAX_LEVELS>,
}

@group(0) @binding(0) var<uniform> p: FieldParams;

// The cell of a point: its lowest vertex, and where in the cell the point is (0 to 1).
struct Cell {
    low: vec3u,
    part: vec3f,
}

// World coordinates to grid coordinates in [0, 1].
fn unit_coordinates(position: vec3f) -> vec3f {
    return clamp(position * 0.5 + 0.5, vec3f(0.0), vec3f(1.0));
}

fn locate(level: Level, position: vec3f) -> Cell {
    let x = position * f32(level.vertices - 1u);
    let low = vec3u(min(x, vec3f(f32(level.vertices - 2u))));
    return Cell(low, x - vec3f(low));
}

// Trilinear weight of corner 0..8 (bits: x, y, z).
fn corner_weight(cell: Cell, corner: u32) -> f32 {
    let high = (vec3u(corner) & vec3u(1u, 2u, 4u)) != vec3u(0u);
    let w = select(1.0 - cell.part, cell.part, high);
    return w.x * w.y * w.z;
}

// Entry of a corner in the whole grid.
fn corner_entry(level: Level, cell: Cell, corner: u32) -> u32 {
    let v = cell.low + (vec3u(corner, corner >> 1u, corner >> 2u) & vec3u(1u));
    if level.hashed == 0u {
        return level.offset + v.x + level.vertices * (v.y + level.vertices * v.z);
    }
    return level.offset + ((v.x ^ (v.y * 2654435761u) ^ (v.z * 805459861u)) & (level.entries - 1u));
}
