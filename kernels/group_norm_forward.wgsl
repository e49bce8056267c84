// y = silu(gamma (x - mean) / sqrt(var + eps) + beta), mean and var over the pixels and channels of a group (Wu and He, 2018); silu only if set; then dropout if DROP is set
// One workgroup normalises GROUPS neighbouring groups of one image. x and x2 are read as one tensor of C0 + C1 channels, so that a skip connection is never concatenated.
// Four channels at a time (_vec4) if C0, C1 and the channels of a group are multiples of 4. WG is the workgroup's size: 8 on CPUs, where a barrier costs more than a load.
// COLS invocations read COLS columns (of Values) of a row, COLS / GROUPS of each group, and then the group's next ones. On GPUs these lie side by side, so that whole sectors of memory are read, four rows
// at a time (float32 on an H100: this kernel and its backward passes reach 1.4 to 1.8 TB/s, a copy 2.7). CPUs have one column of one group (COLS = 1), or in subgroups of sixteen one of each of two (COLS = 2).
// TWO is off if there is no x2, since CPUs run both sides of a branch.
#import values
#import stored
#import group_norm
override WG: u32 = 64u;
override GROUPS: u32 = 1u;
override COLS: u32 = 1u;
override TWO: bool = true;
override DROP: bool = false;
@group(0) @binding(0) var<storage, read> x: array<StoredValues>;       // (N, P, C0)
@group(0) @binding(1) var<storage, read> x2: array<StoredValues>;      // (N, P, C1); anything where TWO is not set
@group(0) @binding(2) var<storage, read> gamma: array<Values>;         // (C0 + C1), or with beta (N, 2, C0 + C1)
@group(0) @binding(3) var<storage, read> beta: array<Values>;          // (C0 + C1)
@group(0) @binding(4) var<storage, read> clock: array<u32>;            // seed, step, first sample id; anything where DROP is not set
@group(0) @binding(5) var<storage, read_write> y: array<StoredValues>; // (N, P, C0 + C1)
@group(0) @binding(6) var<storage, read_write> stats: array<vec4u>;    // (N, G): bits of mean, 1 / sqrt(var + eps), and room for two means of backward; behind them with DROP (seed, step, first)
@group(0) @binding(7) var<uniform> dims: Dims;

var<workgroup> sums: array<vec2f, WG>;

fn result(v: Values, mean: f32, scale: Values, offset: Values, n: u32, p: u32, c: u32, key: vec3u) -> StoredValues {
  var h = fma(v - mean, scale, offset);
  if (dims.silu != 0u) { h = h / (1.0 + exp(-h)); }
  if (DROP) { h = dropped(h, n, p, c, key); }
  return StoredValues(h);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) li: u32) {
  let C = (dims.C0 + dims.C1) / WIDTH;
  let size = C / dims.G;
  let n = workgroup.y;
  let row = n * dims.P;
  // The lanes take turns at the pixels; left-over invocations get none.
  let lanes = WG / COLS;
  let column = li % COLS;
  let start = select(li / COLS, dims.P, WG % COLS != 0u && li >= lanes * COLS);
  let of_group = COLS / GROUPS;
  let group = workgroup.x * GROUPS + column / of_group;
  let first = group * size + column % of_group;
  let end = (group + 1u) * size;

  // Moments about the group's first value: E[x^2] - E[x]^2 would cancel for a large mean.
  let shift = first_channel(load(row, group * size));
  var sum = Values();
  var squares = Values();
  for (var c = first; c < end; c += of_group) {
    var p = start;
    for (; COLS > 2u && p + 3u * lanes < dims.P; p += 4u * lanes) {
      let four = load_four(row + p, lanes, c);
      let d0 = four[0] - shift;
      let d1 = four[1] - shift;
      let d2 = four[2] - shift;
      let d3 = four[3] - shift;
      sum = sum + d0 + d1 + d2 + d3;
      squares = fma(d3, d3, fma(d2, d2, fma(d1, d1, fma(d0, d0, squares))));
    }
    for (; p < dims.P; p += lanes) {
      let d = load(row + p, c) - shift;
      sum += d;
      squares = fma(d, d, squares);
    }
  }
  sums[li] = vec2f(channel_sum(sum), channel_sum(squares));
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (li / COLS < half && li / COLS + half < lanes) { sums[li] += sums[li + half * COLS]; }
    workgroupBarrier();
  }
  var total = sums[column / of_group * of_group];
  for (var k = 1u; k < of_group; k++) { total += sums[column / of_group * of_group + k]; }
  let moments = total / f32(dims.P * (dims.C0 + dims.C1) / dims.G);
  let mean = shift + moments.x;
  let rstd = inverseSqrt(max(moments.y - moments.x * moments.x, 0.0) + dims.eps);
  if (li < COLS && li % of_group == 0u) { stats[n * dims.G + group] = bitcast<vec4u>(vec4f(mean, rstd, 0.0, 0.0)); }
  var key = vec3u();
  if (DROP) {
    key = vec3u(clock[0], clock[1], clock[2]);
    if (li == 0u && workgroup.x == 0u && n == 0u) { stats[dims.N * dims.G] = vec4u(key, 0u); }
  }

  for (var c = first; c < end; c += of_group) {
    let scale = rstd * scale_of(n, c);
    let offset = offset_of(n, c);
    var p = start;
    for (; COLS > 2u && p + 3u * lanes < dims.P; p += 4u * lanes) {
      let four = load_four(row + p, lanes, c);
      let i = (row + p) * C + c;
      y[i] = result(four[0], mean, scale, offset, n, p, c, key);
      y[i + lanes * C] = result(four[1], mean, scale, offset, n, p + lanes, c, key);
      y[i + 2u * lanes * C] = result(four[2], mean, scale, offset, n, p + 2u * lanes, c, key);
      y[i + 3u * lanes * C] = result(four[3], mean, scale, offset, n, p + 3u * lanes, c, key);
    }
    for (; p < dims.P; p += lanes) { y[(row + p) * C + c] = result(load(row + p, c), mean, scale, offset, n, p, c, key); }
  }
}
