// coef[n,k] = table[t[n],k]: `extract` of DDPM's code for all columns of a schedule at once
// One invocation gathers one coefficient. Each image has its own t.
#import index
struct Dims { N: u32, K: u32, T: u32 }
@group(0) @binding(0) var<storage, read> table: array<f32>;      // (T, K)
@group(0) @binding(1) var<storage, read> t: array<u32>;          // (N)
@group(0) @binding(2) var<storage, read_write> coef: array<f32>; // (N, K)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.K) { return; }
  coef[i] = table[min(t[i / dims.K], dims.T - 1u) * dims.K + i % dims.K];
}
