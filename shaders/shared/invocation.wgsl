// Numbering of invocations. Workgroups are spread over two dimensions, because one dimension holds
// at most 65,535 of them; the last row may be too long, so that every kernel guards its index.

const WORKGROUP = 64u;

fn item(group: vec3u, groups: vec3u, local: u32) -> u32 {
    return (group.x + group.y * groups.x) * WORKGROUP + local;
}
