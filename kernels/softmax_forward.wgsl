// y[r,i] = exp(x[r,i] - max_j x[r,j]) / sum_j exp(x[r,j] - max_j x[r,j])
// LANES invocations share a row, taking turns at its values; their maxima and sums are combined in a fixed tree. On CPUs LANES = 1: rows are short (T <= 256) and many.
#import index
#import stored
#import lanes
override WG: u32 = 64u;
override LANES: u32 = 1u;
struct Dims { rows: u32, size: u32, ld: u32 }
@group(0) @binding(0) var<storage, read> x: array<Stored>;       // (rows, ld), of which `size` count
@group(0) @binding(1) var<storage, read_write> y: array<Stored>; // (rows, ld), of which `size` count
@group(0) @binding(2) var<uniform> dims: Dims;

fn largest(mine: f32, li: u32) -> f32 {
  if (LANES == 1u) { return mine; }
  shares[li] = mine;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (li % LANES < half) { shares[li] = max(shares[li], shares[li + half]); }
    workgroupBarrier();
  }
  let all = shares[li / LANES * LANES];
  workgroupBarrier();
  return all;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32) {
  let r = workgroup_index(workgroup, count) * (WG / LANES) + li / LANES;
  let size = select(0u, dims.size, r < dims.rows);
  let start = min(r, dims.rows - 1u) * dims.ld;
  let lane = li % LANES;
  var top = f32(x[start]);
  for (var i = lane; i < size; i += LANES) { top = max(top, f32(x[start + i])); }
  top = largest(top, li);
  var sum = 0.0;
  for (var i = lane; i < size; i += LANES) { sum += exp(f32(x[start + i]) - top); }
  sum = total(sum, li);
  // Not from y, which may be stored rounded.
  for (var i = lane; i < size; i += LANES) { y[start + i] = Stored(exp(f32(x[start + i]) - top) / sum); }
}
