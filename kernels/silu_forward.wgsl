// y = x / (1 + exp(-x))
// One invocation computes four values.
#import index
#import stored
@group(0) @binding(0) var<storage, read> x: array<Stored4>;       // any shape
@group(0) @binding(1) var<storage, read_write> y: array<Stored4>; // as x

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= arrayLength(&y)) { return; }
  let v = vec4f(x[i]);
  y[i] = Stored4(v / (1.0 + exp(-v)));
}
