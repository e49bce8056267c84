// dx[n,c] = dloss / N (exp(x[n,c]) / sum_k exp(x[n,k]) - [c = label[n]]), for the loss mean_n each[n] of cross_entropy_forward
// One invocation computes one row.
#import index
struct Dims { N: u32, C: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;        // (N, C)
@group(0) @binding(1) var<storage, read> label: array<u32>;    // (N)
@group(0) @binding(2) var<storage, read> dloss: array<f32>;    // (1)
@group(0) @binding(3) var<storage, read_write> dx: array<f32>; // (N, C)
@group(0) @binding(4) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let n = thread_index(id, count);
  if (n >= dims.N) { return; }
  let start = n * dims.C;
  var top = x[start];
  for (var c = 1u; c < dims.C; c++) { top = max(top, x[start + c]); }
  var sum = 0.0;
  for (var c = 0u; c < dims.C; c++) { sum += exp(x[start + c] - top); }
  let scale = dloss[0] / f32(dims.N);
  for (var c = 0u; c < dims.C; c++) {
    var d = scale * (exp(x[start + c] - top) / sum - select(0.0, 1.0, c == label[n]));
    if (dims.accumulate != 0u) { d += dx[start + c]; }
    dx[start + c] = d;
  }
}
