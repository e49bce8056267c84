// part[s,kh,kw,c,o] = sum over the columns of split s of x[n, h+kh-1, w+kw-1, c] * dy[n,h,w,o], for a 3 x 3 convolution that keeps the size; dw = sum_s part[s]; sums[s,o] = sum dy[n,oh,ow,o], whose fold is the bias's gradient
// One subgroup of LANES, eight, four (_lanes4) or sixteen (_lanes16), computes all nine taps of 8 c and CHANNELS LANES o, or, WIDE, of twice as many of both: lane = column (n, w) for x, of four lanes two,
// of sixteen half of one, lane = CHANNELS output channels for dy, or twice as many. On a CPU (llvmpipe) loads are what takes time: a WIDE tile takes 3.2 times as long as another for four times as much.
// It walks down the rows of eight columns of x and keeps those above, at and below in registers: x is loaded once for all taps, dy for eight columns and the two beside.
// BESIDE is off where eight columns end with an image: no pixel beside them is met, and none is loaded. C and O are multiples of 4.
enable subgroups;
#import index
#import conv2d
#import subgroup_8
override BESIDE: bool = true;
override WIDE: bool = false;
@group(0) @binding(0) var<storage, read> x: array<vec4f>;             // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<Channels>;         // (N, H, W, O)
@group(0) @binding(2) var<storage, read_write> part: array<Channels>; // (splits, 3, 3, C, O)
@group(0) @binding(3) var<storage, read_write> sums: array<Channels>; // (splits, O); anything where has_bias is not set
@group(0) @binding(4) var<uniform> dims: Dims;

// The sums of eight input and CHANNELS output channels of a lane: of tap (kh, kw) and input channel c the one at (kh * 3 + kw) * 8 + c. WIDE there are four such, of the first
// input channels those of the first and of the next output channels, then those of the next input channels.
alias Sums = array<Channels, 72>;
alias AllSums = array<Sums, 4>;

// dy of a lane's output channels in the columns that eight of x meet: on their left at the last tap of a row, here, and on their right at the first.
alias Eight = array<Channels, 8>;
struct Met { left: Eight, here: Eight, right: Eight }

// What the lanes hold of channel k of four, q, in column r of the eight. Of sixteen lanes the last eight hold the second four.
fn value(a: mat4x4f, q: u32, k: u32, r: u32) -> Channels {
  if (LANES > 8u) { return Channels(f32_of_lane(a[0][k], 8u * q + r)); }
  return Channels(f32_of_lane(select(a[q], a[2u + q], r >= LANES)[k], r % LANES));
}

// Adds the products of eight columns. Each sum takes them at once: there are more sums than registers, and each is stored as seldom as can be.
fn add(sum: Channels, v: Eight, b: Eight) -> Channels {
  return fma(v[7], b[7], fma(v[6], b[6], fma(v[5], b[5], fma(v[4], b[4], fma(v[3], b[3], fma(v[2], b[2], fma(v[1], b[1], fma(v[0], b[0], sum))))))));
}
fn meet_taps(acc: ptr<function, AllSums>, s: u32, i: u32, v: Eight, b: Met) {
  (*acc)[s][i] = add((*acc)[s][i], v, b.right);
  (*acc)[s][i + 8u] = add((*acc)[s][i + 8u], v, b.here);
  (*acc)[s][i + 16u] = add((*acc)[s][i + 16u], v, b.left);
}

