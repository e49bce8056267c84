// y = x as float16 (+ y where accumulate is set)
// One invocation casts four values. The gradient of cast_f32.
enable f16;
#import index
struct Dims { accumulate: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;           // any shape
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f16>>; // as x
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= min(arrayLength(&x), arrayLength(&y))) { return; }
  var value = x[i];
  if (dims.accumulate != 0u) { value += vec4f(y[i]); }
  y[i] = vec4<f16>(value);
}
