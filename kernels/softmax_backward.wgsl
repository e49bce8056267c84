// dx[r,i] = y[r,i] (dy[r,i] - sum_j dy[r,j] y[r,j])
// LANES invocations share a row, taking turns at its values; their sums are added in a fixed tree. On CPUs LANES = 1.
#import index
#import stored
#import lanes
override WG: u32 = 64u;
override LANES: u32 = 1u;
struct Dims { rows: u32, size: u32, ld: u32 }
@group(0) @binding(0) var<storage, read> y: array<Stored>;        // (rows, ld), of which `size` count
@group(0) @binding(1) var<storage, read> dy: array<Stored>;       // (rows, ld), of which `size` count
@group(0) @binding(2) var<storage, read_write> dx: array<Stored>; // (rows, ld), of which `size` count
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32) {
  let r = workgroup_index(workgroup, count) * (WG / LANES) + li / LANES;
  let size = select(0u, dims.size, r < dims.rows);
  let start = min(r, dims.rows - 1u) * dims.ld;
  let lane = li % LANES;
  var dot = 0.0;
  for (var i = lane; i < size; i += LANES) { dot = fma(f32(dy[start + i]), f32(y[start + i]), dot); }
  dot = total(dot, li);
  for (var i = lane; i < size; i += LANES) { dx[start + i] = Stored(f32(y[start + i]) * (f32(dy[start + i]) - dot)); }
}
