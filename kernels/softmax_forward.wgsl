// y[r,i] = exp(x[r,i] - max_j x[r,j]) / sum_j exp(x[r,j] - max_j x[r,j])
// One invocation does one row, in place of a workgroup: rows are short (T <= 256) and many.
#import index
#import stored
struct Dims { rows: u32, size: u32, ld: u32 }
@group(0) @binding(0) var<storage, read> x: array<Stored>;       // (rows, ld), of which `size` count
@group(0) @binding(1) var<storage, read_write> y: array<Stored>; // (rows, ld), of which `size` count
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let r = thread_index(id, count);
  if (r >= dims.rows) { return; }
  let start = r * dims.ld;
  var top = f32(x[start]);
  for (var i = 1u; i < dims.size; i++) { top = max(top, f32(x[start + i])); }
  var sum = 0.0;
  for (var i = 0u; i < dims.size; i++) { sum += exp(f32(x[start + i]) - top); }
  // The exponential once more: what is stored may be rounded.
  for (var i = 0u; i < dims.size; i++) { y[start + i] = Stored(exp(f32(x[start + i]) - top) / sum); }
}
