// y[n,c] = sum_p x[n,p,c]: the gradient of what was added per image and channel; with N = 1, of a bias
// One invocation sums four channels of one image, in order. C is a multiple of 4.
#import index
struct Dims { N: u32, P: u32, C: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;       // (N, P, C)
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>; // (N, C)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let C4 = dims.C / 4u;
  if (i >= dims.N * C4) { return; }
  let start = i / C4 * dims.P * C4 + i % C4;
  var sum = vec4f(0.0);
  for (var p = 0u; p < dims.P; p++) { sum += x[start + p * C4]; }
  if (dims.accumulate != 0u) { sum += y[i]; }
  y[i] = sum;
}
