// Workgroups are spread over two dimensions because one holds at most 65,535 of them.

fn workgroup_index(id: vec3u, count: vec3u) -> u32 {
    return id.x + id.y * count.x;
}
