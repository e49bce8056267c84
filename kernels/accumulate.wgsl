// y = y + x, or y = x where `copy` is set
// One invocation adds four values.
#import index
struct Dims { copy: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;       // any shape
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>; // as x
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= arrayLength(&y)) { return; }
  y[i] = select(y[i], vec4f(0.0), dims.copy != 0u) + x[i];
}
