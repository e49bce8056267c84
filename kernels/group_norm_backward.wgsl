// part[n,c] = (sum_p dh xhat, sum_p dh), the terms of dgamma and dbeta; dx = rstd (dh gamma - mean(dh gamma) - xhat mean(dh gamma xhat)), means over the group
// dh is dy taken back through dropout and SiLU, if set. One workgroup takes GROUPS neighbouring groups of one image: it sums channel by channel, then writes dx.
// With TWO it leaves the means in stats instead, and group_norm_backward_input writes both gradients.
// Four channels at a time (_vec4) if C0, C1 and the channels of a group are multiples of 4. COLS as in group_norm_forward.
#import values
#import stored
#import group_norm_backward
override WG: u32 = 64u;
override GROUPS: u32 = 1u;
override COLS: u32 = 1u;
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

// Adds a pixel to the sums: v is x there, d is dy.
fn plus(sum: Sums, v: Values, d: Values, g: Values, b: Values, stat: vec2f, n: u32, p: u32, c: u32, key: vec3u) -> Sums {
  let xhat = (v - stat.x) * stat.y;
  var e = d;
  if (DROP) { e = dropped(e, n, p, c, key); }
  let dh = through_silu(e, g * xhat + b);
  return Sums(fma(dh, xhat, sum.dgamma), sum.dbeta + dh);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) li: u32) {
  let C = (dims.C0 + dims.C1) / WIDTH;
  let size = C / dims.G;
  let n = workgroup.y;
  let row = n * dims.P;
  // The lanes take turns at the pixels; left-over invocations get none. (Conditions on overrides spare CPUs the selects: a fifth of the time at 4 x 4 pixels.)
  let lanes = WG / COLS;
  let column = li % COLS;
  let start = select(li / COLS, dims.P, WG % COLS != 0u && li >= lanes * COLS);
  let of_group = COLS / GROUPS;
  let group = workgroup.x * GROUPS + column / of_group;
  let end = (group + 1u) * size;
  let stat = bitcast<vec2f>(stats[n * dims.G + group].xy);
  var key = vec3u();
  if (DROP) { key = stats[dims.N * dims.G].xyz; }
  var total = vec2f(0.0);
  for (var turn = 0u; turn < size; turn += of_group) {
    let next = group * size + turn;
    let c = next + column % of_group;
    let begin = select(start, dims.P, of_group > 1u && c >= end);
    let g = scale_of(n, select(c, end - 1u, of_group > 1u && c >= end));
    let b = offset_of(n, select(c, end - 1u, of_group > 1u && c >= end));
    var sum = Sums();
    var p = begin;
    for (; COLS > 2u && p + 3u * lanes < dims.P; p += 4u * lanes) {
      let four = load_four(row + p, lanes, c);
      let d = gradients_four(row + p, lanes, c);
      sum = plus(sum, four[0], d[0], g, b, stat, n, p, c, key);
      sum = plus(sum, four[1], d[1], g, b, stat, n, p + lanes, c, key);
      sum = plus(sum, four[2], d[2], g, b, stat, n, p + 2u * lanes, c, key);
      sum = plus(sum, four[3], d[3], g, b, stat, n, p + 3u * lanes, c, key);
    }
    for (; p < dims.P; p += lanes) { sum = plus(sum, load(row + p, c), Values(dy[(row + p) * C + c]), g, b, stat, n, p, c, key); }
    sums[li] = sum;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
      if (li / COLS < half && li / COLS + half < lanes) {
        let other = li + half * COLS;
        sums[li] = Sums(sums[li].dgamma + sums[other].dgamma, sums[li].dbeta + sums[other].dbeta);
      }
      workgroupBarrier();
    }
    if (COLS == 1u) {
      total += vec2f(channel_sum(sums[0].dbeta * g), channel_sum(sums[0].dgamma * g));
    } else {
      for (var k = 0u; k < of_group && next + k < end; k++) {
        let sum_of = sums[column / of_group * of_group + k];
        let scale = scale_of(n, next + k);
        total += vec2f(channel_sum(sum_of.dbeta * scale), channel_sum(sum_of.dgamma * scale));
      }
    }
    if (li < COLS && c < end) {
      part[2u * n * C + c] = sums[li].dgamma;
      part[(2u * n + 1u) * C + c] = sums[li].dbeta;
    }
    workgroupBarrier();
  }
  let m = vec4f(stat, total / f32(dims.P * (dims.C0 + dims.C1) / dims.G));
  if (TWO) {
    if (li < COLS && li % of_group == 0u) { stats[n * dims.G + group] = bitcast<vec4u>(m); }
    return;
  }
  for (var c = group * size + column % of_group; c < end; c += of_group) {
    let g = scale_of(n, c);
    let b = offset_of(n, c);
    let s = lanes * C;
    var p = start;
    for (; COLS > 2u && p + 3u * lanes < dims.P; p += 4u * lanes) {
      let i = (row + p) * C + c;
      let four = load_four(row + p, lanes, c);
      let e = gradients_four(row + p, lanes, c);
      var d0 = gradient(e[0], four[0], g, b, m, n, p, c, key);
      var d1 = gradient(e[1], four[1], g, b, m, n, p + lanes, c, key);
      var d2 = gradient(e[2], four[2], g, b, m, n, p + 2u * lanes, c, key);
      var d3 = gradient(e[3], four[3], g, b, m, n, p + 3u * lanes, c, key);
      if (dims.accumulate != 0u) {
        d0 += Values(dx[i]);
        d1 += Values(dx[i + s]);
        d2 += Values(dx[i + 2u * s]);
        d3 += Values(dx[i + 3u * s]);
      }
      dx[i] = StoredValues(d0);
      dx[i + s] = StoredValues(d1);
      dx[i + 2u * s] = StoredValues(d2);
      dx[i + 3u * s] = StoredValues(d3);
    }
    for (; p < dims.P; p += lanes) {
      let i = (row + p) * C + c;
      var d = gradient(Values(dy[i]), load(row + p, c), g, b, m, n, p, c, key);
      if (dims.accumulate != 0u) { d += Values(dx[i]); }
      dx[i] = StoredValues(d);
    }
  }
}
