// y = x as float32 (+ y if accumulate is set)
// One invocation casts four values. The gradient of cast_f16.
enable f16;
#import index
struct Dims { size: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4<f16>>;       // (size)
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;   // (size)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i * 4u >= dims.size) { return; }
  var value = vec4f(x[i]);
  if (dims.accumulate != 0u) { value += y[i]; }
  y[i] = value;
}
