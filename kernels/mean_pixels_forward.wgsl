// y[n,c] = 1/P sum_p x[n,p,c]: global average pooling
// One invocation computes one channel of one image.
#import index
struct Dims { N: u32, P: u32, C: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;       // (N, P, C)
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // (N, C)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.C) { return; }
  let start = i / dims.C * dims.P * dims.C + i % dims.C;
  var sum = 0.0;
  for (var p = 0u; p < dims.P; p++) { sum += x[start + p * dims.C]; }
  y[i] = sum / f32(dims.P);
}
