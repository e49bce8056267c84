// y = y + x, or y = x where `copy` is set
// One invocation adds four values.
#import index
#import stored
struct Dims { copy: u32 }
@group(0) @binding(0) var<storage, read> x: array<Stored4>;       // any shape
@group(0) @binding(1) var<storage, read_write> y: array<Stored4>; // as x
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= arrayLength(&y)) { return; }
  y[i] = Stored4(select(vec4f(y[i]), vec4f(0.0), dims.copy != 0u) + vec4f(x[i]));
}
