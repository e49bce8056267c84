// y[r, y_first + j] = x[r, x_first + j] for j < width, 0 for width <= j < y_width (+ y if accumulate is set)
// One invocation copies one row: rows are short and many, and a division per value would cost more than the copy. Pads channels to a multiple of four, or removes that padding.
#import index
#import stored
struct Dims { rows: u32, width: u32, x_stride: u32, x_first: u32, y_stride: u32, y_first: u32, y_width: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> x: array<Stored>;       // (rows, x_stride)
@group(0) @binding(1) var<storage, read_write> y: array<Stored>; // (rows, y_stride)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let r = thread_index(id, count);
  if (r >= dims.rows) { return; }
  for (var j = 0u; j < dims.y_width; j++) {
    var value = 0.0;
    if (j < dims.width) { value = f32(x[r * dims.x_stride + dims.x_first + j]); }
    let at = r * dims.y_stride + dims.y_first + j;
    if (dims.accumulate != 0u) { value += f32(y[at]); }
    y[at] = Stored(value);
  }
}
