// y[r, y_first + j] = x[r, x_first + j] for j < width, 0 for width <= j < y_width (+ y where accumulate is set)
// One invocation copies one value: pads channels to a multiple of four, or cuts them back.
#import index
struct Dims { rows: u32, width: u32, x_stride: u32, x_first: u32, y_stride: u32, y_first: u32, y_width: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;       // (rows, x_stride)
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // (rows, y_stride)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let r = i / dims.y_width;
  let j = i % dims.y_width;
  if (r >= dims.rows) { return; }
  var value = 0.0;
  if (j < dims.width) { value = x[r * dims.x_stride + dims.x_first + j]; }
  let at = r * dims.y_stride + dims.y_first + j;
  if (dims.accumulate != 0u) { value += y[at]; }
  y[at] = value;
}
