// dx = dy s (1 + x (1 - s)), s = 1 / (1 + exp(-x))
// One invocation computes four values.
#import index
#import stored
struct Dims { accumulate: u32 }
@group(0) @binding(0) var<storage, read> x: array<Stored4>;        // any shape
@group(0) @binding(1) var<storage, read> dy: array<Stored4>;       // as x
@group(0) @binding(2) var<storage, read_write> dx: array<Stored4>; // as x
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= arrayLength(&dx)) { return; }
  let v = vec4f(x[i]);
  let s = 1.0 / (1.0 + exp(-v));
  var d = vec4f(dy[i]) * s * (1.0 + v * (1.0 - s));
  if (dims.accumulate != 0u) { d += vec4f(dx[i]); }
  dx[i] = Stored4(d);
}
