// y = max(x, 0)
// One invocation computes four values.
#import index
@group(0) @binding(0) var<storage, read> x: array<vec4f>;       // any shape
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>; // as x

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= arrayLength(&y)) { return; }
  y[i] = max(x[i], vec4f(0.0));
}
