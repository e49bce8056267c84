// dx[n] = dloss weight[n] coef[n,column] / N: the gradient of one term of objective_forward
// One invocation per image.
#import index
struct Dims { N: u32, K: u32, column: u32, scaled: u32, weighted: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> dloss: array<f32>;    // (1)
@group(0) @binding(1) var<storage, read> coef: array<f32>;     // (N, K) where `scaled`, else anything
@group(0) @binding(2) var<storage, read> weight: array<f32>;   // (N) where `weighted`, else anything
@group(0) @binding(3) var<storage, read_write> dx: array<f32>; // (N)
@group(0) @binding(4) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let n = thread_index(id, count);
  if (n >= dims.N) { return; }
  var d = dloss[0] / f32(dims.N);
  if (dims.scaled != 0u) { d *= coef[n * dims.K + dims.column]; }
  if (dims.weighted != 0u) { d *= weight[n]; }
  if (dims.accumulate != 0u) { d += dx[n]; }
  dx[n] = d;
}