// Adds the outer products of eight channels of x in eight columns, and of dy, to the sums `s` of the row of taps that begins at `first`. A value of x is spread once for
// three taps, WIDE for six. All is written out, as llvmpipe unrolls no loop as long as this.
fn meet_channel(acc: ptr<function, AllSums>, s: u32, i: u32, a: mat4x4f, q: u32, k: u32, b: Met, b2: Met) {
  let v = Eight(value(a, q, k, 0u), value(a, q, k, 1u), value(a, q, k, 2u), value(a, q, k, 3u), value(a, q, k, 4u), value(a, q, k, 5u), value(a, q, k, 6u), value(a, q, k, 7u));
  meet_taps(acc, s, i + q * 4u + k, v, b);
  if (WIDE) { meet_taps(acc, s + 1u, i + q * 4u + k, v, b2); }
}
fn meet(acc: ptr<function, AllSums>, s: u32, first: u32, a: mat4x4f, b: Met, b2: Met) {
  meet_channel(acc, s, first, a, 0u, 0u, b, b2);
  meet_channel(acc, s, first, a, 0u, 1u, b, b2);
  meet_channel(acc, s, first, a, 0u, 2u, b, b2);
  meet_channel(acc, s, first, a, 0u, 3u, b, b2);
  meet_channel(acc, s, first, a, 1u, 0u, b, b2);
  meet_channel(acc, s, first, a, 1u, 1u, b, b2);
  meet_channel(acc, s, first, a, 1u, 2u, b, b2);
  meet_channel(acc, s, first, a, 1u, 3u, b, b2);
}

// Eight channels of the lane's column, or columns, or four, in row `h` of its image, zero outside.
fn source(columns: vec2u, c: vec2u, h: u32, inside: vec2f, lane: u32) -> mat4x4f {
  let row = min(h, dims.H - 1u) * dims.W * (dims.C / 4u);
  let first = vec2u(columns.x + row) + c;
  let m = select(vec2f(0.0), inside, h < dims.H);
  if (LANES > 8u) { return mat4x4f(x[select(first.x, first.y, lane >= 8u)] * m.x, vec4f(), vec4f(), vec4f()); }
  if (LANES == 8u) { return mat4x4f(x[first.x] * m.x, x[first.y] * m.x, vec4f(), vec4f()); }
  let second = vec2u(columns.y + row) + c;
  return mat4x4f(x[first.x] * m.x, x[first.y] * m.x, x[second.x] * m.y, x[second.y] * m.y);
}

// Where columns begin, in pixels.
fn columns_at(j: vec2u) -> vec2u { return j / vec2u(dims.W) * dims.H * dims.W + j % vec2u(dims.W); }

// What the lanes hold of column r of the eight.
fn spread(v: vec2f, r: u32) -> f32 { return f32_of_lane(select(v.x, v.y, r >= LANES), r % LANES); }
fn spread_place(v: vec2u, r: u32) -> u32 { return bitcast<u32>(f32_of_lane(bitcast<f32>(select(v.x, v.y, r >= LANES)), r % LANES)); }

// The lane's output channels of dy, which begin at `o`: in the eight columns that begin at `at`, and in the two `beside` them.
fn met(at: vec2u, beside: u32, o: u32, has_left: vec2f, has_right: vec2f) -> Met {
  var b: Met;
  for (var r = 0u; r < 8u; r++) { b.here[r] = dy[spread_place(at, r) + o]; }
  if (BESIDE) {
    b.left[0] = dy[subgroupBroadcast(beside, 0u) + o] * spread(has_left, 0u);
    b.right[7] = dy[subgroupBroadcast(beside, 1u) + o] * spread(has_right, 7u);
  }
  for (var r = 1u; r < 8u; r++) { b.left[r] = b.here[r - 1u] * spread(has_left, r); }
  for (var r = 0u; r < 7u; r++) { b.right[r] = b.here[r + 1u] * spread(has_right, r); }
  return b;
}

