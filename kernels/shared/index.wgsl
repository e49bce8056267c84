// Indices over a grid folded from x into y: a dimension holds 65,535 workgroups.
fn workgroup_index(workgroup: vec3u, count: vec3u) -> u32 { return workgroup.x + workgroup.y * count.x; }
fn thread_index(thread: vec3u, count: vec3u) -> u32 { return thread.x + thread.y * count.x * 64u; }
