// log_variance = c + d v, variance = exp(log_variance), v the second half of the network's channels (Improved DDPM, eq. 15)
// One invocation computes one value.
#import index
struct Dims { N: u32, size: u32, K: u32, C: u32, c: u32, d: u32 }
@group(0) @binding(0) var<storage, read> output: array<f32>;             // (N, size / C, 2 C)
@group(0) @binding(1) var<storage, read> coef: array<f32>;               // (N, K); columns c and d
@group(0) @binding(2) var<storage, read_write> variance: array<f32>;     // (N, size)
@group(0) @binding(3) var<storage, read_write> log_variance: array<f32>; // (N, size)
@group(0) @binding(4) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.size) { return; }
  let row = i / dims.size * dims.K;
  let log_value = coef[row + dims.c] + coef[row + dims.d] * output[i / dims.C * 2u * dims.C + dims.C + i % dims.C];
  log_variance[i] = log_value;
  variance[i] = exp(log_value);
}