// `sum` and dy in the columns before `end`: x is zero beyond it, dy is not.
fn added(sum: Channels, b: Eight, first: u32, end: u32) -> Channels {
  var all = sum;
  for (var r = 0u; r < 8u; r++) { all += select(Channels(0.0), b[r], first + r < end); }
  return all;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let C4 = dims.C / 4u;
  let OL = dims.O / CHANNELS; // the output channels, in what a lane holds
  let times = select(1u, 2u, WIDE);
  let o_tiles = (OL + times * LANES - 1u) / (times * LANES);
  let c_tiles = (C4 + 2u * times - 1u) / (2u * times);
  let tile = workgroup_index(workgroup, count);
  let channel = tile % o_tiles * times * LANES + lane;
  let o = min(vec2u(channel, channel + LANES), vec2u(OL - 1u));
  let c4 = tile / o_tiles % c_tiles * 2u * times;
  let split = tile / (o_tiles * c_tiles);
  if (split >= dims.splits) { return; }
  let c = min(vec4u(c4) + vec4u(0u, 1u, 2u, 3u), vec4u(C4 - 1u));
  let columns = dims.N * dims.W;
  let share = (columns + 8u * dims.splits - 1u) / (8u * dims.splits) * 8u;
  let end = min((split + 1u) * share, columns);

  let counted = dims.has_bias != 0u && c4 == 0u;
  var sum: array<Channels, 2>;
  var acc: AllSums;
  for (var first = split * share; first < end; first += 8u) {
    // The lane's column and, of four lanes, the one four further on.
    let k = vec2u(first + lane % 8u) + vec2u(0u, LANES);
    let j = min(k, vec2u(columns - 1u));
    let inside = select(vec2f(0.0), vec2f(1.0), k < vec2u(end));
    // What lies beside a column: zero where that is another image's.
    let has_left = select(vec2f(0.0), vec2f(1.0), j % vec2u(dims.W) != vec2u(0u));
    let has_right = select(vec2f(0.0), vec2f(1.0), j % vec2u(dims.W) != vec2u(dims.W - 1u));
    // Lane 0 and 1 of a second place: the columns on the left and on the right of the eight.
    var at = columns_at(j) * OL;
    var beside = columns_at(vec2u(select(max(first, 1u) - 1u, min(first + 8u, columns - 1u), lane == 1u))).x * OL;
    let x_at = columns_at(j) * C4;
    var above = mat4x4f();
    var here = source(x_at, c.xy, 0u, inside, lane);
    var above2 = mat4x4f();
    var here2 = mat4x4f();
    if (WIDE) { here2 = source(x_at, c.zw, 0u, inside, lane); }
    for (var h = 0u; h < dims.H; h++) {
      let below = source(x_at, c.xy, h + 1u, inside, lane);
      let b = met(at, beside, o.x, has_left, has_right);
      var b2: Met;
      if (WIDE) { b2 = met(at, beside, o.y, has_left, has_right); }
      if (counted) {
        sum[0] = added(sum[0], b.here, first, end);
        if (WIDE) { sum[1] = added(sum[1], b2.here, first, end); }
      }
      meet(&acc, 0u, 0u, above, b, b2);
      meet(&acc, 0u, 24u, here, b, b2);
      meet(&acc, 0u, 48u, below, b, b2);
      above = here;
      here = below;
      if (WIDE) {
        let below2 = source(x_at, c.zw, h + 1u, inside, lane);
        meet(&acc, 2u, 0u, above2, b, b2);
        meet(&acc, 2u, 24u, here2, b, b2);
        meet(&acc, 2u, 48u, below2, b, b2);
        above2 = here2;
        here2 = below2;
      }
      at += vec2u(dims.W * OL);
      beside += dims.W * OL;
    }
  }

  if (channel >= OL) { return; }
  let second = WIDE && channel + LANES < OL;
  if (counted) {
    let to = split * OL + channel;
    sums[to] = sum[0];
    if (second) { sums[to + LANES] = sum[1]; }
  }
  for (var i = 0u; i < 72u; i++) {
    let ci = c4 * 4u + i % 8u;
    let to = ((split * 9u + i / 8u) * dims.C + ci) * OL + channel;
    if (ci < dims.C) {
      part[to] = acc[0][i];
      if (second) { part[to + LANES] = acc[1][i]; }
    }
    if (WIDE && ci + 8u < dims.C) {
      let next = to + 8u * OL;
      part[next] = acc[2][i];
      if (second) { part[next + LANES] = acc[3][i]; }
    }
  }
}
