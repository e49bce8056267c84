// part[first + w] = (sum of g_i^2 over the share of workgroup w, index of its first g_i that is not finite)
// One workgroup sums `share` values, a multiple of four; index 0xffffffff means that all were finite. Tested by bit pattern: drivers optimise x != x away.
// CPUs have WG = 16.
override WG: u32 = 64u;
struct Dims { count: u32, share: u32, first: u32, offset: u32 }
@group(0) @binding(0) var<storage, read> g: array<vec4f>;          // (count)
@group(0) @binding(1) var<storage, read_write> part: array<vec2u>; // sum as bits, first bad index
@group(0) @binding(2) var<uniform> dims: Dims;

const NONE = 0xffffffffu;
var<workgroup> sums: array<vec4f, WG>;
var<workgroup> bads: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) li: u32) {
  let start = workgroup.x * dims.share;
  let end = min(start + dims.share, dims.count);
  var sum = vec4f();
  var bad = NONE;
  for (var i = start + 4u * li; i < end; i += 4u * WG) {
    let at = i + vec4u(0u, 1u, 2u, 3u);
    let v = g[i / 4u];
    let finite = (bitcast<vec4u>(v) & vec4u(0x7f800000u)) != vec4u(0x7f800000u);
    let counted = select(vec4f(), v, finite & (at < vec4u(end)));
    sum = fma(counted, counted, sum);
    let wrong = select(dims.offset + at, vec4u(NONE), finite | (at >= vec4u(end)));
    bad = min(bad, min(min(wrong.x, wrong.y), min(wrong.z, wrong.w)));
  }
  sums[li] = sum;
  bads[li] = bad;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (li < half) {
      sums[li] += sums[li + half];
      bads[li] = min(bads[li], bads[li + half]);
    }
    workgroupBarrier();
  }
  let four = sums[0];
  if (li == 0u) { part[dims.first + workgroup.x] = vec2u(bitcast<u32>((four.x + four.z) + (four.y + four.w)), bads[0]); }
}
