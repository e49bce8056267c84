// y[n,c] = sum_p x[n,p,c]: the gradient of what was added per image and channel; with N = 1, of a bias
// One workgroup sums COLUMNS columns: one channel of one image, or four (_vec4) if C is a multiple of 4. Invocations take turns at the pixels; their sums are added in a fixed tree.
// Neighbouring columns let GPUs read whole cache lines; on CPUs a workgroup is one column and one subgroup.
#import index
#import stored
#import values
override WG: u32 = 256u;
override COLUMNS: u32 = 8u;
struct Dims { N: u32, P: u32, C: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> x: array<StoredValues>; // (N, P, C)
@group(0) @binding(1) var<storage, read_write> y: array<Values>; // (N, C)
@group(0) @binding(2) var<uniform> dims: Dims;

var<workgroup> sums: array<Values, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32) {
  let C = dims.C / WIDTH;
  let column = workgroup_index(workgroup, count) * COLUMNS + li % COLUMNS;
  let known = min(column, dims.N * C - 1u);
  let start = known / C * dims.P * C + known % C;
  var sum = Values();
  for (var p = li / COLUMNS; p < dims.P; p += WG / COLUMNS) { sum += Values(x[start + p * C]); }
  sums[li] = sum;
  workgroupBarrier();
  for (var half = WG / 2u; half >= COLUMNS; half /= 2u) {
    if (li < half) { sums[li] += sums[li + half]; }
    workgroupBarrier();
  }
  if (li >= COLUMNS || column >= dims.N * C) { return; }
  sum = sums[li];
  if (dims.accumulate != 0u) { sum += y[column]; }
  y[column] = sum;
}
