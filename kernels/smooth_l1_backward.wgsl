// dpred[n,i] = deach[n] l'(pred[n,i] - goal[n,i]) / (P C) in the first C of M channels, 0 in the rest; l'(d) = d / delta if |d| < delta, else the sign of d
// One invocation computes all channels of pixel id.x of image id.y, then of the pixels whole grids further on.
struct Dims { N: u32, P: u32, C: u32, M: u32, delta: f32, accumulate: u32 }
#import error_gradient
@group(0) @binding(0) var<storage, read> pred: array<f32>;        // (N, P, M)
@group(0) @binding(1) var<storage, read> goal: array<f32>;        // (N, P, C)
@group(0) @binding(2) var<storage, read> deach: array<f32>;       // (N)
@group(0) @binding(3) var<storage, read_write> dpred: array<f32>; // (N, P, M)
@group(0) @binding(4) var<uniform> dims: Dims;

fn slope_of(d: f32) -> f32 {
  if (abs(d) < dims.delta) { return d / dims.delta; }
  return sign(d);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  for (var n = id.y; n < dims.N; n += count.y) { error_gradient(n, id.x, 64u * count.x); }
}
