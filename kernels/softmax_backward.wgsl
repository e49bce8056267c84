// dx[r,i] = y[r,i] (dy[r,i] - sum_j dy[r,j] y[r,j])
// One invocation does one row.
#import index
#import stored
struct Dims { rows: u32, size: u32, ld: u32 }
@group(0) @binding(0) var<storage, read> y: array<Stored>;        // (rows, ld), of which `size` count
@group(0) @binding(1) var<storage, read> dy: array<Stored>;       // (rows, ld), of which `size` count
@group(0) @binding(2) var<storage, read_write> dx: array<Stored>; // (rows, ld), of which `size` count
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let r = thread_index(id, count);
  if (r >= dims.rows) { return; }
  let start = r * dims.ld;
  var dot = 0.0;
  for (var i = 0u; i < dims.size; i++) { dot = fma(f32(dy[start + i]), f32(y[start + i]), dot); }
  for (var i = 0u; i < dims.size; i++) { dx[start + i] = Stored(f32(y[start + i]) * (f32(dy[start + i]) - dot)); }
}
