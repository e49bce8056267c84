// each[n] = mean_i l(pred[n,i] - goal[n,i]), l(d) = d^2 / (2 delta) if |d| < delta, else |d| - delta / 2; delta = 0 is the absolute error (Girshick, 2015)
// One workgroup sums one image's error over the first C of pred's M channels; the rest is for the variance.
#import index
struct Dims { N: u32, P: u32, C: u32, M: u32, delta: f32 }
#import mean_error
@group(0) @binding(0) var<storage, read> pred: array<f32>;       // (N, P, M)
@group(0) @binding(1) var<storage, read> goal: array<f32>;       // (N, P, C)
@group(0) @binding(2) var<storage, read_write> each: array<f32>; // (N)
@group(0) @binding(3) var<uniform> dims: Dims;

fn error_of(d: f32) -> f32 {
  let size = abs(d);
  if (size < dims.delta) { return 0.5 * d * d / dims.delta; }
  return size - 0.5 * dims.delta;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32) {
  let n = workgroup_index(workgroup, count);
  if (n >= dims.N) { return; }
  let mean = mean_error(n, li);
  if (li == 0u) { each[n] = mean; }
}
