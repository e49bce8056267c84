// y[n,i] = coef[n,a] u[n,i] + sign coef[n,b] v[n,i]: q_sample of given noise, the posterior mean, and x_0 from eps have this form
// One invocation computes one value.
#import index
struct Dims { N: u32, size: u32, K: u32, a: u32, b: u32, sign: f32 }
@group(0) @binding(0) var<storage, read> u: array<f32>;       // (N, size)
@group(0) @binding(1) var<storage, read> v: array<f32>;       // (N, size)
@group(0) @binding(2) var<storage, read> coef: array<f32>;    // (N, K); columns a and b
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (N, size)
@group(0) @binding(4) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.size) { return; }
  let row = i / dims.size * dims.K;
  y[i] = coef[row + dims.a] * u[i] + dims.sign * coef[row + dims.b] * v[i];
}
