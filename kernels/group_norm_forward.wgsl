// y = silu(gamma (x - mean) / sqrt(var + eps) + beta), moments over the pixels and channels of a group (Wu and He, 2018); silu only where set; then dropout where DROP is set
// One workgroup normalises one group of one image. x and x2 are read as one tensor of C0 + C1 channels, so that a skip connection is never concatenated.
// Four channels at a time (_vec4) where C0, C1 and the channels of a group are multiples of 4. WG is the workgroup's size: 8 on CPUs, where a barrier costs more than a load.
// TWO is off where there is no x2: CPUs run both sides of a branch.
#import values
#import stored
#import group_norm
override WG: u32 = 64u;
override TWO: bool = true;
override DROP: bool = false;
@group(0) @binding(0) var<storage, read> x: array<StoredValues>;       // (N, P, C0)
@group(0) @binding(1) var<storage, read> x2: array<StoredValues>;      // (N, P, C1); anything where C1 = 0
@group(0) @binding(2) var<storage, read> gamma: array<Values>;         // (C0 + C1), or with beta (N, 2, C0 + C1)
@group(0) @binding(3) var<storage, read> beta: array<Values>;          // (C0 + C1)
@group(0) @binding(4) var<storage, read> clock: array<u32>;            // seed, step, first sample id; anything where DROP is not set
@group(0) @binding(5) var<storage, read_write> y: array<StoredValues>; // (N, P, C0 + C1)
@group(0) @binding(6) var<storage, read_write> stats: array<vec4u>;    // (N, G): bits of mean, 1 / sqrt(var + eps), and room for the way back; behind them with DROP (seed, step, first)
@group(0) @binding(7) var<uniform> dims: Dims;

var<workgroup> sums: array<vec2f, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) li: u32) {
  let C = (dims.C0 + dims.C1) / WIDTH;
  let size = C / dims.G;
  let first = workgroup.x * size;
  let row = workgroup.y * dims.P;

  // Moments about the group's first value: E[x^2] - E[x]^2 would cancel where the mean is large.
  let shift = first_channel(load(row, first));
  var sum = Values();
  var squares = Values();
  for (var c = first; c < first + size; c++) {
    for (var p = li; p < dims.P; p += WG) {
      let d = load(row + p, c) - shift;
      sum += d;
      squares = fma(d, d, squares);
    }
  }
  sums[li] = vec2f(channel_sum(sum), channel_sum(squares));
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (li < half) { sums[li] += sums[li + half]; }
    workgroupBarrier();
  }
  let moments = sums[0] / f32(dims.P * (dims.C0 + dims.C1) / dims.G);
  let mean = shift + moments.x;
  let rstd = inverseSqrt(max(moments.y - moments.x * moments.x, 0.0) + dims.eps);
  if (li == 0u) { stats[workgroup.y * dims.G + workgroup.x] = bitcast<vec4u>(vec4f(mean, rstd, 0.0, 0.0)); }
  var key = vec3u();
  if (DROP) {
    key = vec3u(clock[0], clock[1], clock[2]);
    if (li == 0u && workgroup.x == 0u && workgroup.y == 0u) { stats[dims.N * dims.G] = vec4u(key, 0u); }
  }

  for (var c = first; c < first + size; c++) {
    let scale = rstd * scale_of(workgroup.y, c);
    let offset = offset_of(workgroup.y, c);
    for (var p = li; p < dims.P; p += WG) {
      var h = fma(load(row + p, c) - mean, scale, offset);
      if (dims.silu != 0u) { h = h / (1.0 + exp(-h)); }
      if (DROP) { h = dropped(h, workgroup.y, p, c, key); }
      y[(row + p) * C + c] = StoredValues(h);
    }
  }
}
