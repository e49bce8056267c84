// y[n,c] = table[ids[n],c]
// One invocation copies one value. An id past the end reads the last row.
#import index
struct Dims { N: u32, K: u32, C: u32 }
@group(0) @binding(0) var<storage, read> table: array<f32>;   // (K, C)
@group(0) @binding(1) var<storage, read> ids: array<u32>;     // (N)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (N, C)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.C) { return; }
  y[i] = table[min(ids[i / dims.C], dims.K - 1u) * dims.C + i % dims.C];
}
