// x_0 = a x + b output; s = a quantile of |x_0| in the image, kept in [1, most]; y = (clamp(x_0, -s, s) / s - a x) / b, the output that gives this x_0 (Saharia et al., 2022)
// One workgroup per image. Positive floats sort like their bits, so a radix select finds the quantile: four passes count eight bits each and keep the values that hold the rank.
struct Dims { size: u32, K: u32, C: u32, M: u32, rank: u32, fraction: f32, most: f32 }
@group(0) @binding(0) var<storage, read> coef: array<f32>;    // (N, K): a, b first; one row for all images where K = 0
@group(0) @binding(1) var<storage, read> output: array<f32>;  // (N, size / C, M): the first C of M channels are the mean's
@group(0) @binding(2) var<storage, read> x: array<f32>;       // (N, size)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // as output; the other channels are copied
@group(0) @binding(4) var<uniform> dims: Dims;

var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> prefix: u32;
var<workgroup> rank: u32;
var<workgroup> above: atomic<u32>;

fn start(n: u32, i: u32) -> f32 {
  return coef[n * dims.K] * x[n * dims.size + i] + coef[n * dims.K + 1u] * output[(n * dims.size + i) / dims.C * dims.M + i % dims.C];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) li: u32) {
  let n = workgroup.x;
  if (li == 0u) { rank = dims.rank; }
  for (var digit = 0u; digit < 4u; digit++) {
    let shift = 24u - 8u * digit;
    for (var d = li; d < 256u; d += 64u) { atomicStore(&counts[d], 0u); }
    workgroupBarrier();
    for (var i = li; i < dims.size; i += 64u) {
      let bits = bitcast<u32>(abs(start(n, i)));
      if (digit == 0u || (bits >> (shift + 8u)) == prefix) { atomicAdd(&counts[(bits >> shift) & 255u], 1u); }
    }
    workgroupBarrier();
    if (li == 0u) {
      var d = 0u;
      for (; d < 255u && atomicLoad(&counts[d]) <= rank; d++) { rank -= atomicLoad(&counts[d]); }
      prefix = select(prefix << 8u, 0u, digit == 0u) | d;
      atomicStore(&above, 0x7f800000u);
    }
    workgroupBarrier();
  }
  // prefix is the value at the rank. The next value is the same, or the smallest above it.
  for (var i = li; i < dims.size; i += 64u) {
    let bits = bitcast<u32>(abs(start(n, i)));
    if (bits > prefix) { atomicMin(&above, bits); }
  }
  workgroupBarrier();
  let low = bitcast<f32>(prefix);
  var quantile = low;
  if (dims.fraction > 0.0 && rank + 1u >= atomicLoad(&counts[prefix & 255u])) { quantile += dims.fraction * (bitcast<f32>(atomicLoad(&above)) - low); }
  let s = clamp(quantile, 1.0, dims.most);
  for (var i = li; i < dims.size; i += 64u) {
    let at = (n * dims.size + i) / dims.C * dims.M + i % dims.C;
    y[at] = (clamp(start(n, i), -s, s) / s - coef[n * dims.K] * x[n * dims.size + i]) / coef[n * dims.K + 1u];
    if (dims.M > dims.C) { y[at + dims.C] = output[at + dims.C]; }
  }
}
