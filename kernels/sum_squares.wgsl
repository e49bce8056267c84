// part[first + w] = (sum of g_i^2 over the share of workgroup w, index of its first g_i that is not finite)
// One workgroup sums `share` values; index 0xffffffff means that all were finite. Tested by bit pattern: drivers optimise x != x away.
struct Dims { count: u32, share: u32, first: u32, offset: u32 }
@group(0) @binding(0) var<storage, read> g: array<f32>;            // (count)
@group(0) @binding(1) var<storage, read_write> part: array<vec2u>; // sum as bits, first bad index
@group(0) @binding(2) var<uniform> dims: Dims;

var<workgroup> sums: array<f32, 64>;
var<workgroup> bads: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) li: u32) {
  let start = workgroup.x * dims.share;
  var sum = 0.0;
  var bad = 0xffffffffu;
  for (var i = start + li; i < min(start + dims.share, dims.count); i += 64u) {
    if ((bitcast<u32>(g[i]) & 0x7f800000u) == 0x7f800000u) { bad = min(bad, dims.offset + i); } else { sum = fma(g[i], g[i], sum); }
  }
  sums[li] = sum;
  bads[li] = bad;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (li < half) {
      sums[li] += sums[li + half];
      bads[li] = min(bads[li], bads[li + half]);
    }
    workgroupBarrier();
  }
  if (li == 0u) { part[dims.first + workgroup.x] = vec2u(bitcast<u32>(sums[0]), bads[0]); }
}
