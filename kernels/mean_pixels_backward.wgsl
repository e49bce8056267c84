// dx[n,p,c] = dy[n,c] / P
// One invocation computes one value.
#import index
struct Dims { N: u32, P: u32, C: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> dy: array<f32>;       // (N, C)
@group(0) @binding(1) var<storage, read_write> dx: array<f32>; // (N, P, C)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.P * dims.C) { return; }
  var d = dy[i / (dims.P * dims.C) * dims.C + i % dims.C] / f32(dims.P);
  if (dims.accumulate != 0u) { d += dx[i]; }
  dx[i] = d;
}
