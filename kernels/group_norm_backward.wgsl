// part[n,c] = (sum_p dh xhat, sum_p dh), terms of dgamma and dbeta; dx = rstd (dh gamma - mean(dh gamma) - xhat mean(dh gamma xhat)), means over the group; dh is dy with dropout and SiLU undone where set
// One workgroup does one group of one image: it sums channel by channel, then writes dx, or, with TWO, leaves the two means in stats for group_norm_backward_input, which has a place for two gradients.
// Four channels at a time (_vec4) where C0, C1 and the channels of a group are multiples of 4.
#import values
#import stored
#import group_norm
override WG: u32 = 64u;
override TWO: bool = true;
override DROP: bool = false;
@group(0) @binding(0) var<storage, read> x: array<StoredValues>;        // (N, P, C0)
@group(0) @binding(1) var<storage, read> x2: array<StoredValues>;       // (N, P, C1); anything where TWO is not set
@group(0) @binding(2) var<storage, read> dy: array<StoredValues>;       // (N, P, C0 + C1)
@group(0) @binding(3) var<storage, read> gamma: array<Values>;          // (C0 + C1), or with beta (N, 2, C0 + C1)
@group(0) @binding(4) var<storage, read> beta: array<Values>;           // (C0 + C1)
@group(0) @binding(5) var<storage, read_write> stats: array<vec4u>;     // (N, G): bits of mean, rstd, and what the group leaves; behind them with DROP the clock's numbers
@group(0) @binding(6) var<storage, read_write> part: array<Values>;     // (N, 2, C0 + C1)
@group(0) @binding(7) var<storage, read_write> dx: array<StoredValues>; // (N, P, C0); anything where TWO is set
@group(0) @binding(8) var<uniform> dims: Dims;

struct Sums { dgamma: Values, dbeta: Values }
var<workgroup> sums: array<Sums, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) li: u32) {
  let C = (dims.C0 + dims.C1) / WIDTH;
  let size = C / dims.G;
  let first = workgroup.x * size;
  let row = workgroup.y * dims.P;
  let stat = bitcast<vec2f>(stats[workgroup.y * dims.G + workgroup.x].xy);
  var key = vec3u();
  if (DROP) { key = stats[dims.N * dims.G].xyz; }
  var total = vec2f(0.0);
  for (var c = first; c < first + size; c++) {
    let g = scale_of(workgroup.y, c);
    let b = offset_of(workgroup.y, c);
    var dgamma = Values();
    var dbeta = Values();
    for (var p = li; p < dims.P; p += WG) {
      let xhat = (load(row + p, c) - stat.x) * stat.y;
      var d = Values(dy[(row + p) * C + c]);
      if (DROP) { d = dropped(d, workgroup.y, p, c, key); }
      let dh = through_silu(d, g * xhat + b);
      dgamma = fma(dh, xhat, dgamma);
      dbeta += dh;
    }
    sums[li] = Sums(dgamma, dbeta);
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
      if (li < half) { sums[li] = Sums(sums[li].dgamma + sums[li + half].dgamma, sums[li].dbeta + sums[li + half].dbeta); }
      workgroupBarrier();
    }
    let sum = sums[0];
    workgroupBarrier();
    total += vec2f(channel_sum(sum.dbeta * g), channel_sum(sum.dgamma * g));
    if (li == 0u) {
      part[2u * workgroup.y * C + c] = sum.dgamma;
      part[(2u * workgroup.y + 1u) * C + c] = sum.dbeta;
    }
  }
  let m = vec4f(stat, total / f32(dims.P * (dims.C0 + dims.C1) / dims.G));
  if (TWO) {
    if (li == 0u) { stats[workgroup.y * dims.G + workgroup.x] = bitcast<vec4u>(m); }
    return;
  }
  for (var c = first; c < first + size; c++) {
    let g = scale_of(workgroup.y, c);
    let b = offset_of(workgroup.y, c);
    for (var p = li; p < dims.P; p += WG) {
      let i = (row + p) * C + c;
      var e = Values(dy[i]);
      if (DROP) { e = dropped(e, workgroup.y, p, c, key); }
      var d = gradient(e, load(row + p, c), g, b, m);
      if (dims.accumulate != 0u) { d += Values(dx[i]); }
      dx[i] = StoredValues(d);
    }
  }
}
