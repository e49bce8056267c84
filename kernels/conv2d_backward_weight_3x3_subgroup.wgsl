// part[s,kh,kw,c,o] = sum over the columns of split s of x[n, h+kh-1, w+kw-1, c] * dy[n,h,w,o], for a 3 x 3 convolution that keeps the size; dw = sum_s part[s]; sums[s,o] = sum dy[n,oh,ow,o], whose fold is the bias's gradient
// One subgroup of LANES, eight or four (_lanes4), computes all nine taps of 8 c and 2 LANES o: lane = column (n, w) for x, or two, lane = two output channels for dy.
// It walks down the rows of eight columns of x and keeps those above, at and below in registers: x is loaded once for all taps, dy for eight columns and the two beside.
// BESIDE is off where eight columns end with an image: no pixel beside them is met, and none is loaded. C and O are multiples of 4.
enable subgroups;
#import index
#import conv2d
#import subgroup_8
override BESIDE: bool = true;
@group(0) @binding(0) var<storage, read> x: array<vec4f>;          // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<vec2f>;         // (N, H, W, O)
@group(0) @binding(2) var<storage, read_write> part: array<vec2f>; // (splits, 3, 3, C, O)
@group(0) @binding(3) var<storage, read_write> sums: array<vec2f>; // (splits, O); anything where has_bias is not set
@group(0) @binding(4) var<uniform> dims: Dims;

// The sums: of tap (kh, kw) and input channel c the one at (kh * 3 + kw) * 8 + c.
alias Sums = array<vec2f, 72>;

// Adds the outer products of eight channels of x in eight columns, and of dy in the columns that these meet at each kw, to the sums of the row of taps that begins at
// `first`. A value of x is spread once for three taps, and each sum takes its eight products at once: there are more sums than registers, and each is stored as seldom as can be.
fn meet(acc: ptr<function, Sums>, first: u32, a: mat4x4f, left: array<vec2f, 8>, here: array<vec2f, 8>, right: array<vec2f, 8>) {
  for (var q = 0u; q < 2u; q++) {
    for (var k = 0u; k < 4u; k++) {
      let i = first + q * 4u + k;
      var s0 = (*acc)[i];
      var s1 = (*acc)[i + 8u];
      var s2 = (*acc)[i + 16u];
      for (var r = 0u; r < 8u; r++) {
        let v = vec2f(f32_of_lane(select(a[q], a[2u + q], r >= LANES)[k], r % LANES));
        s0 = fma(v, right[r], s0);
        s1 = fma(v, here[r], s1);
        s2 = fma(v, left[r], s2);
      }
      (*acc)[i] = s0;
      (*acc)[i + 8u] = s1;
      (*acc)[i + 16u] = s2;
    }
  }
}

// Eight channels of the lane's column, or columns, in row `h` of its image, zero outside.
fn source(columns: vec2u, c: vec2u, h: u32, inside: vec2f) -> mat4x4f {
  let row = min(h, dims.H - 1u) * dims.W * (dims.C / 4u);
  let first = vec2u(columns.x + row) + c;
  let m = select(vec2f(0.0), inside, h < dims.H);
  if (LANES == 8u) { return mat4x4f(x[first.x] * m.x, x[first.y] * m.x, vec4f(), vec4f()); }
  let second = vec2u(columns.y + row) + c;
  return mat4x4f(x[first.x] * m.x, x[first.y] * m.x, x[second.x] * m.y, x[second.y] * m.y);
}

// Where columns begin, in pixels.
fn columns_at(j: vec2u) -> vec2u { return j / vec2u(dims.W) * dims.H * dims.W + j % vec2u(dims.W); }

// What the lanes hold of column r of the eight.
fn spread(v: vec2f, r: u32) -> f32 { return f32_of_lane(select(v.x, v.y, r >= LANES), r % LANES); }
fn spread_place(v: vec2u, r: u32) -> u32 { return bitcast<u32>(f32_of_lane(bitcast<f32>(select(v.x, v.y, r >= LANES)), r % LANES)); }

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
  let C4 = dims.C / 4u;
  let O2 = dims.O / 2u;
  let o_tiles = (O2 + LANES - 1u) / LANES;
  let c_tiles = (C4 + 1u) / 2u;
  let tile = workgroup_index(workgroup, count);
  let channel = tile % o_tiles * LANES + lane;
  let o = min(channel, O2 - 1u);
  let c4 = tile / o_tiles % c_tiles * 2u;
  let split = tile / (o_tiles * c_tiles);
  if (split >= dims.splits) { return; }
  let c = vec2u(c4, min(c4 + 1u, C4 - 1u));
  let columns = dims.N * dims.W;
  let share = (columns + 8u * dims.splits - 1u) / (8u * dims.splits) * 8u;
  let end = min((split + 1u) * share, columns);

  let counted = dims.has_bias != 0u && c4 == 0u;
  var sum = vec2f(0.0);
  var acc: Sums;
  for (var first = split * share; first < end; first += 8u) {
    // The lane's column and, of four lanes, the one four further on.
    let k = vec2u(first + lane) + vec2u(0u, LANES);
    let j = min(k, vec2u(columns - 1u));
    let inside = select(vec2f(0.0), vec2f(1.0), k < vec2u(end));
    // What lies beside a column: zero where that is another image's.
    let has_left = select(vec2f(0.0), vec2f(1.0), j % vec2u(dims.W) != vec2u(0u));
    let has_right = select(vec2f(0.0), vec2f(1.0), j % vec2u(dims.W) != vec2u(dims.W - 1u));
    // Lane 0 and 1 of a second place: the columns on the left and on the right of the eight.
    var at = columns_at(j) * O2;
    var beside = columns_at(vec2u(select(max(first, 1u) - 1u, min(first + 8u, columns - 1u), lane == 1u))).x * O2;
    let x_at = columns_at(j) * C4;
    var above = mat4x4f();
    var here = source(x_at, c, 0u, inside);
    for (var h = 0u; h < dims.H; h++) {
      let below = source(x_at, c, h + 1u, inside);
      var b: array<vec2f, 8>;
      for (var r = 0u; r < 8u; r++) { b[r] = dy[spread_place(at, r) + o]; }
      // Columns past the end count for nothing; x is zero there, dy is not.
      if (counted) {
        for (var r = 0u; r < 8u; r++) { sum += select(vec2f(0.0), b[r], first + r < end); }
      }
      var left: array<vec2f, 8>;
      var right: array<vec2f, 8>;
      if (BESIDE) {
        left[0] = dy[subgroupBroadcast(beside, 0u) + o] * spread(has_left, 0u);
        right[7] = dy[subgroupBroadcast(beside, 1u) + o] * spread(has_right, 7u);
      }
      for (var r = 1u; r < 8u; r++) { left[r] = b[r - 1u] * spread(has_left, r); }
      for (var r = 0u; r < 7u; r++) { right[r] = b[r + 1u] * spread(has_right, r); }
      meet(&acc, 0u, above, left, b, right);
      meet(&acc, 24u, here, left, b, right);
      meet(&acc, 48u, below, left, b, right);
      at += vec2u(dims.W * O2);
      beside += dims.W * O2;
      above = here;
      here = below;
    }
  }

  if (channel >= O2) { return; }
  if (counted) { sums[split * O2 + channel] = sum; }
  for (var i = 0u; i < 72u; i++) {
    let ci = c4 * 4u + i % 8u;
    if (ci < dims.C) { part[((split * 9u + i / 8u) * dims.C + ci) * O2 + channel] = acc[i]; }
  }
}
