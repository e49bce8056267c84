// y = value
// One invocation writes four values.
#import index
struct Dims { value: f32 }
@group(0) @binding(0) var<storage, read_write> y: array<vec4f>; // any shape
@group(0) @binding(1) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i < arrayLength(&y)) { y[i] = vec4f(dims.value); }
}
